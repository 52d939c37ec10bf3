"""Train the best recipes and the best hand recipe on other seeds, and name the winner."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from corpora.features import FeatureStore
from search.candidate import Candidate
from search.config import StudyConfig
from search.records.job import Job
from search.records.run_folder import RunFolder
from search.records.trial_record import TrialRecord, is_complete, read_failure, records
from search.results.statistics import Difference
from search.speech.task import SpeechTask
from search.trials.budget import Budget
from search.trials.context import TrialContext, epochs_left
from search.trials.interrupt import Interrupt
from search.trials.run_trials import run_jobs


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """The confirmed recipes, best first."""

    candidates: list[Candidate]
    left_out: list[str]
    """What did not fit in the study's budget."""

    @property
    def winner(self) -> Candidate:
        """The lowest mean score over the seeds, among the recipes that failed on the fewest seeds."""
        return self.candidates[0]

    @property
    def hand(self) -> Candidate | None:
        """The best of the hand recipes."""
        return next((candidate for candidate in self.candidates if candidate.hand_recipe), None)

    def joined(self, other: "Confirmed") -> "Confirmed":
        """The recipes of both, best first."""
        return Confirmed(candidates=sorted([*self.candidates, *other.candidates], key=_place),
                         left_out=self.left_out + other.left_out)

    def comparisons(self, seed: int) -> dict[str, tuple[Candidate, Difference]]:
        """The winner minus the runner-up, and minus the best hand recipe, which may be the same."""
        others = {"runner_up": self.candidates[1] if len(self.candidates) > 1 else None,
                  "hand_recipe": self.hand if self.hand is not self.winner else None}
        return {name: (other, Difference.between(self.winner, other, seed)) for name, other in others.items() if other}

    def verdict(self, seed: int, flattery: float | None = None) -> str:
        """The winner against the runner-up and the best hand recipe, in words.

        `flattery` is the optimism of the winner's error rate from its choice on dev, if known. The runner-up was
        chosen there too, a hand recipe was not.
        """
        if not self.winner.trainings[0].is_complete:
            return "no recipe was trained to its end, so nothing is confirmed or compared"
        if len(self.candidates) < 2:
            return "one recipe was confirmed, so there is nothing to compare it with"
        said: dict[str, str] = {}  # by trial: the two may be one
        for role, (other, difference) in self.comparisons(seed).items():
            name = f"runner-up {other.id}" if role == "runner_up" else f"trial {other.id}"
            hand = f", the best hand recipe ({other.hand_recipe})," if other is self.hand else ""
            said.setdefault(other.id, difference.said(name + hand))
            if other is self.hand and (careful := _flattered(difference, flattery)):
                said["careful"] = careful
        return "; ".join([*said.values(), *([] if self.hand else ["no hand recipe was confirmed"])])


def _flattered(difference: Difference, flattery: float | None) -> str:
    """How much of a winner's lead over a hand recipe may come from its choice; empty without a lead or if nothing."""
    if difference.interval is None or difference.interval[1] >= 0 or (flattery is not None and flattery < 5e-4):
        return ""
    said = "the winner was chosen on dev and the hand recipe was not, which flatters the difference"
    if flattery is None:
        return said
    may_be_none = ": it may be no better" if difference.interval[1] + flattery >= 0 else ""
    return f"{said} by about {flattery:.1%} absolute{may_be_none}"


def _place(candidate: Candidate) -> tuple[bool, int, float]:
    """The order of confirmed recipes. One that failed on a seed comes after those that succeeded on all, and one whose
    transcripts say nothing after those that say something."""
    return candidate.is_collapsed, -len(candidate.trainings), candidate.score


def confirm(found: Sequence[TrialRecord], run: RunFolder, room: "RemainingBudget", interrupt: Interrupt,
            hand_recipes: Mapping[str, str]) -> Confirmed:
    """Train the found recipes on the other seeds; finished trainings are kept.

    A found trial that was stopped, or that a budget cut off, is trained to its end first, so that seeds are compared at
    equal length. What does not fit in the budget is left out. `hand_recipes` are names by trial.
    """
    config, trials = run.config, room.context.folder
    kept, seeds = affordable(found, config, room)
    left_out = [f"recipe {record.id}" for record in found if record not in kept]
    left_out += [f"seed {config.seed + i}" for i in range(len(seeds) + 1, config.seeds)]
    run_left(_jobs(kept, seeds, config), room, interrupt, run)
    texts = FeatureStore(SpeechTask.of(room.context).store).split("dev").texts
    candidates = []
    for record in kept:
        folders = [trials / job.id for job in _jobs([record], seeds, config)]
        if trainings := [TrialRecord.load(folder) for folder in folders if is_complete(folder)]:
            candidates.append(Candidate(recipe=record.recipe, trainings=trainings, dev_texts=texts,
                                        hand_recipe=hand_recipes.get(record.id)))
        else:
            print(f"recipe {record.id} is not confirmed: {read_failure(trials / record.id) or 'its process was lost'}",
                  flush=True)
    candidates.sort(key=_place)
    if left_out:
        print(f"the budget leaves no room for: {', '.join(left_out)}", flush=True)
    best = Candidate(recipe=found[0].recipe, trainings=[found[0]], dev_texts=texts,
                     hand_recipe=hand_recipes.get(found[0].id))
    return Confirmed(candidates=candidates or [best], left_out=left_out)


@dataclass(frozen=True)
class RemainingBudget:
    """The rest of the budget, for trainings on this cluster."""

    budget: Budget
    context: TrialContext
    concurrency: int

    def is_enough_for(self, jobs: Sequence[Job]) -> bool:
        """Whether the trainings fit, not counting those that have ended."""
        epochs = [left for job in jobs if (left := epochs_left(self.context.folder, job))]
        need = self.budget.need([epochs], concurrency=self.concurrency, gpus=self.context.gpus)
        return not epochs or self.budget.has_room(need)


def affordable(found: Sequence[TrialRecord], config: StudyConfig,
               room: RemainingBudget) -> tuple[list[TrialRecord], list[int]]:
    """The recipes and other seeds that fit in the budget.

    Seeds are given up first, then the last of the recipes, which is the hand recipe if it is not among the best; the
    best one is always trained to its end.
    """
    seeds = list(range(config.seed + 1, config.seed + config.seeds))
    plans = [(list(found[:count]), seeds[:num_seeds]) for count in range(len(found), 0, -1)
             for num_seeds in range(len(seeds), -1, -1)]
    return next((plan for plan in plans if room.is_enough_for(_jobs(*plan, config))), plans[-1])


def _jobs(found: Sequence[TrialRecord], seeds: Sequence[int], config: StudyConfig) -> list[Job]:
    """The found trials themselves, then each on the other seeds."""
    return ([Job(id=record.id, recipe=record.recipe, seed=config.seed) for record in found]
            + [Job(id=f"{record.id}-seed{seed}", recipe=record.recipe, seed=seed)
               for record in found for seed in seeds])


def run_left(jobs: list[Job], room: RemainingBudget, interrupt: Interrupt, run: RunFolder) -> None:
    """Run the jobs that are not complete yet."""
    left = [job for job in jobs if not is_complete(room.context.folder / job.id)]
    if left:
        reached = (record.best[record.metric] for record in records(room.context.folder) if record.best)
        best = min(reached, default=math.inf)
        run_jobs(room.context, concurrency=room.concurrency, interrupt=interrupt, total=len(jobs), jobs=left,
                 budget=room.budget, so_far=(len(jobs) - len(left), best))
        interrupt.raise_if_set(run.path)
