"""One trial's training step: the same for any number of workers, frozen where the recipe says, and stopped on NaN."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from corpora.batches import Batch, Share
from models.finetuning import FineTuning, TrainingFailed, Workload
from models.kernels import kernels_for
from models.quartznet import AcousticModel, named_network
from models.schedules import learning_rate_factor
from models.vocabulary import CharacterVocabulary
from spaces.recipe import BatchNormMode, OptimizerRecipe, Recipe, TrainingRecipe, TransferRecipe

LABELS = tuple(" abcdefghij")
NO_AUGMENT = TrainingRecipe(spec_augment="none")

pytestmark = pytest.mark.filterwarnings("ignore:You are trying to `self.log")


def acoustic(batchnorm: BatchNormMode = "keep") -> AcousticModel:
    torch.manual_seed(0)
    model = AcousticModel(named_network("narrow"), len(LABELS) + 1)
    model.encoder.set_batchnorm_mode(batchnorm)
    return model.train()


def module(recipe: Recipe, world_size: int = 1, passes: int = 1, batchnorm: BatchNormMode = "keep") -> FineTuning:
    workload = Workload(total_steps=10, epoch_audio_s=10.0, world_size=world_size, passes=passes)
    return FineTuning(recipe, acoustic(batchnorm), CharacterVocabulary(LABELS), workload, ["ab", "c"], seed=0)


FOUR = np.full(4, 0.25, dtype=np.float32)
"""Weights of a batch of four clips."""


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


@pytest.mark.parametrize("batchnorm", ["adapt", "keep"])
def test_frozen_encoder_whose_batchnorm_adapts_gets_the_gradient_of_batchnorm_alone(
        batchnorm: BatchNormMode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same size as in a free encoder; the statistics follow the batch, or are kept as the recipe says."""
    frozen = TransferRecipe(frozen_epochs=1, frozen_part="encoder_but_batchnorm", batchnorm=batchnorm)
    tuned, free = (module(Recipe(transfer=transfer, training=NO_AUGMENT), batchnorm=batchnorm)
                   for transfer in (frozen, TransferRecipe(batchnorm=batchnorm)))
    statistics = tuned.acoustic.encoder.state_dict()["blocks.0.layers.0.norm.running_mean"].clone()
    for each in (tuned, free):
        each.on_train_epoch_start()
        each.training_step(batch_of(np.arange(4), FOUR), 0).backward()
    whole = dict(free.acoustic.named_parameters())
    for name, parameter in tuned.acoustic.named_parameters():
        if name.startswith("encoder.") and ".norm." not in name:
            assert parameter.grad is None, name
        else:
            torch.testing.assert_close(parameter.grad, whole[name].grad, msg=name)
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    now = tuned.acoustic.encoder.state_dict()["blocks.0.layers.0.norm.running_mean"]
    assert torch.equal(now, statistics) == (batchnorm == "keep")
    monkeypatch.setattr(FineTuning, "current_epoch", 1)
    tuned.on_train_epoch_start()
    assert all(parameter.requires_grad for parameter in tuned.acoustic.parameters()), "free after its epochs"


def test_random_encoder_is_never_frozen_or_slowed_block_by_block() -> None:
    transfer = TransferRecipe(use_source=False, decoder="fresh", frozen_epochs=1, layer_lr_decay=0.5,
                              encoder_lr_ratio=0.5, source_l2=1.0)
    tuned = module(Recipe(transfer=transfer, training=NO_AUGMENT))
    tuned.training_step(batch_of(np.arange(4), FOUR), 0).backward()
    assert all(parameter.grad is not None for parameter in tuned.acoustic.parameters())
    assert {group["lr"] for group in groups_of(tuned)} == {tuned.recipe.optimizer.lr * learning_rate_factor(
        tuned.recipe.schedule, 0, 10)}
    assert tuned.source_l2 is None


def groups_of(tuned: FineTuning) -> list[dict[str, Any]]:
    configured: Any = tuned.configure_optimizers()
    groups: list[dict[str, Any]] = configured["optimizer"].param_groups
    return groups


def test_rates_fall_from_the_top_block_to_the_bottom() -> None:
    transfer = TransferRecipe(encoder_lr_ratio=0.5, layer_lr_decay=0.8)
    tuned = module(Recipe(optimizer=OptimizerRecipe(lr=0.01), transfer=transfer, training=NO_AUGMENT))
    rate_of = {id(p): group["initial_lr"] for group in groups_of(tuned) for p in group["params"]}
    assert len(rate_of) == len(list(tuned.acoustic.parameters()))
    blocks = list(tuned.acoustic.encoder.blocks)
    for below, block in enumerate(reversed(blocks)):
        assert all(rate_of[id(p)] == pytest.approx(0.01 * 0.5 * 0.8**below) for p in block.parameters())
    assert {rate_of[id(p)] for p in tuned.acoustic.decoder.parameters()} == {0.01}


CARRIED = Recipe(
    optimizer=OptimizerRecipe(lr=0.01), training=replace(NO_AUGMENT, epochs=4, dropout=0.1),
    transfer=TransferRecipe(encoder_lr_ratio=0.5, frozen_epochs=2, frozen_part="encoder_but_batchnorm",
                            layer_lr_decay=0.8, source_l2=20.0))


class _Saves(pl.Callback):
    """A checkpoint after each step, inside epochs too."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


def trained(recipe: Recipe, folder: Path, precision: Any, resumed: Path | None = None) -> dict[str, torch.Tensor]:
    """The state after epochs of two equal steps by Lightning."""
    tuned = module(recipe, batchnorm="adapt")
    trainer = pl.Trainer(max_epochs=recipe.training.epochs, accelerator="cpu", precision=precision, logger=False,
                         callbacks=[_Saves(folder)], enable_checkpointing=False, enable_progress_bar=False,
                         enable_model_summary=False, default_root_dir=folder)
    torch.manual_seed(1)
    batches: Any = DataLoader([batch_of(np.arange(4), FOUR)] * 2, batch_size=None)  # type: ignore[arg-type]
    trainer.fit(tuned, batches, ckpt_path=resumed, weights_only=True if resumed else None)
    return {name: tensor.clone() for name, tensor in tuned.state_dict().items()}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_what_is_carried_over_is_kept_alike_by_a_resumed_trial(tmp_path: Path, precision: str) -> None:
    """Resumed inside an epoch that is frozen, and inside one that is not; convolutions do not move while frozen."""
    whole = trained(CARRIED, tmp_path, precision)
    start = {name: tensor for name, tensor in module(CARRIED, batchnorm="adapt").state_dict().items()}
    for step, is_frozen in ((3, True), (7, False)):
        saved = tmp_path / f"{step}.ckpt"
        state = torch.load(saved, weights_only=True)["state_dict"]
        assert state.keys() == start.keys(), "no second copy of the source's weights"
        for name in (name for name in state if name.startswith("acoustic.encoder.")):
            is_fixed = is_frozen and ".norm." not in name
            assert torch.equal(state[name], start[name]) == is_fixed, name
        resumed = trained(CARRIED, tmp_path, precision, resumed=saved)
        assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_batchnorm_of_a_frozen_encoder_learns_under_ddp_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest has no gradient, which DDP must be told: first frozen, then free, as one process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        alone, parallel = (module(CARRIED, batchnorm="adapt") for _ in range(2))
        wrapped = DistributedDataParallel(_Step(parallel), find_unused_parameters=True)
        for epoch in (0, 0, 2):
            monkeypatch.setattr(FineTuning, "current_epoch", epoch)
            for tuned, step in ((alone, _Step(alone)), (parallel, wrapped)):
                tuned.on_train_epoch_start()
                tuned.zero_grad()
                torch.manual_seed(epoch)
                step(batch_of(np.arange(4), FOUR)).backward()
            for (name, a), b in zip(alone.acoustic.named_parameters(), parallel.acoustic.parameters(), strict=True):
                assert (a.grad is None) == (b.grad is None) == (
                    epoch < 2 and name.startswith("encoder.") and ".norm." not in name), name
                assert a.grad is None or (b.grad is not None and torch.equal(a.grad, b.grad)), name
    finally:
        dist.destroy_process_group()


class _Step(nn.Module):
    """What Lightning hands to DDP."""

    def __init__(self, tuned: FineTuning) -> None:
        super().__init__()
        self.tuned = tuned

    def forward(self, batch: Batch) -> torch.Tensor:
        return self.tuned.training_step(batch, 0)


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
