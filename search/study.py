"""A study from start to finish: prepare, search with Ray Tune and Optuna, confirm, report, export."""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from models.kernels.cpu import library_folder
from search import cluster
from search.capacity.concurrency import gpus_per_worker
from search.capacity.estimate import to_confirm
from search.config import ConfigError, ResolvedConfig, StudyConfig
from search.records.disk_space import check_disks, full_disk_named
from search.records.job import is_part
from search.records.run_folder import RunFolder
from search.records.trial_record import TrialRecord, records
from search.results.ablation import ablate
from search.results.confirmation import RemainingBudget, confirm
from search.results.data_scaling import scale
from search.results.importance import importance
from search.results.report_page import write_report
from search.results.run_summary import StudySummary
from search.results.summary import card, summarise
from search.results.wandb_study import draw_pages, log_study
from search.speech.speech_study import SpeechStudy
from search.study_task import Prepared, StudyTask
from search.task import Measures, Task
from search.trials.budget import Budget
from search.trials.interrupt import Interrupt, interruptible
from search.trials.run_trials import run_jobs
from search.tuning.asha import ResumableASHA
from search.tuning.optuna_study import open_study, trial_id
from search.tuning.searcher import OptunaSearcher, SearchError, num_ended
from search.tuning.warm_start import PastRun, keep_past, read_past, to_try_again
from spaces.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """The result of a study."""

    best: Recipe
    """The confirmed winner."""
    path: Path
    """The run's folder."""
    trials: list[dict[str, Any]]
    """One row per trial: id, state, word error rates by epoch, parameters."""
    summary: StudySummary
    """The measured figures, as in the run's `summary.json`."""


def run_study(config: StudyConfig, resume: bool = False, look_again: bool = False,
              kind: type[StudyTask] = SpeechStudy) -> StudyResult:
    """Run a study to its end, or resume the one in `config.out`; `look_again` reads test once more.

    `kind` is the task to study.

    Raises:
        Interrupted: Ctrl-C; the study is kept and can be resumed.
        ValueError, RuntimeError: one of Cuarzo's own types, with a message that says what to do.
    """
    with contextlib.ExitStack() as stack:
        if config.budget_gpu_h is not None:  # find out about GPUs before anything is written
            stack.enter_context(cluster.connected())
            config.check_gpu_budget(gpus_per_worker(config))
        run = RunFolder.open(kind.locate(config), resume)
        past = read_past(run, resume)
        check_disks(run.config, run.path, resume, library_folder())
        stack.enter_context(full_disk_named(run.path, run.config.cache_folder, library_folder()))
        stack.enter_context(run.locked())
        budget = Budget.open(run.config, run.path, resume)
        task = kind.open(run.config)
        run.begin(task.identify())
        keep_past(run, past)
        stack.enter_context(budget.kept())
        stack.enter_context(cluster.connected())
        prepared = replace(task.prepare(run), past=past)
        draw_pages(run, prepared.context.wandb)
        with interruptible() as interrupt:
            study = search(run, prepared, interrupt, budget)
            room = RemainingBudget(budget, prepared.context, prepared.concurrency)
            confirmed = confirm(best_trials(study, run, budget), run, room, interrupt, hand_recipes(study))
            confirmed, transfer = ablate(confirmed, run, room, interrupt, prepared.context.task.why_infeasible)
            scaling = scale(confirmed.winner, run, room, interrupt, prepared.context.task.why_infeasible)
        tested = task.evaluate_test(run, prepared.context, confirmed.winner, look_again)
        rows = trial_rows(study, run, prepared.context.task.measures)
        what_mattered = importance(study.trials, run.config.seed)
        summary = summarise(run, rows, confirmed, transfer, what_mattered, tested, budget, scaling)
        task.export(run, prepared.context, confirmed.winner, {"card.txt": card(summary)})
        write_report(run.path)
        log_study(run, prepared.context.wandb, summary, rows)
        draw_pages(run, prepared.context.wandb, summary)
    return StudyResult(best=confirmed.winner.recipe, path=run.path, trials=rows, summary=summary)


# --- search ---------------------------------------------------------------------------------------------------------


def search(run: RunFolder, prepared: Prepared, interrupt: Interrupt, budget: Budget) -> optuna.Study:
    """Try recipes until their number or a budget is reached; returns the Optuna study with all results."""
    config, task = run.config, prepared.context.task
    metric = task.measures.ranked
    study = open_study(run.path / "study.db", config.seed)
    check_ranking(study, metric, run.path)
    enqueue_baseline(study, task, prepared.past, config.trials)
    known = [record for record in records(run.trials) if record.epochs and not is_part(record.id)]
    for record in known:
        last = record.epochs[-1]
        budget.observe(record.id, len(record.epochs), last[task.measures.best], last.train_s, last.outside_s)
    scheduler = ResumableASHA.of(config, metric)
    scheduler.replay([record for record in known if record.id.isdigit()])
    searcher = OptunaSearcher(
        study, task.sample, metric=metric, seed=config.seed, num_trials=config.trials,
        folder=run.trials, why_infeasible=task.why_infeasible, is_interrupted=interrupt.is_set)
    # Ray keeps a copy of everything passed to it, so the source's weights in `prepared` are not passed.
    end = partial(_search_end, budget, config, prepared.concurrency, prepared.context.gpus, study)
    if line := budget.line():
        print(line, flush=True)
    has_ended = study.user_attrs.get("ended_by") == asdict(budget.amount_allowed())  # before a kill, by the same budget
    if reason := "the search has ended by its budget" if has_ended else end():
        print(reason, flush=True)
    else:
        run_jobs(prepared.context, concurrency=prepared.concurrency, interrupt=interrupt, searcher=searcher,
                 scheduler=scheduler, total=config.trials, budget=budget, end=end,
                 so_far=(num_ended(study.get_trials(deepcopy=False)),
                         min((record.best[record.metric] for record in known if record.best), default=math.inf)))
    interrupt.raise_if_set(run.path)
    searcher.close()
    return study


def _search_end(budget: Budget, config: ResolvedConfig, concurrency: int, gpus: float,
                study: optuna.Study) -> str | None:
    """Why the search must end so that its winner can be confirmed within the budget; None while it may continue."""
    reserve = budget.need(to_confirm(config, budget.furthest), concurrency=concurrency, gpus=gpus)
    if reason := budget.search_end(reserve):
        study.set_user_attr("ended_by", asdict(budget.amount_allowed()))
    return reason


def best_trials(study: optuna.Study, run: RunFolder, budget: Budget) -> list[TrialRecord]:
    """The best recipes to confirm: of those trained to the end, or, where a budget ended first, of those that got
    furthest. The best hand recipe comes last where it is not among them, wherever it was stopped. What they reached in
    the search counts, not what a killed confirmation added."""
    usable = study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
    loaded = [(trial.intermediate_values, TrialRecord.load(run.trials / trial_id(trial.number))) for trial in usable
              if (run.trials / trial_id(trial.number) / "record.json").exists()]
    found = [([epoch for epoch in record.epochs if epoch.epoch in values], record) for values, record in loaded
             if values and record.best_weights.exists()]
    if not found:
        reasons = "; ".join(sorted({reason for trial in study.trials if (reason := _reason(trial))}))
        if line := budget.line():
            reasons += f" the budget may have ended before a first epoch ({line}); raise it."
        raise SearchError(f"{run.path}: no trial gave a word error rate. Reasons: {reasons or 'none recorded'}")
    ranked = sorted((-len(epochs), min(epoch.score(record.metric) for epoch in epochs), record.id, record)
                    for epochs, record in found)
    best = [record for epochs, _, _, record in ranked if epochs == ranked[0][0]][: run.config.confirm]
    by_hand = hand_recipes(study)
    hand = [record for *_, record in ranked if record.id in by_hand][:1]
    return best + [record for record in hand if record not in best]


def hand_recipes(study: optuna.Study) -> dict[str, str]:
    """Names of the hand recipes, by trial."""
    return {trial_id(trial.number): trial.user_attrs["hand_recipe"] for trial in study.get_trials(deepcopy=False)
            if "hand_recipe" in trial.user_attrs}


def enqueue_baseline(study: optuna.Study, task: Task, past: Sequence[PastRun], num_trials: int) -> None:
    """Queue the hand recipes and then the best recipes of other studies, once; after a kill, those that are missing."""
    if study.user_attrs.get("baseline"):
        return
    baseline = task.hand_recipes()
    _enqueue(study, "hand_recipe", baseline)
    recipes, lines = to_try_again(past, task.sample, list(baseline.values()), num_trials)
    _enqueue(study, "warm_start", recipes)
    for line in lines:
        print(line, flush=True)
    study.set_user_attr("baseline", list(baseline))


def _enqueue(study: optuna.Study, origin: str, recipes: dict[str, dict[str, Any]]) -> None:
    held = [trial.user_attrs.get(origin) for trial in study.get_trials(deepcopy=False)]
    for name, parameters in recipes.items():
        if name not in held:
            study.enqueue_trial(parameters, user_attrs={origin: name})


def check_ranking(study: optuna.Study, metric: str, path: Path) -> None:
    """Have trials ranked by one metric throughout a study.

    Raises:
        ConfigError: the study has trials that were ranked by another one.
    """
    began_by = study.user_attrs.get("ranked_by", "wer" if study.get_trials(deepcopy=False) else metric)
    if began_by != metric:
        raise ConfigError(f"{path}: its trials are ranked by {began_by}, and this Cuarzo ranks by {metric}. Resume it "
                          "with the Cuarzo that began it, or start a new study with --out; --warm-start takes its best "
                          "recipes over.")
    study.set_user_attr("ranked_by", metric)


def trial_rows(study: optuna.Study, run: RunFolder, measures: Measures) -> list[dict[str, Any]]:
    """One row per trial that has begun, with its best epoch in the search and its recipe: for `StudyResult.trials`,
    W&B's table of trials and the summary.

    The report's table has its own rows: `_trials` in search/results/report_page.py.
    """
    rows = []
    for trial in study.get_trials(states=[state for state in TrialState if state != TrialState.WAITING]):
        folder = run.trials / trial_id(trial.number)
        record = TrialRecord.load(folder) if (folder / "record.json").exists() else None
        epochs = [epoch for epoch in record.epochs if epoch.epoch in trial.intermediate_values] if record else []
        best = min(epochs, key=lambda epoch: epoch.score(measures.minimised.name), default=None)
        recipe = trial.user_attrs.get("recipe")
        rows.append({"id": trial_id(trial.number), "state": trial.state.name.lower(), "epochs": len(epochs),
                     **{f"best_{metric.name}": best[metric.name] if best else None for metric in measures.shown},
                     f"last_{measures.minimised.name}": epochs[-1][measures.minimised.name] if epochs else None,
                     "hand_recipe": trial.user_attrs.get("hand_recipe"),
                     "warm_start": trial.user_attrs.get("warm_start"),
                     "reason": _reason(trial)} | (Recipe.from_dict(recipe).flat() if recipe else {}))
    return rows


def _reason(trial: FrozenTrial) -> str | None:
    """Why a trial failed, or could not be trained."""
    return trial.user_attrs.get("reason") or trial.user_attrs.get("infeasible")
