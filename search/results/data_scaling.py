"""How much more speech would help: the winner's recipe on parts of the speech, and a power law through their errors."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from corpora.features import FeatureStore
from models.metrics import EDITS, resampled_rates
from search.candidate import Candidate
from search.records.job import PARTS, Job
from search.records.measured import DataScaling, MoreSpeech, Part
from search.records.run_folder import RunFolder
from search.records.trial_record import TrialRecord, is_complete, read_failure
from search.results.ablation import NO_ROOM, on_its_seed
from search.results.cautions import TITLES
from search.results.confirmation import RemainingBudget, run_left
from search.results.statistics import too_few
from search.speech.task import SpeechTask
from search.trials.interrupt import Interrupt
from spaces.recipe import Recipe

TIMES = (2.0, 4.0)
"""So many times the speech is predicted for. A power law has no floor, so it is too optimistic far out."""


def scale(winner: Candidate, run: RunFolder, room: RemainingBudget, interrupt: Interrupt,
          why_infeasible: Callable[[Recipe], str | None]) -> DataScaling | None:
    """Train the parts and fit the law; None if the study does not ask for it."""
    if not run.config.data_scaling:
        return None
    trained, why_missing = train_parts(winner, run, room, interrupt, why_infeasible)
    hours = FeatureStore(SpeechTask.of(room.context).store).split("train").duration_s / 3600
    return fit(trained, why_missing, hours, run.config.seed)


def train_parts(winner: Candidate, run: RunFolder, room: RemainingBudget, interrupt: Interrupt,
                why_infeasible: Callable[[Recipe], str | None]) -> tuple[list[Candidate], str | None]:
    """Train the winner's recipe on parts of the speech, on the study's seed and in as many epochs; done ones are kept.

    Returns: the trainings, the smallest part first and the whole last, and why one is missing.
    """
    whole = on_its_seed(winner)
    if not whole.trainings[0].is_complete:
        return [whole], "the winner was not trained to its end"
    recipes = {end: replace(winner.recipe, training=replace(winner.recipe.training, data_share=share))
               for end, share in PARTS.items() if share < winner.recipe.training.data_share}
    reasons = [reason for recipe in recipes.values() if (reason := why_infeasible(recipe))]
    jobs = [Job(id=f"{winner.id}-{end}", recipe=recipe, seed=whole.trainings[0].seed)
            for end, recipe in recipes.items()]
    if not reasons and not room.is_enough_for(jobs):
        reasons = [NO_ROOM]
    if reasons or len(jobs) < len(PARTS):
        return [whole], (reasons or ["the winner itself has only a part of the speech"])[0]
    run_left(jobs, room, interrupt, run)
    folders = [room.context.folder / job.id for job in jobs]
    for folder in folders:
        if not is_complete(folder):
            return [whole], read_failure(folder) or "a process was lost and did not come back"
    return [*(replace(whole, recipe=job.recipe, trainings=[TrialRecord.load(folder)], hand_recipe=None)
              for job, folder in zip(jobs, folders, strict=True)), whole], None


def fit(trained: list[Candidate], why_missing: str | None, hours: float, seed: int) -> DataScaling:
    """The power law through the errors of `train_parts`; `hours` are those of the whole training split.

    error = a hours^-b, fitted to the logarithms by least squares. The interval is over resampled utterances of dev, the
    same for all trainings; it does not cover other seeds, nor that the law bends towards a floor.

    Source: Hestness et al., Deep learning scaling is predictable, empirically, 2017 (arXiv 1712.00409).
    """
    name = trained[-1].objective
    parts = [Part(share=one.recipe.training.data_share, hours=one.recipe.training.data_share * hours,
                  rate=one.rate(name), trial=one.id) for one in trained]
    if why_missing:
        return DataScaling(parts=parts, why_none=why_missing)
    if max(part.rate for part in parts) >= 1:
        return DataScaling(parts=parts, why_none=f"a part of the speech ends at a {TITLES[name]} of 100 % or more")
    heard = [one.trainings[0].dev_hypotheses() for one in trained]
    edits, lengths = EDITS[name](trained[-1].dev_texts, heard)
    resampled = resampled_rates(edits, lengths, seed)
    if resampled is None:
        return DataScaling(parts=parts, why_none=too_few(len(lengths), "development"))
    least = 0.5 / lengths.sum()  # no error is less than half of one
    shares = np.log([part.share for part in parts])
    sizes = shares - shares.mean()
    rates = np.log(np.maximum(least, np.vstack([[part.rate for part in parts], resampled])))
    slopes = rates @ sizes / np.square(sizes).sum()
    if np.quantile(slopes[1:], 0.975) >= 0:
        return DataScaling(parts=parts, exponent=-float(slopes[0]), why_none="within noise, the error does not fall "
                           "from a quarter of the speech to all of it")
    at = np.log(TIMES) - shares.mean()
    predicted = np.exp(rates.mean(axis=1)[:, None] + slopes[:, None] * at)
    low, high = np.quantile(predicted[1:], [0.025, 0.975], axis=0)
    more = [MoreSpeech(times=times, hours=times * hours, rate=float(predicted[0, i]), low=float(low[i]),
                       high=float(high[i])) for i, times in enumerate(TIMES)]
    return DataScaling(parts=parts, exponent=-float(slopes[0]), more=more)


def scaling_lines(scaling: DataScaling | None, objective: str) -> list[str]:
    """What more speech would give, in words; none if it was not asked for."""
    if scaling is None:
        return []
    if scaling.why_none:
        return [f"what more speech would give is unknown: {scaling.why_none}"]
    known = ", ".join(f"{part.rate:.1%} of {part.share:.0%}" for part in scaling.parts)
    more = "; ".join(f"{one.times:g} times ({one.hours:.3g} h) about {one.rate:.1%} (95 %: {one.low:.1%} to "
                     f"{one.high:.1%})" for one in scaling.more)
    return [f"what more speech would give, by dev {TITLES[objective]} of the winner's recipe on parts of it ({known}):",
            f"  {more}",
            "  for speech of the same kind, in as many epochs, by a power law, which far out is too optimistic"]
