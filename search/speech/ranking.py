"""What trials are stopped, proposed and chosen by, from their error rates: the lower, the better."""

from models.metrics import ErrorCounts


def rank(errors: ErrorCounts, objective: str, collapsed: bool) -> float:
    """What rungs and proposals go by: the lower, the better.

    In the WER objective it is the mean of both error rates, because near 100 % only letters tell recipes apart. A rate
    above 1 counts as 1: a recogniser that inserts words is no more useful than one that says nothing. One that has
    collapsed comes after all others.
    """
    wer, cer = min(errors.wer, 1.0), min(errors.cer, 1.0)
    return collapsed + (cer if objective == "cer" else (wer + cer) / 2)


def score(errors: ErrorCounts, objective: str, collapsed: bool) -> float:
    """What epochs and recipes are chosen by: the error rate that is minimised, as long as it ranks anything.

    A rate of 1 or more does not, so those are ranked by letters, and come after. Those that have collapsed come last.
    """
    rate = errors.cer if objective == "cer" else errors.wer
    return rate if rate < 1 and not collapsed else 1 + collapsed + min(errors.cer, 1.0)
