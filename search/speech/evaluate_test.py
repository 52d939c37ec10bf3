"""Evaluate on the test split, once per study; no other file of search/ and models/ names this split.

`split_overlap.py` imports the name from here, to compare the split's texts and speakers with train's before any trial.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ray

from corpora.features import FeatureStore
from models.metrics import EDITS, bootstrap_difference, bootstrap_interval, char_edits, count_errors, word_edits
from models.mistakes import most_wrong
from search.candidate import Candidate
from search.config import ConfigError
from search.records.files import write_json
from search.records.run_folder import RunFolder
from search.speech.task import SpeechTask
from search.speech.transcribe_split import transcribe_trial, transcribe_with_source
from search.trials.context import TrialContext

TEST = "test"
"""The split's name, also of its figures in the summary."""


AGAINST_SOURCE = "against_source"
"""In a look: the winner's error rate minus the unchanged source's, by what the study minimises, with its 95 % interval.
"""

NUM_EXAMPLES = 20
"""Transcripts kept from a look."""


def evaluate_test(run: RunFolder, store: FeatureStore, context: TrialContext, winner: Candidate,
                  look_again: bool) -> dict[str, Any]:
    """Score the winner and the unchanged source on test, unless it was read before and no further look is asked for.

    `test.json` keeps every look. Returns the latest one and their number, `times_read`; empty if the corpus has no test
    split.

    Raises:
        ConfigError: the earlier looks cannot be read.
    """
    split, path, exported = store.split(TEST), run.path / "test.json", winner.best_training
    if not len(split):
        return {}
    looks = read_looks(path)
    if looks and not look_again and looks[-1]["trial"] != exported.id:
        print(f"test was read for {looks[-1]['trial']} and is not read again for {exported.id}, the winner now: a test "
              "split that is read twice is a second dev split. --look-again reads it, which is recorded.",
              flush=True)
    if not looks or look_again:
        heard = _hear(context, winner)
        before = heard.get("source_as_it_stands")
        looks.append({"trial": exported.id, "time": datetime.now(UTC).isoformat(timespec="seconds"),
                      "clips": len(split)}
                     | {name: score(split.texts, texts, run.config.seed) for name, texts in heard.items()}
                     | _against_source(split.texts, heard, winner.objective, run.config.seed)
                     | {"mistakes": _mistakes(split.texts, heard),
                        "examples": [{"reference": text, "hypothesis": heard["winner"][i]}
                                     | ({"before": before[i]} if before else {})
                                     for i, text in enumerate(split.texts[:NUM_EXAMPLES])]})
        write_json(path, {"looks": looks})
    latest = {name: value for name, value in looks[-1].items() if name not in ("examples", "mistakes")}
    return latest | {"times_read": len(looks)}


def read_looks(path: Path) -> list[dict[str, Any]]:
    """The looks in `test.json`, the latest last; empty if there is no file.

    Raises:
        ConfigError: the file is damaged.
    """
    if not path.exists():
        return []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        looks: list[dict[str, Any]] = content.get("looks", [content])  # a single look, the first format
        if not looks or not all("trial" in look for look in looks):
            raise ValueError("a look names no trial")
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"{path}: the looks at test cannot be read ({error}). Restore the file from a copy: without "
                          "it the number of times that test was read is lost.") from None
    return looks


def _hear(context: TrialContext, winner: Candidate) -> dict[str, list[str]]:
    """Transcribe each clip of test with the winner's best weights and with the unchanged source."""
    resources = {"num_cpus": context.cpus_per_worker, "num_gpus": context.gpus_per_worker}
    heard = {"winner": ray.get(transcribe_trial.options(**resources).remote(
        context, winner.recipe, winner.best_training.best_weights, TEST))}
    if SpeechTask.of(context).sources:
        heard["source_as_it_stands"] = ray.get(transcribe_with_source.options(**resources).remote(
            context, winner.recipe, TEST))
    return heard


def _mistakes(references: Sequence[str], heard: dict[str, list[str]]) -> dict[str, Any]:
    """The winner's most frequent mistakes, and how often the others make the same ones."""
    winner = most_wrong(references, heard["winner"])
    others = {name: most_wrong(references, texts, beside=winner) for name, texts in heard.items() if name != "winner"}
    return {"winner": winner} | others


def _against_source(references: Sequence[str], heard: dict[str, list[str]], objective: str,
                    seed: int) -> dict[str, Any]:
    if "source_as_it_stands" not in heard:
        return {}
    (winner, before), lengths = EDITS[objective](references, [heard["winner"], heard["source_as_it_stands"]])
    low, high = bootstrap_difference(winner[None], before[None], lengths, seed) or (None, None)
    return {AGAINST_SOURCE: {"difference": float((winner - before).sum() / lengths.sum()), "low": low, "high": high}}


def score(references: Sequence[str], hypotheses: Sequence[str], seed: int) -> dict[str, Any]:
    """Error rates of a split with 95 % intervals over utterances; without intervals if there are too few."""
    errors = count_errors(references, hypotheses)
    low, high = bootstrap_interval(*word_edits(references, [hypotheses]), seed) or (None, None)
    cer_low, cer_high = bootstrap_interval(*char_edits(references, [hypotheses]), seed) or (None, None)
    return {"wer": errors.wer, "wer_low": low, "wer_high": high, "cer": errors.cer, "cer_low": cer_low,
            "cer_high": cer_high, "folded_wer": errors.folded_wer, "counts": asdict(errors)}
