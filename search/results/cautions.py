"""What somebody must know before using a winner: that it is no better than silence, or than the unchanged source."""

from search.records.measured import DevRates, Look

TITLES = {"wer": "WER", "cer": "CER"}

LEARN_MORE = "train longer (--max-epochs) or on more speech"


def cautions(objective: str, dev: DevRates, tested: Look | None) -> list[str]:
    """A line for each, with what to do about it; none if the winner is better than both."""
    return [*_silence(dev), *(_source(objective, tested) if tested else [])]


def _silence(dev: DevRates) -> list[str]:
    rates = f"WER {dev.wer:.1%}, CER {dev.cer:.1%} on dev"
    if dev.collapsed:
        return ["the winner is no better than silence: its transcripts fit other clips as well as their own "
                f"({rates}). No trial has learned to recognise speech yet: {LEARN_MORE}, or start from a source in "
                "this or another language (--source)"]
    if dev.wer >= 1:
        return [f"in words the winner is no better than silence, in letters it is ({rates}): it has only begun to "
                f"learn: {LEARN_MORE}"]
    return []


def _source(objective: str, tested: Look) -> list[str]:
    difference, source = tested.against_source, tested.source_as_it_stands
    if not difference or not source:  # no source, or a look of an earlier version
        return []
    low, high = difference.low, difference.high
    if high is not None and high < 0:
        return []
    winner, before = tested.winner.rate(objective), source.rate(objective)
    interval = "" if low is None else f", a difference of {low:+.1%} to {high:+.1%}"
    worse = "worse" if low is not None and low > 0 else "not shown to be better"
    return [f"on test the winner is {worse} than the unchanged source: {TITLES[objective]} {winner:.1%} against "
            f"{before:.1%}{interval}. {LEARN_MORE.capitalize()}, or keep the source: it already recognises this "
            "language as well"]
