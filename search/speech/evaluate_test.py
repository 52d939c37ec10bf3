"""Evaluate on the test split, once per study; no other file of search/ and models/ names this split.

`split_overlap.py` imports the name from here, to compare the split's texts and speakers with train's before any trial.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import ray

from corpora.features import FeatureStore
from models.metrics import EDITS, bootstrap_difference, bootstrap_interval, char_edits, count_errors, word_edits
from models.mistakes import most_wrong
from search.candidate import Candidate
from search.config import ConfigError
from search.records.files import write_json
from search.records.measured import AgainstSource, Example, Look, Mistakes, SplitRates, plain, read
from search.records.run_folder import RunFolder
from search.speech.task import SpeechTask
from search.speech.transcribe_split import transcribe_trial, transcribe_with_source
from search.trials.context import TrialContext

TEST = "test"
"""The split's name, also of its figures in the summary."""


NUM_EXAMPLES = 20
"""Transcripts kept from a look."""

Heard = tuple[list[str], list[str] | None]
"""What the winner and the unchanged source heard of each clip; None without a source."""


def evaluate_test(run: RunFolder, store: FeatureStore, context: TrialContext, winner: Candidate,
                  look_again: bool) -> Look | None:
    """Score the winner and the unchanged source on test, unless it was read before and no further look is asked for.

    `test.json` keeps every look. Returns the latest one and their number, without its mistakes and examples; None if
    the corpus has no test split.

    Raises:
        ConfigError: the earlier looks cannot be read.
    """
    split, path, exported = store.split(TEST), run.path / "test.json", winner.best_training
    if not len(split):
        return None
    looks = read_looks(path)
    if looks and not look_again and looks[-1].trial != exported.id:
        print(f"test was read for {looks[-1].trial} and is not read again for {exported.id}, the winner now: a test "
              "split that is read twice is a second dev split. --look-again reads it, which is recorded.",
              flush=True)
    if not looks or look_again:
        heard = _hear(context, winner)
        looks.append(_look(split.texts, heard, exported.id, winner.objective, run.config.seed))
        write_json(path, {"looks": plain(looks)})
    return replace(looks[-1], mistakes=None, examples=None, times_read=len(looks))


def _look(texts: Sequence[str], heard: Heard, trial: str, objective: str, seed: int) -> Look:
    """The figures of what the winner and the unchanged source heard of test."""
    winner, before = heard
    wrong = most_wrong(texts, winner)
    look = Look(trial=trial, time=datetime.now(UTC).isoformat(timespec="seconds"), clips=len(texts),
                winner=score(texts, winner, seed), mistakes=Mistakes(winner=wrong),
                examples=[Example(reference=text, hypothesis=winner[i], before=before[i] if before else None)
                          for i, text in enumerate(texts[:NUM_EXAMPLES])])
    if before is None:
        return look
    return replace(look, source_as_it_stands=score(texts, before, seed),
                   against_source=_against_source(texts, winner, before, objective, seed),
                   mistakes=Mistakes(winner=wrong, source_as_it_stands=most_wrong(texts, before, beside=wrong)))


def read_looks(path: Path) -> list[Look]:
    """The looks in `test.json`, the latest last; empty if there is no file.

    Raises:
        ConfigError: the file is damaged.
    """
    if not path.exists():
        return []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        looks = read(list[Look], content.get("looks", [content]))  # a single look, the first format
        if not looks:
            raise ValueError("it holds none")
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"{path}: the looks at test cannot be read ({error}). Restore the file from a copy: without "
                          "it the number of times that test was read is lost.") from None
    return looks


def _hear(context: TrialContext, winner: Candidate) -> Heard:
    """Transcribe each clip of test with the winner's best weights and with the unchanged source."""
    resources = {"num_cpus": context.cpus_per_worker, "num_gpus": context.gpus_per_worker}
    heard = ray.get(transcribe_trial.options(**resources).remote(
        context, winner.recipe, winner.best_training.best_weights, TEST))
    if not SpeechTask.of(context).sources:
        return heard, None
    return heard, ray.get(transcribe_with_source.options(**resources).remote(context, winner.recipe, TEST))


def _against_source(references: Sequence[str], winner: list[str], before: list[str], objective: str,
                    seed: int) -> AgainstSource:
    (edits, source_edits), lengths = EDITS[objective](references, [winner, before])
    low, high = bootstrap_difference(edits[None], source_edits[None], lengths, seed) or (None, None)
    return AgainstSource(difference=float((edits - source_edits).sum() / lengths.sum()), low=low, high=high)


def score(references: Sequence[str], hypotheses: Sequence[str], seed: int) -> SplitRates:
    """Error rates of a split with 95 % intervals over utterances; without intervals if there are too few."""
    errors = count_errors(references, hypotheses)
    low, high = bootstrap_interval(*word_edits(references, [hypotheses]), seed) or (None, None)
    cer_low, cer_high = bootstrap_interval(*char_edits(references, [hypotheses]), seed) or (None, None)
    return SplitRates(wer=errors.wer, wer_low=low, wer_high=high, cer=errors.cer, cer_low=cer_low, cer_high=cer_high,
                      folded_wer=errors.folded_wer, counts=asdict(errors))
