"""Speech as a task: the data and the LightningModule of a recipe, and their metrics."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import ray
import torch
from optuna.trial import BaseTrial
from torch import Tensor

from corpora.batches import Batch, Share, SpeechData
from corpora.features import FRAMES_PER_S, FeatureStore
from models.finetuning import FineTuning, TrainingFailed, Workload
from models.metrics import is_collapsed
from models.nemo import SourceModel
from models.precision import Precision, choose_precision
from models.transfer import start_model
from models.vocabulary import is_feasible, load_vocabulary
from search.config import Objective
from search.records.trial_record import SCORE
from search.speech.ranking import rank, score
from search.speech.search_space import load_space
from search.speech.vocabularies import VocabularyReport
from search.task import Device, Measures, Metric, Speed, TaskData, TaskModule, TrialFailed, Worker
from search.trials.context import TrialContext
from spaces.recipe import Recipe, VocabularyRecipe

PASS_AUDIO_S = {"cpu": 80.0, "cuda": 480.0}
"""Padded seconds in one pass; activations of a 15x5 take about 45 MB per second in float32."""

NUM_EXAMPLES = 20

SOURCE = "transfer.source"
"""The parameter that names one of several sources."""

RATES = {"wer": Metric(name="wer", title="WER"), "cer": Metric(name="cer", title="CER")}
"""Error rates of the averaged weights."""

FIGURES = (
    Metric(name="rank"),
    Metric(name=SCORE),
    Metric(name="collapsed"),  # 1 where transcripts fit other clips as well as their own, else 0
    Metric(name="folded_wer"),  # with accents folded on both sides
    Metric(name="latest_wer"),  # of the latest weights
    Metric(name="loss"),  # mean CTC loss, in nats; comparable within one vocabulary only
    Metric(name="audio_h"),  # hours of audio trained on so far
    Metric(name="times_real_time"),  # seconds of speech that a network transcribed in a second, on its share
)

MEASURES = {objective: Measures(
    metrics=(RATES[objective], *(rate for name, rate in RATES.items() if name != objective), *FIGURES),
    speed=Speed(name="times_real_time", work="audio_h", scale=3600.0), unit="s of speech", ranking="rank")
    for objective in RATES}
"""Metrics of each validation on the development split, by the error rate that a study minimises."""


@dataclass(frozen=True, kw_only=True)
class SpeechTask:
    """Fine-tuning a QuartzNet on the features and vocabularies of a study."""

    store: Path
    """The FeatureStore."""
    vocabularies: Path
    """Folder of the trained vocabularies."""
    sources: Mapping[str, ray.ObjectRef] = field(default_factory=dict)
    """SourceModels by their names in recipes, in Ray's object store: read from disk once for the study."""
    num_mels: int = 64
    precision: Precision = "auto"
    max_audio_s_per_pass: float | None = None
    space: str = ""
    """The module of `spaces/` that its recipes come from; none if they are given."""
    max_epochs: int = 1
    reports: Mapping[VocabularyRecipe, VocabularyReport] = field(default_factory=dict)
    """How the vocabularies of its recipes fit the corpus."""
    max_infeasible_share: float = 1.0
    """Largest share of training clips that CTC cannot align with a recipe's vocabulary."""
    lettered: frozenset[str] = frozenset()
    """The sources whose vocabulary consists of letters."""
    objective: Objective = "wer"
    """The error rate that is minimised."""

    @property
    def measures(self) -> Measures:
        """The metrics of its modules."""
        return MEASURES[self.objective]

    @classmethod
    def of(cls, context: TrialContext) -> "SpeechTask":
        """The task of trials on speech."""
        assert isinstance(context.task, cls)
        return context.task

    def sample(self, trial: BaseTrial) -> Recipe:
        """Draw a recipe of the space, and of several sources one."""
        recipe: Recipe = load_space(self.space).sample(trial, **self._limits)
        if len(self.sources) > 1 and recipe.transfer.use_source:
            source = trial.suggest_categorical(SOURCE, list(self.sources))
            recipe = replace(recipe, transfer=replace(recipe.transfer, source=source))
        return recipe

    def hand_recipes(self) -> dict[str, dict[str, Any]]:
        """Parameters of the space's hand recipes, by name; of several sources, each other one has the first of them."""
        recipes: dict[str, dict[str, Any]] = dict(load_space(self.space).baseline(**self._limits))
        if len(self.sources) < 2 or not recipes:
            return recipes
        first, *others = self.sources
        (name, known), *_ = recipes.items()
        return ({name: recipe | {SOURCE: first} for name, recipe in recipes.items()}
                | {f"{name} from {other}": known | {SOURCE: other} for other in others})

    @property
    def _limits(self) -> dict[str, Any]:
        return {"max_epochs": self.max_epochs, "has_source": bool(self.sources)}

    def source_name(self, recipe: Recipe) -> str | None:
        """The source that a recipe starts from, or takes its shape from: the first one if it names none of the study's,
        as when it is trained again with its own source alone; None without sources."""
        name = recipe.transfer.source
        return name if name in self.sources else next(iter(self.sources), None)

    def source_of(self, recipe: Recipe) -> SourceModel | None:
        """The same, read from Ray's object store."""
        name = self.source_name(recipe)
        return None if name is None else ray.get(self.sources[name])

    def why_infeasible(self, recipe: Recipe) -> str | None:
        """Why a recipe cannot be trained on this corpus, known before it costs anything; None if it can."""
        transfer = recipe.transfer
        if transfer.use_source and transfer.decoder == "letters" and self.source_name(recipe) not in self.lettered:
            return "the source's vocabulary is pieces, so there are no letters to carry over."
        vocabulary = self.reports.get(recipe.vocabulary)
        if vocabulary is None:
            return f"the space's vocabularies() has no {recipe.vocabulary.kind} of size {recipe.vocabulary.size}."
        if vocabulary.error:
            return vocabulary.error
        if vocabulary.infeasible_share > self.max_infeasible_share:
            return (f"CTC cannot align {vocabulary.infeasible_share:.1%} of the training clips with {vocabulary.kind} "
                    f"{vocabulary.size}; the limit max_infeasible_share is {self.max_infeasible_share:.1%}.")
        return None

    def build(self, recipe: Recipe, seed: int, worker: Worker) -> tuple["SpeechTaskData", "SpeechTaskModule"]:
        """The data and the model of one worker."""
        vocabulary = load_vocabulary(self.vocabularies, recipe.vocabulary)
        acoustic = start_model(recipe, self.source_of(recipe), vocabulary, seed, self.num_mels)
        stride = acoustic.encoder.config.stride
        step_s = recipe.training.audio_s_per_step
        heard_s = step_s * recipe.training.num_views  # a pass holds all views of its clips
        passes = math.ceil(heard_s / worker.num_workers / self.pass_limit(worker.device))
        data = SpeechTaskData(
            FeatureStore(self.store), vocabulary.encode, audio_s_per_step=step_s,
            is_usable=lambda labels, frames: is_feasible(labels, (frames - 1) // stride + 1),
            share=Share(rank=worker.rank, world_size=worker.num_workers, passes=passes), seed=seed,
            perturbs_speed=recipe.training.speed_perturbation, data_share=recipe.training.data_share)
        total_steps = sum(data.steps_in_epoch(epoch) for epoch in range(recipe.training.epochs))
        workload = Workload(total_steps=total_steps, epoch_audio_s=data.epoch_audio_s,
                            dev_audio_s=data.dev_split.duration_s, rank=worker.rank, world_size=worker.num_workers,
                            passes=passes, agree=worker.agree)
        module = SpeechTaskModule(recipe, acoustic, vocabulary, workload, data.dev_split.texts, seed)
        module.objective = self.objective
        return data, module

    def trainer_precision(self, device: Device) -> Literal["bf16-mixed", "32-true"]:
        """Lightning's name for the training precision."""
        return "bf16-mixed" if choose_precision(self.precision, device) == torch.bfloat16 else "32-true"

    def pass_limit(self, device: Device) -> float:
        """Most padded seconds in one pass, each view of a clip for itself."""
        return self.max_audio_s_per_pass or PASS_AUDIO_S[device]

    def probe_recipe(self, recipe: Recipe, step_work: float | None = None) -> Recipe:
        """A typical recipe, which trains the whole network with adapting statistics, at a learning rate of almost zero.

        Of one view: with two, a pass holds half the clips in the same memory.
        """
        step_s = recipe.training.audio_s_per_step if step_work is None else step_work
        return replace(
            recipe, optimizer=replace(recipe.optimizer, lr=1e-12),
            transfer=replace(recipe.transfer, decoder="fresh", batchnorm="adapt", frozen_epochs=0),
            training=replace(recipe.training, epochs=1, audio_s_per_step=step_s, consistency=0.0))


class SpeechTaskData(SpeechData, TaskData):
    """SpeechData as the engine's TaskData; work is seconds of speech."""

    @property
    def passes(self) -> int:
        """Backward passes of a worker per optimizer step, so that none holds more audio than fits."""
        return self.share.passes

    @property
    def epoch_work(self) -> float:
        """Seconds of speech in an epoch."""
        return self.epoch_audio_s

    def work(self, batch: Batch) -> float:
        """Seconds of speech in a batch."""
        return float(batch.feature_lengths.sum()) / FRAMES_PER_S

    def padded_work(self, batch: Batch) -> float:
        """Seconds in a batch, padding included."""
        return batch.features.shape[0] * batch.features.shape[2] / FRAMES_PER_S


class SpeechTaskModule(FineTuning, TaskModule):
    """FineTuning as the engine's TaskModule."""

    objective: Objective = "wer"

    @property
    def num_parameters(self) -> int:
        """Number of parameters of the network, without the averaged copy."""
        return self.acoustic.num_parameters

    def on_train_batch_end(self, *arguments: Any) -> None:
        """Fail on all workers at the same step.

        Raises:
            TrialFailed: the loss is not finite.
        """
        try:
            super().on_train_batch_end(*arguments)
        except TrainingFailed as error:
            raise TrialFailed(str(error)) from error

    def metrics(self) -> dict[str, float]:
        """Error rates of the last validation, by the names in MEASURES."""
        assert self.validation and self.latest_validation
        errors = self.validation.errors
        collapsed = is_collapsed(self.dev_texts, self.validation.hypotheses)
        return {"wer": errors.wer, "cer": errors.cer, "rank": rank(errors, self.objective, collapsed),
                SCORE: score(errors, self.objective, collapsed), "collapsed": float(collapsed),
                "folded_wer": errors.folded_wer, "latest_wer": self.latest_validation.errors.wer,
                "loss": self.validation.loss, "audio_h": (self.current_epoch + 1) * self.workload.epoch_audio_s / 3600,
                "times_real_time": 2 * self.workload.dev_audio_s / self.look_s}

    def outputs(self) -> list[str]:
        """Hypotheses of the averaged weights, one for each clip of the development split."""
        return self.validation.hypotheses if self.validation else []

    def examples(self) -> list[list[str]]:
        """References of at most 20 development clips and their hypotheses in the last validation."""
        if self.validation is None:
            return []
        rows = np.linspace(0, len(self.dev_texts) - 1, num=min(NUM_EXAMPLES, len(self.dev_texts)), dtype=int)
        return [[self.dev_texts[row], self.validation.hypotheses[row]] for row in rows]

    def kept_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The averaged weights."""
        prefix = "averaged.module."
        return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
