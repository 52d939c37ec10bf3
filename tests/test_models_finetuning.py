"""One trial's training step: the same for any number of workers, frozen where the recipe says, and stopped on NaN."""

from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from corpora.batches import Batch, Share
from models.finetuning import FineTuning, TrainingFailed, Workload
from models.kernels import kernels_for
from models.quartznet import AcousticModel, named_network
from models.vocabulary import CharacterVocabulary
from spaces.recipe import Recipe, TrainingRecipe, TransferRecipe

LABELS = tuple(" abcdefghij")
NO_AUGMENT = TrainingRecipe(spec_augment="none")

pytestmark = pytest.mark.filterwarnings("ignore:You are trying to `self.log")


def acoustic() -> AcousticModel:
    torch.manual_seed(0)
    model = AcousticModel(named_network("narrow"), len(LABELS) + 1)
    model.encoder.set_batchnorm_mode("keep")
    return model.train()


def module(recipe: Recipe, world_size: int = 1, passes: int = 1) -> FineTuning:
    workload = Workload(total_steps=10, epoch_audio_s=10.0, world_size=world_size, passes=passes)
    return FineTuning(recipe, acoustic(), CharacterVocabulary(LABELS), workload, ["ab", "c"], seed=0)


def batch_of(rows: np.ndarray, weights: np.ndarray) -> Batch:
    """Clips of 40 to 110 frames with two to seven labels, the same for a row in whatever batch."""
    lengths = 40 + 10 * rows
    features = torch.zeros(len(rows), 64, 112)
    targets = torch.zeros(len(rows), 8, dtype=torch.long)
    for i, row in enumerate(rows.tolist()):
        generator = torch.Generator().manual_seed(row)
        features[i, :, : lengths[i]] = torch.randn(64, int(lengths[i]), generator=generator)
        targets[i, : 2 + row % 6] = torch.randint(0, len(LABELS), (2 + row % 6,), generator=generator)
    return Batch(features=features, feature_lengths=torch.from_numpy(lengths), targets=targets,
                 target_lengths=torch.from_numpy(2 + rows % 6), rows=torch.from_numpy(rows),
                 weights=torch.from_numpy(weights))


def gradients(world_size: int, passes: int, rows: np.ndarray) -> list[torch.Tensor]:
    """What DDP's mean over workers and Lightning's over passes leave in `grad`."""
    total: list[torch.Tensor] = []
    for rank in range(world_size):
        tuned = module(Recipe(training=NO_AUGMENT), world_size, passes)
        for part, weights in Share(rank=rank, world_size=world_size, passes=passes).parts(rows):
            (tuned.training_step(batch_of(part, weights), 0) / passes / world_size).backward()
        own = [p.grad if p.grad is not None else torch.zeros_like(p) for p in tuned.acoustic.parameters()]
        total = [a + b for a, b in zip(total, own, strict=True)] if total else own
    return total


@pytest.mark.parametrize(("world_size", "passes", "num_clips"), [(2, 1, 8), (3, 1, 8), (2, 2, 8), (4, 1, 3)])
def test_gradient_of_a_global_batch_does_not_depend_on_the_workers(world_size: int, passes: int,
                                                                   num_clips: int) -> None:
    rows = np.arange(num_clips)
    for shared, alone in zip(gradients(world_size, passes, rows), gradients(1, 1, rows), strict=True):
        torch.testing.assert_close(shared, alone, rtol=1e-3, atol=1e-5 + 1e-3 * float(alone.abs().max()))


def test_frozen_encoder_gets_no_gradient_and_the_decoder_does() -> None:
    recipe = Recipe(transfer=TransferRecipe(frozen_epochs=1), training=NO_AUGMENT)
    tuned = module(recipe)
    assert tuned.is_encoder_frozen
    tuned.training_step(batch_of(np.arange(4), np.full(4, 0.25, dtype=np.float32)), 0).backward()
    assert all(p.grad is None for p in tuned.acoustic.encoder.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in tuned.acoustic.decoder.parameters())


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_fused_step_of_clipped_gradients_is_that_of_the_plain_one(precision: Any) -> None:
    tuned, rows = module(Recipe(training=replace(NO_AUGMENT, gradient_clip=0.01))), np.arange(4)
    batch = batch_of(rows, np.full(4, 0.25, dtype=np.float32))
    by_hand = deepcopy(tuned)
    trainer = pl.Trainer(max_steps=3, precision=precision, gradient_clip_val=0.01, accelerator="cpu", logger=False,
                         enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    trainer.fit(tuned, DataLoader([batch] * 3, batch_size=None))
    assert all(group["fused"] for group in trainer.optimizers[0].param_groups)
    configured: Any = by_hand.configure_optimizers()
    for group in configured["optimizer"].param_groups:
        group.update(fused=None, foreach=False)
    for _ in range(3):
        by_hand.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            by_hand.training_step(batch, 0).backward()
        norm = nn.utils.clip_grad_norm_(list(by_hand.acoustic.parameters()), 0.01)
        configured["optimizer"].step()
        configured["lr_scheduler"]["scheduler"].step()
        assert norm > 0.01, "nothing is clipped"
    for p, q in zip(tuned.acoustic.parameters(), by_hand.acoustic.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


def test_loss_that_is_not_finite_ends_the_trial_with_its_reason() -> None:
    tuned = module(Recipe(training=NO_AUGMENT))
    batch = batch_of(np.arange(4), np.full(4, 0.25, dtype=np.float32))
    tuned.training_step(batch, 0)
    tuned.on_train_batch_end()
    tuned.training_step(replace(batch, features=batch.features * float("nan")), 0)
    with pytest.raises(TrainingFailed, match="nan.*Lower the learning rate"):
        tuned.on_train_batch_end()


def test_worker_fails_with_the_one_whose_loss_is_not_finite() -> None:
    workload = Workload(total_steps=10, epoch_audio_s=10.0, world_size=2, agree=lambda flag: True)
    tuned = FineTuning(Recipe(training=NO_AUGMENT), acoustic(), CharacterVocabulary(LABELS), workload, ["ab"], seed=0)
    tuned.training_step(batch_of(np.arange(4), np.full(4, 0.25, dtype=np.float32)), 0)
    with pytest.raises(TrainingFailed, match="another worker"):
        tuned.on_train_batch_end()


def test_development_errors_are_counted_once_for_each_utterance() -> None:
    tuned = module(Recipe(training=NO_AUGMENT)).eval()
    tuned.dev_texts = ["ab", "c d"]
    tuned.on_validation_epoch_start()
    with torch.no_grad():
        for row in (1, 0):  # in any order
            tuned.validation_step(batch_of(np.array([row]), np.ones(1, dtype=np.float32)), 0)
    tuned.on_validation_epoch_end()
    assert tuned.validation is not None
    assert (tuned.validation.errors.utterances, tuned.validation.errors.words) == (2, 3)
    assert len(tuned.validation.hypotheses) == 2 and tuned.validation.loss > 0


def test_averaged_and_latest_weights_are_looked_at_each_for_themselves() -> None:
    tuned = module(Recipe(training=NO_AUGMENT)).eval()
    tuned.dev_texts = ["ab", "c d"]
    looks = []
    for _ in range(2):
        tuned.on_validation_epoch_start()
        with torch.no_grad():
            tuned.validation_step(batch_of(np.arange(2), np.ones(2, dtype=np.float32)), 0)
        tuned.on_validation_epoch_end()
        assert tuned.validation is not None and tuned.latest_validation is not None
        looks.append((tuned.validation.loss, tuned.latest_validation.loss))
        with torch.no_grad():
            tuned.acoustic.decoder.weight.mul_(3.0)
    assert looks[0][0] == looks[0][1] == looks[1][0] != looks[1][1]


def test_trial_on_a_gpu_goes_on_with_the_dropout_of_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    states: dict[str, torch.Tensor] = {"cuda:1": torch.tensor([7], dtype=torch.uint8)}
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: states[str(device)])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: states.update({str(device): state}))

    def on(device: str) -> FineTuning:
        tuned = module(Recipe(training=NO_AUGMENT))
        trainer: Any = SimpleNamespace(training=False, strategy=SimpleNamespace(root_device=torch.device(device)))
        tuned._trainer = trainer
        return tuned

    kept: dict[str, dict[str, Any]] = {device: {"global_step": 4} for device in ("cpu", "cuda:1")}
    for device, checkpoint in kept.items():
        on(device).on_save_checkpoint(checkpoint)
    on("cuda:0").on_load_checkpoint(kept["cuda:1"])
    assert states["cuda:0"].item() == 7
    states.clear()
    on("cuda:0").on_load_checkpoint(kept["cpu"])
    on("cpu").on_load_checkpoint(kept["cuda:1"])
    assert not states


def test_workers_drop_other_activations_and_the_first_those_of_one_worker_alone() -> None:
    """Of one seed: a trial of one worker keeps its digits, and two of its workers never draw one mask."""
    recipe, frames = Recipe(training=replace(NO_AUGMENT, dropout=0.5)), torch.ones(1, 64, 64)

    def masks(rank: int, world_size: int, checkpoint: dict[str, Any] | None = None) -> list[torch.Tensor]:
        tuned = module(recipe, world_size)
        tuned.workload = replace(tuned.workload, rank=rank)
        tuned._trainer = SimpleNamespace(  # type: ignore[assignment]
            global_step=0, training=False, strategy=SimpleNamespace(root_device=torch.device("cpu")))
        torch.manual_seed(3)
        if checkpoint is not None:
            tuned.on_load_checkpoint(checkpoint)
        tuned.on_train_start()
        kept: dict[str, Any] = {"global_step": 2}
        first = kernels_for(frames).drop(frames.clone(), 0.5)
        tuned.on_save_checkpoint(kept)
        states.append(kept)
        return [first, kernels_for(frames).drop(frames.clone(), 0.5)]

    states: list[dict[str, Any]] = []
    alone = masks(0, 1)
    workers = [masks(rank, 3) for rank in range(3)]
    resumed = [masks(rank, 3, states[0]) for rank in range(3)]
    assert all(torch.equal(mine, first) for mine, first in zip(workers[0], alone, strict=True))
    assert torch.equal(resumed[0][0], alone[1])
    for drawn in (workers, resumed):
        assert not any(torch.equal(drawn[a][n], drawn[b][n]) for n in range(2) for a in range(3) for b in range(a))
