"""A study from start to end: prepare, search with Ray Tune and Optuna, confirm, report, export."""

import contextlib
import importlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import optuna
import ray
from optuna.trial import TrialState

from corpora.features import FeatureStore
from corpora.text import NORMALISER_VERSION
from models.frontend import FrontendConfig
from models.nemo import SourceModel, read_nemo
from models.vocabulary import CharacterVocabulary
from search import cluster, embedded, tracking
from search.ablation import ablate
from search.budget import Budget
from search.config import ConfigError, StudyConfig
from search.confirm import Room, confirm, to_confirm
from search.disk import check_cache, check_disks, full_disk_named
from search.export import export_best
from search.final_look import look_at_test
from search.folder import RunFolder
from search.identity import Identity, sha256, space_key
from search.importance import importance
from search.interrupt import Interrupt, interruptible
from search.jobs import run_jobs
from search.packing import pack
from search.prepare import (
    STORE_VERSION,
    ClipLimits,
    Inputs,
    VocabularyReport,
    corpus_report,
    join_corpora,
    prepare_features,
    prepare_vocabularies,
)
from search.record import TrialRecord, records, write_json
from search.report import write_report
from search.sampler import NamedASHA, SearchError, TruthfulSearcher, open_study, trial_id
from search.setting import TrialSetting
from search.summary import summarise
from spaces.recipe import Recipe, VocabularyRecipe


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """What a study found."""

    best: Recipe
    """The confirmed winner."""
    path: Path
    """The run's folder."""
    trials: list[dict[str, Any]]
    """A row for each trial: id, state, word error rates by epoch, parameters."""
    summary: dict[str, Any]
    """The measured figures, as in the run's `summary.json`."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What the search needs from the corpus and the source."""

    store: FeatureStore
    source: SourceModel | None
    space: ModuleType
    setting: TrialSetting
    vocabularies: dict[VocabularyRecipe, VocabularyReport]
    concurrency: int


def check(config: StudyConfig) -> str:
    """Prepare the features and vocabularies and return, as JSON, what a study would see of its corpus."""
    config = config.resolved()
    check_cache(config.cache_folder)
    inputs = open_inputs(config)
    if inputs is None:
        raise ConfigError("corpus is not set; --check looks at a corpus. Name one with --corpus.")
    with cluster.connected():
        store = prepare_features(inputs.corpora, clip_limits(config, inputs.frontend), config.cache_folder)
        space = load_space(str(config.space))
        stride = inputs.network(space).stride
        _, vocabularies = prepare_vocabularies(store, space.vocabularies(), config.language, stride)
    return json.dumps(corpus_report(store, list(vocabularies.values())), indent=2, ensure_ascii=False)


def run_study(config: StudyConfig, resume: bool = False, look_again: bool = False) -> StudyResult:
    """Run a study to its end, or go on with the one in `config.out`; `look_again` reads test once more.

    Raises:
        Interrupted: Ctrl-C; the study is kept and can be resumed.
        ValueError, RuntimeError: one of Cuarzo's own, with a message that says what to do.
    """
    with contextlib.ExitStack() as stack:
        if config.budget_gpu_h is not None:  # whether there are GPUs is known before anything is written
            stack.enter_context(cluster.connected())
            config.check_gpu_budget(gpus_per_worker(config))
        run = RunFolder.open(config, resume)
        check_disks(run.config, run.path, resume)
        stack.enter_context(full_disk_named(run.path, run.config.cache_folder))
        stack.enter_context(run.locked())
        budget = Budget.open(run.config, run.path, resume)
        inputs = open_inputs(run.config)
        run.begin(identify(run.config, inputs))
        stack.enter_context(budget.kept())
        stack.enter_context(cluster.connected())
        prepared = prepare(run, inputs or embedded.make_inputs(run.config))
        with interruptible() as interrupt:
            study = search(run, prepared, interrupt, budget)
            room = Room(budget, prepared.setting, prepared.concurrency)
            confirmed = confirm(best_trials(study, run, budget), run, room, interrupt, hand_recipes(study))
            transfer = ablate(confirmed.winner, run, room, interrupt, feasibility(prepared, run.config))
        tested = look_at_test(run, prepared.store, prepared.source, prepared.setting, confirmed.winner, look_again)
        rows = trial_rows(study)
        what_mattered = importance(study.trials, run.config.seed)
        summary = summarise(run, rows, confirmed, transfer, what_mattered, tested, budget)
        export_best(run, prepared.source, prepared.setting, confirmed, summary)
        write_report(run.path)
        tracking.log_study(run.path, run.name, run.config.wandb, config=asdict(run.config), summary=summary,
                           trials=rows, best=run.best)
    return StudyResult(best=confirmed.winner.recipe, path=run.path, trials=rows, summary=summary)


# --- prepare --------------------------------------------------------------------------------------------------------


def open_inputs(config: StudyConfig) -> Inputs | None:
    """Open what the person named, before anything is started; None for the embedded default, which has to be made.

    Raises:
        ConfigError, NemoFileError, CorpusError: the space, the source or a corpus cannot be opened.
    """
    load_space(str(config.space))
    if not config.corpus:
        return None
    source = None if config.source in (None, "none") else read_nemo(str(config.source))
    return Inputs(source=source, corpora=join_corpora(config.corpus))


def identify(config: StudyConfig, inputs: Inputs | None) -> Identity:
    """What a study is made of now; without inputs it is the embedded default, whose inputs are made by code."""
    space = space_key(Path(str(load_space(str(config.space)).__file__)))
    features = f"{STORE_VERSION}.{NORMALISER_VERSION}"
    if inputs is None:
        return Identity(corpus=(embedded.corpus_key(),), source=embedded.source_key(), space=space, features=features)
    return Identity(corpus=tuple(corpus.fingerprint for corpus in inputs.corpora), space=space, features=features,
                    source=sha256(Path(str(config.source))) if inputs.source else "")


def prepare(run: RunFolder, inputs: Inputs) -> Prepared:
    """Make or open the features and the vocabularies, and write `corpus_report.json`."""
    config, source = run.config, inputs.source
    space = load_space(str(config.space))
    store = prepare_features(inputs.corpora, clip_limits(config, inputs.frontend), config.cache_folder)
    folder, vocabularies = prepare_vocabularies(store, space.vocabularies(), config.language,
                                                inputs.network(space).stride)
    report = corpus_report(store, list(vocabularies.values()))
    write_json(run.path / "corpus_report.json", report)
    setting, concurrency = pack(run, trial_setting(run, store, folder, source),
                                first_recipe(space, config, has_source=source is not None))
    return Prepared(store=store, source=source, space=space, setting=setting, vocabularies=vocabularies,
                    concurrency=concurrency)


def clip_limits(config: StudyConfig, frontend: FrontendConfig) -> ClipLimits:
    """Which clips a study takes."""
    return ClipLimits(language=config.language, min_duration_s=config.min_duration_s,
                      max_duration_s=config.max_duration_s, frontend=frontend)


def trial_setting(run: RunFolder, store: FeatureStore, vocabularies: Path, source: SourceModel | None) -> TrialSetting:
    """What all trials share, in the shape that was given or is the default."""
    config = run.config
    return TrialSetting(
        study=run.name, folder=run.trials, store=store.folder, vocabularies=vocabularies, language=config.language,
        source=ray.put(source) if source else None, num_mels=source.frontend.num_mels if source else 64,
        num_workers=config.workers_per_trial, cpus_per_worker=config.cpus_per_worker or 1.0,
        gpus_per_worker=gpus_per_worker(config), precision=config.precision,
        max_audio_s_per_pass=config.max_audio_s_per_pass, timeout_s=config.trial_timeout_s, wandb=config.wandb)


def gpus_per_worker(config: StudyConfig) -> float:
    """As configured, or what the cluster suggests."""
    if config.gpus_per_worker is not None:
        return config.gpus_per_worker
    return 1.0 if cluster.resources()["GPU"] >= 1 else 0.0


def load_space(name: str) -> ModuleType:
    """A module of `spaces/` that holds `sample`, `baseline` and `vocabularies`.

    Raises:
        ConfigError: there is none of this name.
    """
    folder = cluster.ROOT / "spaces"
    known = sorted(path.stem for path in folder.glob("*.py") if "def baseline(" in path.read_text(encoding="utf-8"))
    if name not in known:
        raise ConfigError(f"space is {name!r}; it must be one of {', '.join(known)}, or a module that you add to "
                          "spaces/ beside them.")
    return importlib.import_module(f"spaces.{name}")


# --- search ---------------------------------------------------------------------------------------------------------


def search(run: RunFolder, prepared: Prepared, interrupt: Interrupt, budget: Budget) -> optuna.Study:
    """Try recipes until their number or a budget is reached; returns the Optuna study, all told."""
    config = run.config
    study = open_study(run.path / "study.db", config.seed)
    sample = partial(_sample, prepared.space, int(config.max_epochs or 1), prepared.source is not None)
    enqueue_baseline(study, prepared, config)
    known = [record for record in records(run.trials) if record.epochs]
    for record in known:
        budget.see(len(record.epochs), record.epochs[-1].train_s, record.epochs[-1].outside_s)
    scheduler = NamedASHA(max_epochs=int(config.max_epochs or 1), grace_epochs=int(config.grace_epochs or 1),
                          reduction_factor=config.reduction_factor)
    scheduler.replay([record for record in known if record.id.isdigit()])
    searcher = TruthfulSearcher(
        study, sample, seed=config.seed, num_trials=int(config.trials or 1), folder=run.trials,
        why_infeasible=feasibility(prepared, config), is_interrupted=interrupt.is_set)
    end = partial(_search_end, budget, config, prepared, study)
    if line := budget.line():
        print(line, flush=True)
    has_ended = study.user_attrs.get("ended_by") == budget.figures()["budget"]  # before a kill, by the same budget
    if reason := "the search has ended by its budget" if has_ended else end():
        print(reason, flush=True)
    else:
        run_jobs(prepared.setting, concurrency=prepared.concurrency, interrupt=interrupt, searcher=searcher,
                 scheduler=scheduler, total=int(config.trials or 1), budget=budget, end=end)
    interrupt.raise_if_set(run.path)
    searcher.close()
    return study


def _search_end(budget: Budget, config: StudyConfig, prepared: Prepared, study: optuna.Study) -> str | None:
    """Why the search has to end, so that what it found can be confirmed within the budget; None while it may go on."""
    reserve = budget.need(to_confirm(config, budget.furthest), lanes=prepared.concurrency, gpus=prepared.setting.gpus)
    if reason := budget.search_end(reserve):
        study.set_user_attr("ended_by", budget.figures()["budget"])
    return reason


def best_trials(study: optuna.Study, run: RunFolder, budget: Budget) -> list[TrialRecord]:
    """The best recipes to confirm: of those trained to the end, or, where a budget ended first, of those that got
    furthest. The best hand recipe comes last where it is not among them, wherever it was stopped. What they reached in
    the search counts, not what a killed confirmation added."""
    usable = study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
    loaded = [(trial.intermediate_values, TrialRecord.load(run.trials / trial_id(trial.number))) for trial in usable
              if (run.trials / trial_id(trial.number) / "record.json").exists()]
    found = [(values, record) for values, record in loaded if values and record.best_weights.exists()]
    if not found:
        reasons = "; ".join(sorted({str(row["reason"]) for row in trial_rows(study) if row["reason"]}))
        if line := budget.line():
            reasons += f" the budget may have ended before a first epoch ({line}); raise it."
        raise SearchError(f"{run.path}: no trial gave a word error rate. Reasons: {reasons or 'none recorded'}")
    ranked = sorted((-len(values), min(values.values()), record.id, record) for values, record in found)
    best = [record for epochs, _, _, record in ranked if epochs == ranked[0][0]][: run.config.confirm]
    by_hand = hand_recipes(study)
    hand = [record for *_, record in ranked if record.id in by_hand][:1]
    return best + [record for record in hand if record not in best]


def hand_recipes(study: optuna.Study) -> dict[str, str]:
    """Names of the hand recipes, by trial."""
    return {trial_id(trial.number): trial.user_attrs["hand_recipe"] for trial in study.get_trials(deepcopy=False)
            if "hand_recipe" in trial.user_attrs}


def _sample(space: ModuleType, max_epochs: int, has_source: bool, trial: optuna.Trial) -> Recipe:
    recipe: Recipe = space.sample(trial, max_epochs=max_epochs, has_source=has_source)
    return recipe


def enqueue_baseline(study: optuna.Study, prepared: Prepared, config: StudyConfig) -> None:
    """Put the hand recipes first, once."""
    if study.user_attrs.get("baseline"):
        return
    baseline = prepared.space.baseline(max_epochs=int(config.max_epochs or 1), has_source=prepared.source is not None)
    for name, parameters in baseline.items():
        study.enqueue_trial(parameters, user_attrs={"hand_recipe": name})
    study.set_user_attr("baseline", list(baseline))


def first_recipe(space: ModuleType, config: StudyConfig, has_source: bool) -> Recipe:
    """The first hand recipe of a space; what it leaves open is drawn."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study, max_epochs = optuna.create_study(sampler=optuna.samplers.RandomSampler(config.seed)), config.max_epochs or 1
    for parameters in list(space.baseline(max_epochs=max_epochs, has_source=has_source).values())[:1]:
        study.enqueue_trial(parameters)
    return _sample(space, max_epochs, has_source, study.ask())


def _has_letters(prepared: Prepared) -> bool:
    """Whether the source has rows of letters that can be carried over."""
    return prepared.source is not None and isinstance(prepared.source.vocabulary, CharacterVocabulary)


def feasibility(prepared: Prepared, config: StudyConfig) -> Callable[[Recipe], str | None]:
    """Why a recipe cannot be trained in this study; None where it can."""
    return partial(why_infeasible, prepared.vocabularies, config.max_infeasible_share, _has_letters(prepared))


def why_infeasible(vocabularies: dict[VocabularyRecipe, VocabularyReport], max_share: float, source_has_letters: bool,
                   recipe: Recipe) -> str | None:
    """Why a recipe cannot be trained on this corpus, before it costs anything; None where it can."""
    transfer = recipe.transfer
    if transfer.use_source and transfer.decoder == "letters" and not source_has_letters:
        return "the source's vocabulary is pieces, so there are no letters to carry over."
    vocabulary = vocabularies.get(recipe.vocabulary)
    if vocabulary is None:
        return f"the space's vocabularies() has no {recipe.vocabulary.kind} of size {recipe.vocabulary.size}."
    if vocabulary.error:
        return vocabulary.error
    if vocabulary.infeasible_share > max_share:
        return (f"CTC cannot align {vocabulary.infeasible_share:.1%} of the training clips with {vocabulary.kind} "
                f"{vocabulary.size}; the limit max_infeasible_share is {max_share:.1%}.")
    return None


def trial_rows(study: optuna.Study) -> list[dict[str, Any]]:
    """A row for each trial, for tables."""
    rows = []
    for trial in study.get_trials(states=[state for state in TrialState if state != TrialState.WAITING]):
        epochs = trial.intermediate_values
        recipe = trial.user_attrs.get("recipe")
        rows.append({"id": trial_id(trial.number), "state": trial.state.name.lower(), "epochs": len(epochs),
                     "best_wer": min(epochs.values(), default=None),
                     "last_wer": epochs[max(epochs)] if epochs else None,
                     "hand_recipe": trial.user_attrs.get("hand_recipe"),
                     "reason": trial.user_attrs.get("reason") or trial.user_attrs.get("infeasible")}
                    | (Recipe.from_dict(recipe).flat() if recipe else {}))
    return rows
