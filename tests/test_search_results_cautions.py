"""A winner that is no better than silence, or than the unchanged source, is said to be so first."""

from search.records.measured import AgainstSource, DevRates, Look, SplitRates
from search.results.cautions import cautions

GOOD = DevRates(wer=0.3, cer=0.1)


def on_test(low: float | None, high: float | None) -> Look:
    return Look(trial="0001", winner=SplitRates(wer=0.986, cer=0.6, folded_wer=0.98),
                source_as_it_stands=SplitRates(wer=0.973, cer=0.5, folded_wer=0.97),
                against_source=AgainstSource(difference=0.013, low=low, high=high))


def test_good_winner_needs_no_caution() -> None:
    assert cautions("wer", GOOD, None) == cautions("wer", GOOD, on_test(-0.3, -0.01)) == []


def test_silent_winner_is_said_to_be_so_whatever_its_rates() -> None:
    [said] = cautions("wer", DevRates(collapsed=True, wer=0.97, cer=0.93), None)
    assert said.startswith("the winner is no better than silence: its transcripts fit other clips as well as their own "
                           "(WER 97.0%, CER 93.0% on dev)") and "--max-epochs" in said and "--source" in said


def test_winner_that_hears_letters_but_no_words_is_said_to_have_begun() -> None:
    [said] = cautions("wer", DevRates(wer=1.01, cer=0.73), None)
    assert said.startswith("in words the winner is no better than silence, in letters it is")


def test_winner_that_is_not_better_than_the_source_is_said_to_be_so() -> None:
    [worse] = cautions("wer", GOOD, on_test(0.001, 0.02))
    assert worse.startswith("on test the winner is worse than the unchanged source: WER 98.6% against 97.3%, a "
                            "difference of +0.1% to +2.0%.") and "keep the source" in worse
    [unknown] = cautions("cer", GOOD, on_test(-0.02, 0.02))
    assert "is not shown to be better than the unchanged source: CER 60.0% against 50.0%" in unknown
    [few] = cautions("wer", GOOD, on_test(None, None))
    assert "not shown to be better" in few and "difference" not in few
