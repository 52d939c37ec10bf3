"""Prepare a search: open and identify its inputs, make features and vocabularies, and determine the trials' shape."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
import torch

from corpora.corpus import open_corpus
from corpora.features import FeatureStore
from corpora.manifest import SPLITS
from corpora.reference import Reference
from corpora.splits import origins
from corpora.storage import is_uri
from corpora.text import NORMALISER_VERSION
from files.atomic import write_aside
from models.frontend import FrontendConfig
from models.nemo import SourceModel, read_nemo
from models.quartznet import AcousticModel, QuartzNetConfig, named_network
from models.vocabulary import CharacterVocabulary
from search.capacity.concurrency import gpus_per_worker, known_speed, measure_alone, pack
from search.capacity.estimate import Load, estimate
from search.config import ConfigError, ResolvedConfig, StudyConfig
from search.records.disk_space import free_bytes
from search.records.files import sha256, write_json
from search.records.fingerprints import Identity, space_key
from search.records.run_folder import RunFolder, has_begun
from search.speech import embedded_study
from search.speech.catalog import SOURCES, is_name
from search.speech.corpus_report import corpus_report, find_misfit, origin_lines
from search.speech.features import STORE_VERSION, Inputs, join_corpora, prepare_features
from search.speech.resolve import local_path
from search.speech.search_space import check_space, load_space
from search.speech.shards import ClipLimits
from search.speech.split_overlap import Overlap, find_overlaps, refuse_overlap
from search.speech.task import SpeechTask
from search.speech.vocabularies import VocabularyReport, prepare_vocabularies
from search.study_task import Prepared
from search.trials import wandb_run
from search.trials.context import TrialContext
from search.tuning.optuna_study import first_recipe
from spaces.did_you_mean import nearest
from spaces.recipe import Recipe, VocabularyRecipe


@dataclass(frozen=True, kw_only=True)
class SpeechPrepared(Prepared):
    """What the search needs, and the corpus that it was made of."""

    store: FeatureStore


def open_inputs(config: ResolvedConfig) -> Inputs | None:
    """Open the configured inputs, before anything is started; None for the embedded default, which must be made first.

    What is given by a catalog name is downloaded into the cache, once.

    Raises:
        ConfigError, NemoFileError, CorpusError: the space, the source or a corpus cannot be opened.
        DownloadError: a download failed.
    """
    check_space(load_space(config.space), config.max_epochs, config.source != "none")
    if not config.corpora:
        return None
    cache = config.cache_folder
    for name in config.corpora:
        if name in SOURCES or not (is_name(name) or is_uri(name) or Path(name).expanduser().exists()):
            open_corpus(name)  # fails before anything is downloaded
    sources = {name: _open_source(path, cache) for name, path in config.sources.items()}
    _check_one_shape(config, sources)
    paths = [str(local_path(name, cache)) for name in config.corpora]
    return Inputs(sources=sources, corpora=join_corpora(paths, config.given_splits, cache))


def _open_source(name: str, cache: Path) -> SourceModel:
    if name not in SOURCES and not Path(name).expanduser().exists():  # a corpus's name would be downloaded first
        near = nearest(name.removesuffix(".nemo"), SOURCES)
        raise ConfigError(f"{name}: there is no such file{near}. Name a .nemo file, {', '.join(SOURCES)}, or none to "
                          "train from random weights.")
    return read_nemo(local_path(name, cache))


def _check_one_shape(config: ResolvedConfig, sources: Mapping[str, SourceModel]) -> None:
    """Refuse sources whose trials could not be compared, or could not share features.

    Raises:
        ConfigError: two differ in their network or their front end.
    """
    for name, source in sources.items():
        first, *_ = sources.values()
        for what, one, its in (("network", first.network, source.network),
                               ("front end", first.frontend, source.frontend)):
            if one != its:
                raise ConfigError(f"{config.sources[name]}: its {what} differs from that of {config.source_called('')} "
                                  f"({_difference(its, one)}). The sources of a study must have one shape, or its "
                                  "trials could not be compared; search from this one in a study of its own.")


def _difference(one: Any, other: Any) -> str:
    """The first field in which two dataclasses differ."""
    name = next(f.name for f in fields(one) if getattr(one, f.name) != getattr(other, f.name))
    return f"{name} is {getattr(one, name)}, not {getattr(other, name)}"


def identify(config: ResolvedConfig, inputs: Inputs | None) -> Identity:
    """What a study is made of now; without inputs it is the embedded default, whose inputs are generated."""
    space = space_key(Path(str(load_space(config.space).__file__)))
    now = partial(Identity, space=space, language=config.spoken.key, features=f"{STORE_VERSION}.{NORMALISER_VERSION}")
    if inputs is None:
        return now(corpus=(embedded_study.corpus_key(),), source=embedded_study.source_key())
    return now(corpus=tuple(corpus.key for corpus in inputs.corpora),
               source="+".join(sha256(Path(local_path(source, config.cache_folder)))
                               for source in config.sources.values()))


def prepare(run: RunFolder, inputs: Inputs, recipe: Recipe | None = None) -> SpeechPrepared:
    """Make or open the features and the vocabularies, and write `corpus_report.json` and the reference.

    With a recipe, only what it needs; otherwise everything that the space's recipes may need.

    Raises:
        CorpusError: test and train share a speaker or a sentence, and it is not allowed.
    """
    wandb = wandb_run.choose_mode(run.config.wandb)
    prepared, report, overlaps, reference = examine(run, inputs, recipe=recipe)
    path = run.path / "corpus_report.json"
    write_json(path, report)
    refuse_overlap(overlaps, run.config, path)
    keep_reference(run, reference)
    if any(corpus.origins for corpus in inputs.corpora):
        for line in origin_lines(report["origins"]):
            print(line, flush=True)
    for line in report["overlap"]["said"]:
        print(f"warning: {line}", flush=True)
    return replace(prepared, context=replace(prepared.context, wandb=wandb,
                                             wandb_variables=ray.put(wandb_run.variables(wandb))))


def examine(run: RunFolder, inputs: Inputs, is_time_wanted: bool = False, recipe: Recipe | None = None,
            ) -> tuple[SpeechPrepared, dict[str, Any], list[Overlap], Reference]:
    """Make or open the features and the vocabularies, and determine the trials' shape: returns what the search needs,
    the corpus report, the overlaps of splits, and the reference texts.

    If the report needs times, a training is timed even if the trials' shape is given.
    """
    config = run.config
    for corpus in inputs.corpora:
        if corpus.language not in (None, config.spoken.code):
            print(f"warning: {corpus.path}: says that it is in {corpus.language!r}, but the study's language is "
                  f"{config.spoken.code!r}; name the correct one with --language", flush=True)
    space = load_space(config.space)
    store = prepare_features(inputs.corpora, clip_limits(config, inputs.frontend), config.cache_folder)
    if misfit := find_misfit(store, config.spoken):
        print(f"warning: {misfit}", flush=True)
    splits = {name: store.split(name) for name in SPLITS}  # kept, so that each is read only once
    wanted = [recipe.vocabulary] if recipe else space.vocabularies()
    network = named_network(recipe.network) if recipe and recipe.network != "source" else inputs.network(space)
    folder, vocabularies = prepare_vocabularies(store, wanted, config.spoken.alphabet, network.stride)
    recipe = recipe or first_recipe(space, config.max_epochs, bool(inputs.sources), config.seed)
    context, concurrency = pack(run, trial_context(run, store, folder, vocabularies, inputs), recipe)
    speed = known_speed(run.path) or (measure_alone(context, recipe) if is_time_wanted else None)
    load = Load(
        train_s=splits["train"].duration_s, dev_s=splits["dev"].duration_s, speech_s_per_s=speed,
        concurrency=concurrency, gpus_per_trial=context.gpus, audio_s_per_step=recipe.training.audio_s_per_step,
        weights_bytes=weights_bytes(network, max(report.num_labels for report in vocabularies.values())),
        features_bytes=sum(file.stat().st_size for file in store.folder.rglob("*") if file.is_file()),
        free_bytes=free_bytes(config.run_path()))
    overlaps, reference = find_overlaps(store), Reference.of(store)
    report = corpus_report(config, store, list(vocabularies.values()), overlaps) | {
        "misfit": misfit, "origins": origins(inputs.corpora), "reference": reference.facts(),
        "estimate": estimate(config, load)}
    prepared = SpeechPrepared(store=store, context=context, concurrency=concurrency)
    return prepared, report, overlaps, reference


def weights_bytes(network: QuartzNetConfig, num_labels: int) -> int:
    """Bytes of a network's weights and statistics in float32, with a decoder of this many labels and the blank."""
    with torch.device("meta"):
        state = AcousticModel(network, num_labels + 1).state_dict()
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values())


def keep_reference(run: RunFolder, reference: Reference) -> None:
    """Write the reference texts that the study is scored on; once it has trials, they must not change.

    Raises:
        ConfigError: they differ from those at the study's start.
    """
    if has_begun(run.path) and run.reference.exists():
        if differences := Reference.load(run.reference).differences(reference):
            raise ConfigError(f"{run.reference}: the texts that the study is scored on have changed since its start: "
                              f"{differences}. Put back what was there, or start a new study with --out.")
        return
    write_aside(run.reference, reference.to_parquet())


def clip_limits(config: StudyConfig, frontend: FrontendConfig) -> ClipLimits:
    """Which clips a study uses."""
    return ClipLimits(language=config.spoken, min_duration_s=config.min_duration_s,
                      max_duration_s=config.max_duration_s, frontend=frontend)


def trial_context(run: RunFolder, store: FeatureStore, vocabularies: Path,
                  reports: dict[VocabularyRecipe, VocabularyReport], inputs: Inputs) -> TrialContext:
    """What all trials share, in the given or the default shape."""
    config = run.config
    return TrialContext(
        study=run.unique_name, folder=run.trials,
        task=SpeechTask(store=store.folder, vocabularies=vocabularies,
                        sources={name: ray.put(source) for name, source in inputs.sources.items()},
                        num_mels=inputs.frontend.num_mels, precision=config.precision,
                        max_audio_s_per_pass=config.max_audio_s_per_pass, space=config.space,
                        max_epochs=config.max_epochs, reports=reports,
                        max_infeasible_share=config.max_infeasible_share, objective=config.objective,
                        lettered=frozenset(name for name, source in inputs.sources.items()
                                           if isinstance(source.vocabulary, CharacterVocabulary))),
        num_workers=config.workers_per_trial, cpus_per_worker=config.cpus_per_worker or 1.0,
        gpus_per_worker=gpus_per_worker(config), timeout_s=config.trial_timeout_s, wandb=config.wandb,
        rungs=config.rungs)
