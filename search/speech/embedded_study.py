"""The embedded default: two synthetic corpora, and an English QuartzNet trained on one of them."""

import hashlib
import json
from pathlib import Path

from corpora.features import FeatureStore
from corpora.languages import ENGLISH
from corpora.manifest import SPLITS, CorpusError
from corpora.synthetic import release_name, write_synthetic
from models.frontend import FrontendConfig
from models.nemo import read_nemo, write_nemo
from models.quartznet import named_network
from search.config import StudyConfig
from search.records.job import Job
from search.records.trial_record import TrialRecord, is_complete, read_failure
from search.speech.features import Inputs, join_corpora, prepare_features
from search.speech.retry import alone
from search.speech.shards import ClipLimits
from search.speech.task import SpeechTask
from search.speech.transcribe_split import load_trial
from search.speech.vocabularies import prepare_vocabularies
from search.trials.context import TrialContext
from search.trials.interrupt import interruptible
from search.trials.run_trials import run_jobs
from spaces.recipe import OptimizerRecipe, Recipe, ScheduleRecipe, TrainingRecipe, TransferRecipe, VocabularyRecipe

NUM_UTTERANCES = {"en": dict(zip(SPLITS, (3000, 100, 100), strict=True)),
                  "es": dict(zip(SPLITS, (300, 150, 150), strict=True))}
"""Clips of the corpora: an hour and a half of English to learn from, and little Spanish, so that transfer matters."""

CORPUS_SEED = 0

PRETRAINING = Recipe(
    network="narrow",
    optimizer=OptimizerRecipe(name="adamw", lr=1e-2, weight_decay=0.05),
    schedule=ScheduleRecipe(name="cosine", warmup_share=0.1),
    vocabulary=VocabularyRecipe(kind="characters"),
    transfer=TransferRecipe(use_source=False, decoder="fresh"),
    training=TrainingRecipe(epochs=5, audio_s_per_step=20.0, spec_augment="none"),
)
"""The recipe of the English source."""

SOURCE_VERSION = 2
"""Version of the code that makes it. 2: its averaged weights are kept."""


def corpus_key() -> str:
    """A key of the generated Spanish corpus."""
    return hashlib.sha256(release_name("es", NUM_UTTERANCES["es"], CORPUS_SEED).encode()).hexdigest()


def source_key() -> str:
    """A key of the English source."""
    english = release_name("en", NUM_UTTERANCES["en"], CORPUS_SEED)
    return hashlib.sha256(json.dumps([SOURCE_VERSION, english, PRETRAINING.identity()]).encode()).hexdigest()


def make_inputs(config: StudyConfig) -> Inputs:
    """Synthesise both corpora and train the English source, or find them in the cache."""
    print("speaking the embedded corpora with eSpeak NG", flush=True)
    spanish = write_synthetic(config.cache_folder / "synthetic", "es", NUM_UTTERANCES["es"], CORPUS_SEED)
    corpora = join_corpora([str(spanish)], cache=config.cache_folder)
    return Inputs(sources={"": read_nemo(make_source(config))}, corpora=corpora)


def make_source(config: StudyConfig) -> Path:
    """Synthesise the English corpus and train a QuartzNet on it, or find it in the cache; returns its .nemo."""
    cache = config.cache_folder
    english = write_synthetic(cache / "synthetic", "en", NUM_UTTERANCES["en"], CORPUS_SEED)
    limits = ClipLimits(language=ENGLISH, min_duration_s=config.min_duration_s,
                        max_duration_s=config.max_duration_s, frontend=FrontendConfig())
    store = prepare_features(join_corpora([str(english)], cache=cache), limits, cache)
    content = [SOURCE_VERSION, store.folder.name, PRETRAINING.identity()]
    key = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    source = cache / "sources" / f"embedded-en-{key}.nemo"
    if source.exists():
        return source
    with alone(source, "trains"):
        if not source.exists():  # another process has trained it meanwhile
            _pretrain(source, _context(store, cache / "sources" / key, config), config)
    return source


def _context(store: FeatureStore, folder: Path, config: StudyConfig) -> TrialContext:
    network = named_network(PRETRAINING.network)
    vocabularies, _ = prepare_vocabularies(store, [PRETRAINING.vocabulary], ENGLISH.alphabet, network.stride)
    return TrialContext(
        study="embedded-en", folder=folder,
        task=SpeechTask(store=store.folder, vocabularies=vocabularies, num_mels=network.num_mels),
        num_workers=1, cpus_per_worker=1.0, gpus_per_worker=0.0, timeout_s=config.trial_timeout_s, wandb="off")


def _pretrain(source: Path, context: TrialContext, config: StudyConfig) -> None:
    """Train the English source and write it as a .nemo, which marks it complete."""
    print("training the embedded English source", flush=True)
    job = Job(id="english", recipe=PRETRAINING, seed=CORPUS_SEED)
    with interruptible() as interrupt:
        run_jobs(context, concurrency=1, interrupt=interrupt, total=1, jobs=[job])
        interrupt.raise_if_set(config.run_path())
    folder = context.folder / "english"
    if not is_complete(folder):
        reason = read_failure(folder) or "its process was lost; run the study again to resume it"
        raise CorpusError(f"{folder}: the embedded English source could not be trained: {reason}")
    acoustic, vocabulary = load_trial(context, PRETRAINING, TrialRecord.load(folder).best_weights)
    write_nemo(source, FrontendConfig(), acoustic.encoder.config, vocabulary, acoustic.state_dict())
