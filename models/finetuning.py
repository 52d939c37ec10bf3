"""The LightningModule of one trial: CTC training by a Recipe, and validation on the development split."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from corpora.batches import Batch
from models.augment import SpecAugment
from models.averaging import averaged
from models.consistency import consistency_loss, consistency_weight, two_views
from models.decoding import greedy
from models.metrics import ErrorCounts, count_errors
from models.optimizers import build_optimizer
from models.other_recordings import OtherRecordings
from models.quartznet import AcousticModel, ctc_loss, folded
from models.schedules import learning_rate_factor
from models.separable import compute_dtype
from models.source_l2 import SourceL2
from models.vocabulary import Vocabulary
from spaces.recipe import Recipe


class TrainingFailed(RuntimeError):
    """A trial that cannot continue; its reason is a result of the study."""


@dataclass(frozen=True)
class Validation:
    """The result of one validation on the development split."""

    errors: ErrorCounts
    loss: float
    """Mean CTC loss of an utterance, in nats; comparable within one vocabulary only."""
    hypotheses: list[str]
    """One for each row of the split, in its order."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What a trial's training depends on in addition to its recipe."""

    total_steps: int
    """Optimizer steps in all epochs together."""
    epoch_audio_s: float
    """Seconds of audio in an epoch, over all workers."""
    dev_audio_s: float = 0.0
    """Seconds of audio in the development split."""
    rank: int = 0
    world_size: int = 1
    passes: int = 1
    """Backward passes of a worker per optimizer step."""
    agree: Callable[[bool], bool] = bool
    """Whether it is true on any worker; all of them ask at the same step."""


Heard = tuple[int, str, float]
"""A row of the development split, its hypothesis, and its loss."""


@dataclass
class _Listener:
    """A network under validation, and its hypotheses so far."""

    network: nn.Module
    heard: list[Heard] = field(default_factory=list)


class FineTuning(pl.LightningModule):
    """Trains an AcousticModel; validation decodes greedily and scores against the frozen reference."""

    def __init__(self, recipe: Recipe, acoustic: AcousticModel, vocabulary: Vocabulary, workload: Workload,
                 dev_texts: list[str], seed: int) -> None:
        super().__init__()
        self.recipe = recipe
        self.acoustic = acoustic
        self.averaged = averaged(acoustic)
        self.vocabulary = vocabulary
        self.workload = workload
        self.dev_texts = dev_texts
        self.seed = seed
        self.augment = SpecAugment(recipe.training.spec_augment, recipe.training.spec_augment_strength,
                                   seed * 1009 + workload.rank,  # each worker draws other masks
                                   for_views=recipe.training.num_views > 1)
        self.other_recordings = OtherRecordings(recipe.training.other_recordings, self.augment.generator)
        transfer = recipe.transfer
        self.source_l2 = (SourceL2(acoustic.encoder, transfer.source_l2)
                          if transfer.use_source and transfer.source_l2 else None)
        self.validation: Validation | None = None
        """Of the averaged weights, which are the trial's result."""
        self.latest_validation: Validation | None = None
        """Of the latest weights, at the same time."""
        self.first_step_at: float | None = None
        self.busy_s = 0.0
        """Seconds spent in training and validation, including those before a resume."""
        self.busy_before_s = 0.0
        """The part of `busy_s` that earlier processes spent."""
        self.look_s = 0.0
        """Seconds of the last validation, of both sets of weights."""
        self._busy_since = self._look_since = 0.0
        self._failure: str | None = None
        self._listeners: list[_Listener] = []

    # --- training -------------------------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """Start the clock of training time; a trial may resume inside an epoch."""
        self._busy_since = time.perf_counter()
        self._freeze()
        if self.workload.rank:  # all start from one seed, for the same weights; each draws other dropout
            torch.manual_seed(self._other_seed(self.global_step))

    def on_train_epoch_start(self) -> None:
        """Exclude the time between epochs."""
        self._busy_since = time.perf_counter()
        self._freeze()

    @property
    def is_encoder_frozen(self) -> bool:
        """Whether the recipe freezes the encoder's weights in this epoch, or all of them but BatchNorm's."""
        return self.recipe.transfer.use_source and self.current_epoch < self.recipe.transfer.frozen_epochs

    @property
    def has_encoder_gradient(self) -> bool:
        """Whether any of the encoder's weights learn in this epoch."""
        return not self.is_encoder_frozen or self.recipe.transfer.frozen_part != "encoder"

    def _freeze(self) -> None:
        """Freeze or free the convolutions alone; the whole encoder is frozen by computing no gradient."""
        if self.recipe.transfer.frozen_part == "encoder_but_batchnorm":
            self.acoustic.encoder.freeze_convolutions(self.is_encoder_frozen)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """This pass's share of the global batch's mean loss; `train/loss` is its CTC part."""
        if self.first_step_at is None:
            self.first_step_at = time.time()
        training = self.recipe.training
        if training.num_views > 1:
            batch = two_views(batch)
        features = self.other_recordings(batch.features, batch.feature_lengths)
        features = self.augment(features, batch.feature_lengths)
        with torch.set_grad_enabled(self.has_encoder_gradient):
            encoded, lengths = self.acoustic.encoder(features, batch.feature_lengths)
        log_probs = self.acoustic.decoder(encoded)
        losses = ctc_loss(log_probs, lengths, batch.targets, batch.target_lengths)
        loss = (losses * batch.weights).sum()
        if training.num_views > 1:
            differences = consistency_loss(log_probs, lengths)
            weight = consistency_weight(training.consistency, self.global_step, self.workload.total_steps)
            loss = loss + weight * (differences * batch.weights.chunk(2)[0] * 2).sum()
            self.log("train/consistency", differences.detach().mean(), on_step=True, batch_size=len(differences))
        if not math.isfinite(loss.item()):
            self._failure = (f"the training loss is {loss.item()} at step {self.global_step} of epoch "
                             f"{self.current_epoch + 1}. Lower the learning rate or lengthen the warm-up.")
        self.log("train/loss", losses.detach().mean(), on_step=True, batch_size=len(losses))
        # DDP averages over workers and Lightning over passes; the weights already divide by the global batch.
        return loss * self.workload.world_size * self.workload.passes

    def on_train_batch_end(self, *_: Any) -> None:
        """Fail on all workers at the same step; if one left alone, the others would wait for it.

        Raises:
            TrainingFailed: the loss is not finite.
        """
        if self.workload.agree(self._failure is not None):
            raise TrainingFailed(self._failure or f"the training loss of another worker is not finite in epoch "
                                                  f"{self.current_epoch + 1}.")

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, gradient_clip_val: float | None = None,
                                    gradient_clip_algorithm: str | None = None) -> None:
        """Clip the norm of all gradients together, as Lightning does.

        Lightning refuses it for a fused optimizer under mixed precision, because a fused one may also undo a scaling of
        the loss. bfloat16 has none.
        """
        if gradient_clip_val:
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            nn.utils.clip_grad_norm_(parameters, gradient_clip_val)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Record the learning rates that this step uses."""
        self.log("train/lr", optimizer.param_groups[-1]["lr"], on_step=True)

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """Go back towards the source's weights and average the weights after each step."""
        super().optimizer_step(*arguments, **options)
        if self.source_l2:
            self.source_l2.pull(cast(torch.optim.Optimizer, self.optimizers(use_pl_optimizer=False)).param_groups)
        self.averaged.update_parameters(self.acoustic)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The recipe's optimizer, with groups for the encoder or its blocks and the decoder; its schedule by step."""
        transfer = self.recipe.transfer
        ratios = (transfer.encoder_lr_ratio, transfer.layer_lr_decay) if transfer.use_source else (1.0, 1.0)
        blocks = [list(block.parameters()) for block in self.acoustic.encoder.blocks]
        optimizer = build_optimizer(self.recipe.optimizer, blocks, list(self.acoustic.decoder.parameters()), *ratios)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(self.recipe.schedule, step, self.workload.total_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # --- validation -----------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Discard the last validation."""
        self._listeners = []
        self._look_since = time.perf_counter()

    def validation_step(self, batch: Batch, _: int) -> None:
        """Decode a batch of the development split, with the averaged weights and with the latest."""
        if not self._listeners:
            dtype = compute_dtype(batch.features)
            networks = (cast(AcousticModel, self.averaged.module), self.acoustic)
            self._listeners = [_Listener(folded(network, dtype)) for network in networks]
        labels = [self.vocabulary.encode(self.dev_texts[row]) for row in batch.rows.tolist()]
        targets = nn.utils.rnn.pad_sequence([torch.tensor(sequence, dtype=torch.long) for sequence in labels],
                                            batch_first=True).to(batch.features.device)
        target_lengths = torch.tensor([len(sequence) for sequence in labels], device=targets.device)
        for listener in self._listeners:
            log_probs, lengths = listener.network(batch.features, batch.feature_lengths)
            losses = ctc_loss(log_probs, lengths, targets, target_lengths)
            texts = greedy(log_probs, lengths, self.vocabulary)
            listener.heard += zip(batch.rows.tolist(), texts, losses.tolist(), strict=True)

    def on_validation_epoch_end(self) -> None:
        """Gather all workers' hypotheses, so that errors are counted once, on the whole split."""
        heard = [listener.heard for listener in self._listeners]
        if self.workload.world_size > 1 and dist.is_initialized():
            gathered: list[Any] = [None] * self.workload.world_size
            dist.all_gather_object(gathered, heard)
            heard = [[item for part in parts for item in part] for parts in zip(*gathered, strict=True)]
        self.validation, self.latest_validation = (self._validation(rows) for rows in heard)
        self._listeners = []  # frees the folded copies
        self.look_s = time.perf_counter() - self._look_since
        self.busy_s += time.perf_counter() - self._busy_since
        self._busy_since = time.perf_counter()

    def _validation(self, heard: list[Heard]) -> Validation:
        by_row = {row: (text, loss) for row, text, loss in heard}
        hypotheses = [by_row[row][0] for row in range(len(self.dev_texts))]
        mean_loss = sum(loss for _, loss in by_row.values()) / max(1, len(by_row))
        return Validation(count_errors(self.dev_texts, hypotheses), mean_loss, hypotheses)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the counters that a resumed trial continues from."""
        inside_s = time.perf_counter() - self._busy_since if self.trainer.training else 0.0
        checkpoint["counters"] = {"busy_s": self.busy_s + inside_s, "augment": self.augment.generator.get_state(),
                                  "dropout": torch.get_rng_state()}
        device = self.trainer.strategy.root_device
        if device.type == "cuda":  # a GPU has a dropout generator of its own
            checkpoint["counters"]["dropout_cuda"] = torch.cuda.get_rng_state(device)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue from the counters of the checkpoint."""
        self.busy_s = self.busy_before_s = checkpoint["counters"]["busy_s"]
        if self.workload.rank:  # the checkpoint is the first worker's; the others need other dropout
            self.augment.generator.manual_seed(self._other_seed(checkpoint["global_step"]))
            return
        self.augment.generator.set_state(checkpoint["counters"]["augment"])
        torch.set_rng_state(checkpoint["counters"]["dropout"])
        device = self.trainer.strategy.root_device
        if device.type == "cuda" and "dropout_cuda" in checkpoint["counters"]:  # else it was on a CPU
            torch.cuda.set_rng_state(checkpoint["counters"]["dropout_cuda"], device)

    def _other_seed(self, step: int) -> int:
        """The seed of a worker other than the first, from a step on."""
        return self.seed * 1009 + self.workload.rank + 7919 * step
