"""The best recipes on other seeds, a winner with its interval, what transfer bought, and one look at test."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray

from corpora.features import FeatureStore
from models.metrics import ErrorCounts, bootstrap_difference, bootstrap_interval, count_errors, utterance_errors
from models.nemo import SourceModel
from search.budget import Budget
from search.config import StudyConfig
from search.evaluate import transcribe_trial, transcribe_with_source
from search.folder import RunFolder
from search.interrupt import Interrupt
from search.jobs import run_jobs
from search.record import TrialRecord, read_failure, write_json
from search.setting import TrialSetting
from spaces.recipe import Recipe, TransferRecipe


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A recipe with its trainings, one for each seed."""

    recipe: Recipe
    trainings: list[TrialRecord]
    dev_texts: list[str]

    @property
    def id(self) -> str:
        """The trial that the recipe was found in."""
        return self.trainings[0].id

    @property
    def wers(self) -> list[float]:
        """Word error rate on the development split, for each seed."""
        return [training.best.wer for training in self.trainings if training.best]

    @property
    def wer(self) -> float:
        """Mean over the seeds."""
        return float(np.mean(self.wers))

    @property
    def best_training(self) -> TrialRecord:
        """The seed whose weights are taken."""
        return min(self.trainings, key=lambda training: training.best.wer if training.best else np.inf)

    def edits(self) -> tuple[list[int], list[int]]:
        """Word edits, and words, of each development utterance, summed over the seeds."""
        counts = [list(map(utterance_errors, self.dev_texts, t.dev_hypotheses())) for t in self.trainings]
        kept = [i for i, text in enumerate(self.dev_texts) if text.split()]
        return ([sum(seed[i].word_edits for seed in counts) for i in kept],
                [sum(seed[i].words for seed in counts) for i in kept])


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """What was confirmed, best first."""

    candidates: list[Candidate]
    scratch: TrialRecord | None
    """The winner's recipe from random weights, at the same number of epochs."""
    left_out: list[str]
    """What the study's budget had no room for."""

    @property
    def winner(self) -> Candidate:
        """The lowest mean word error rate over the seeds."""
        return self.candidates[0]

    def interval(self, seed: int) -> tuple[float, float]:
        """95 % of the winner's word error rate on the development split."""
        return bootstrap_interval(*self.winner.edits(), seed)

    def verdict(self, seed: int) -> str:
        """The winner against the runner-up, by paired bootstrap."""
        if len(self.candidates) < 2:
            return "one recipe was confirmed, so there is nothing to compare it with"
        runner_up = self.candidates[1]
        (edits, words), (other_edits, other_words) = self.winner.edits(), runner_up.edits()
        if sum(words) != sum(other_words):
            return f"runner-up {runner_up.id} failed on a seed; the two are not compared"
        low, high = bootstrap_difference(edits, other_edits, words, seed)
        if high < 0:
            return (f"better than runner-up {runner_up.id} by {-high:.1%} to {-low:.1%} absolute "
                    "(95 %, paired bootstrap)")
        return (f"a tie with runner-up {runner_up.id} within noise: the difference is {low:+.1%} to {high:+.1%} "
                "absolute (95 %, paired bootstrap)")


def confirm(found: Sequence[TrialRecord], run: RunFolder, setting: TrialSetting, concurrency: int,
            interrupt: Interrupt, budget: Budget) -> Confirmed:
    """Train the found recipes on the other seeds, then the best from random weights; trainings that ended are kept.

    A found trial that a budget cut off is trained to its end first: seeds are compared at equal length. What the
    budget has no room for is left out.
    """
    config, room = run.config, Room(budget, setting, concurrency)
    kept, seeds = affordable(found, config, room)
    left_out = [f"recipe {record.id}" for record in found if record not in kept]
    left_out += [f"seed {config.seed + i}" for i in range(len(seeds) + 1, config.seeds)]
    _run(_jobs(kept, seeds, config), room, interrupt, run)
    texts = FeatureStore(setting.store).split("dev").texts
    candidates = []
    for record in kept:
        folders = [setting.folder / job["id"] for job in _jobs([record], seeds, config)]
        trainings = [TrialRecord.load(folder) for folder in folders if _is_complete(folder)]
        candidates.append(Candidate(recipe=record.recipe, trainings=trainings or [record], dev_texts=texts))
    # A recipe that failed on a seed comes after those that held on all.
    candidates.sort(key=lambda candidate: (-len(candidate.trainings), candidate.wer))
    winner, scratch = candidates[0], setting.folder / f"{candidates[0].id}-scratch"
    if config.ablation and winner.recipe.transfer.use_source:
        jobs = [_job(scratch.name, from_scratch(winner.recipe), config.seed)]
        if room.is_enough_for(jobs):
            _run(jobs, room, interrupt, run)
        else:
            left_out.append("the winner from scratch")
    if left_out:
        print(f"the budget leaves no room for: {', '.join(left_out)}", flush=True)
    return Confirmed(candidates=candidates, left_out=left_out,
                     scratch=TrialRecord.load(scratch) if _is_complete(scratch) else None)


def to_confirm(config: StudyConfig, furthest: int) -> list[list[int]]:
    """Epochs of the trainings that confirm what a search has found, when its longest trial ran `furthest` epochs.

    Two stages: the best recipes to their end and on the other seeds, then the winner from random weights.
    """
    whole, count = int(config.max_epochs or 1), min(config.confirm, int(config.trials or 1))
    to_the_end = [whole - furthest] * count if furthest < whole else []
    return [to_the_end + [whole] * count * (config.seeds - 1),
            [whole] if config.ablation and config.source != "none" else []]


@dataclass(frozen=True)
class Room:
    """What is left of the budget, for trainings on this cluster."""

    budget: Budget
    setting: TrialSetting
    concurrency: int

    def is_enough_for(self, jobs: Sequence[dict[str, Any]]) -> bool:
        """Whether the trainings fit, those that have ended left aside."""
        epochs = [left for job in jobs if (left := epochs_left(self.setting.folder, job))]
        need = self.budget.need([epochs], lanes=self.concurrency, gpus=self.setting.gpus)
        return not epochs or self.budget.has_room(need)


def affordable(found: Sequence[TrialRecord], config: StudyConfig, room: Room) -> tuple[list[TrialRecord], list[int]]:
    """The recipes and other seeds that the budget has room for.

    Seeds are given up first, then the last of the recipes; the best one is trained to its end in any case.
    """
    seeds = list(range(config.seed + 1, config.seed + config.seeds))
    plans = [(list(found[:count]), seeds[:num_seeds]) for count in range(len(found), 0, -1)
             for num_seeds in range(len(seeds), -1, -1)]
    return next((plan for plan in plans if room.is_enough_for(_jobs(*plan, config))), plans[-1])


def _jobs(found: Sequence[TrialRecord], seeds: Sequence[int], config: StudyConfig) -> list[dict[str, Any]]:
    """The found trials themselves, then each on the other seeds."""
    return ([_job(record.id, record.recipe, config.seed) for record in found]
            + [_job(f"{record.id}-seed{seed}", record.recipe, seed) for record in found for seed in seeds])


def _job(name: str, recipe: Recipe, seed: int) -> dict[str, Any]:
    return {"id": name, "recipe": recipe.flat(), "seed": seed}


def epochs_left(trials: Path, job: dict[str, Any]) -> int:
    """Epochs that a job has to train; none where it failed, for it would fail again."""
    folder, whole = trials / job["id"], int(job["recipe"]["training.epochs"])
    if read_failure(folder) is not None:
        return 0
    return whole - len(TrialRecord.load(folder).epochs) if (folder / "record.json").exists() else whole


def _run(jobs: list[dict[str, Any]], room: Room, interrupt: Interrupt, run: RunFolder) -> None:
    """Run the jobs that are not complete yet."""
    left = [job for job in jobs if not _is_complete(room.setting.folder / job["id"])]
    if left:
        run_jobs(room.setting, concurrency=room.concurrency, interrupt=interrupt, total=len(left), jobs=left,
                 budget=room.budget)
        interrupt.raise_if_set(run.path)


def from_scratch(recipe: Recipe) -> Recipe:
    """The same recipe and network with nothing carried over."""
    return replace(recipe, transfer=TransferRecipe(use_source=False, decoder="fresh"))


def _is_complete(folder: Path) -> bool:
    return (folder / "record.json").exists() and TrialRecord.load(folder).is_complete


# --- test -----------------------------------------------------------------------------------------------------------


def read_test_once(run: RunFolder, store: FeatureStore, source: SourceModel | None, setting: TrialSetting,
                   confirmed: Confirmed) -> dict[str, Any]:
    """Score the winner, and the source as it stands, on test; what was read is kept and never read again."""
    path = run.path / "test.json"
    if path.exists():
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return result
    split = store.split("test")
    if not len(split):
        return {}
    winner = confirmed.winner
    resources = {"num_cpus": setting.cpus_per_worker, "num_gpus": setting.gpus_per_worker}
    heard = {"winner": ray.get(transcribe_trial.options(**resources).remote(
        setting, winner.recipe, winner.best_training.best_weights, "test"))}
    if source is not None:
        heard["source_as_it_stands"] = ray.get(transcribe_with_source.options(**resources).remote(setting, "test"))
    result = {"trial": winner.best_training.id, "clips": len(split)}
    for name, hypotheses in heard.items():
        result[name] = score(split.texts, hypotheses, run.config.seed)
    result["examples"] = [{"reference": text, "hypothesis": heard["winner"][i]}
                          for i, text in enumerate(split.texts[:20])]
    write_json(path, result)
    return result


def score(references: Sequence[str], hypotheses: Sequence[str], seed: int) -> dict[str, Any]:
    """Error rates of a split with the word error rate's 95 % interval."""
    errors: ErrorCounts = count_errors(references, hypotheses)
    counts = [c for c in map(utterance_errors, references, hypotheses) if c.words]
    low, high = bootstrap_interval([c.word_edits for c in counts], [c.words for c in counts], seed)
    return {"wer": errors.wer, "wer_low": low, "wer_high": high, "cer": errors.cer, "folded_wer": errors.folded_wer,
            "counts": asdict(errors)}
