"""QuartzNet against what NeMo computed with the same weights, and the promises of its own."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.nemo import nemo_names, read_nemo
from models.quartznet import (
    AcousticModel,
    BlockConfig,
    NetworkError,
    QuartzNetConfig,
    ctc_loss,
    folded,
    named_network,
)

Reference = Mapping[str, Any]
SMALL = QuartzNetConfig(blocks=(
    BlockConfig(filters=64, kernel=11, stride=2, residual=False), BlockConfig(filters=64, repeat=2, kernel=5),
    BlockConfig(filters=64, kernel=7, dilation=2, residual=False),
    BlockConfig(filters=128, kernel=1, residual=False, separable=False)))


def _small_random(shared_data: Path) -> tuple[AcousticModel, Reference]:
    return _model(shared_data / "reference" / "quartznet5x5_small_random.nemo"), np.load(
        shared_data / "reference" / "nemo_quartznet5x5_small_random.npz")


def _english(shared_data: Path) -> tuple[AcousticModel, Reference]:
    return _model(shared_data / "quartznet15x5_en.nemo"), np.load(
        shared_data / "reference" / "nemo_quartznet15x5_en.npz")


def _model(path: Path) -> AcousticModel:
    source = read_nemo(path)
    model = AcousticModel(source.network, source.vocabulary.size + 1)
    model.load_state_dict(source.state)
    return model


def _tensors(reference: Reference, *names: str) -> list[Tensor]:
    return [torch.from_numpy(reference[name]) for name in names]


def _assert_frames_close(actual: Tensor, expected: Tensor, lengths: Tensor, tolerance: float) -> None:
    """Compare (batch, frames, labels) over the valid frames; NeMo computes on in the padding, we do not."""
    for utterance, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(actual[utterance, :length], expected[utterance, :length], rtol=0, atol=tolerance)


def _assert_training_pass_is_nemos(model: AcousticModel, loss: Tensor, expected_loss: float, norms: Mapping[str, float],
                                   tolerance: float) -> None:
    torch.testing.assert_close(loss.item(), expected_loss, rtol=1e-4, atol=0)
    torch.autograd.backward(loss)
    theirs = dict(nemo_names(model.encoder.config))
    gradients = {theirs[name]: parameter.grad for name, parameter in model.named_parameters()}
    assert gradients.keys() == norms.keys()
    for name, gradient in gradients.items():
        assert gradient is not None
        assert gradient.norm().item() == pytest.approx(norms[name], rel=tolerance), name


def _assert_statistics_are_nemos(model: AcousticModel, reference: Reference, prefix: str) -> None:
    ours = {theirs: name for name, theirs in nemo_names(model.encoder.config)}
    state = model.state_dict()
    names = [name.removeprefix(prefix) for name in reference if name.startswith(prefix) and "running" in name]
    assert names
    for name in names:
        torch.testing.assert_close(state[ours[name]], torch.from_numpy(reference[prefix + name]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prefix", ["pad0", "pad16", "legacy_pad0", "legacy_pad16"])
def test_small_network_gives_nemos_log_probabilities(shared_data: Path, prefix: str) -> None:
    model, reference = _small_random(shared_data)
    features, lengths, expected = _tensors(reference, f"{prefix}_features", f"{prefix}_feat_len", f"{prefix}_logprobs")
    with torch.inference_mode():
        log_probs, frame_lengths = model.eval()(features, lengths)
    assert frame_lengths.tolist() == reference[f"{prefix}_enc_len"].tolist()
    _assert_frames_close(log_probs, expected, frame_lengths, 5e-3)


def test_small_network_in_float64_is_nemos_to_the_last_digits(shared_data: Path) -> None:
    model, reference = _small_random(shared_data)
    features, lengths, targets, target_lengths, expected = _tensors(
        reference, "pad16_features", "pad16_feat_len", "train_targets", "train_target_len", "f64_logprobs")
    model.double().eval()
    encoded, frame_lengths = model.encoder(features.double(), lengths)
    logits = encoded.transpose(1, 2) @ model.decoder.weight.T + model.decoder.bias  # the decoder's own are float32
    _assert_frames_close(logits.log_softmax(-1).detach(), expected, frame_lengths, 1e-9)

    encoded, frame_lengths = model.train().encoder(features.double(), lengths)
    logits = encoded.transpose(1, 2) @ model.decoder.weight.T + model.decoder.bias
    loss = ctc_loss(logits.log_softmax(-1), frame_lengths, targets, target_lengths).mean()
    norms = dict(zip(reference["train_grad_names"].tolist(), reference["f64_train_grad_norms"].tolist(), strict=True))
    _assert_training_pass_is_nemos(model, loss, float(reference["f64_train_loss"]), norms, 1e-6)


def test_small_network_trains_as_nemos(shared_data: Path) -> None:
    model, reference = _small_random(shared_data)
    features, lengths, targets, target_lengths = _tensors(
        reference, "pad16_features", "pad16_feat_len", "train_targets", "train_target_len")
    log_probs, frame_lengths = model.train()(features, lengths)
    loss = ctc_loss(log_probs, frame_lengths, targets, target_lengths).mean()
    norms = dict(zip(reference["train_grad_names"].tolist(), reference["train_grad_norms"].tolist(), strict=True))
    _assert_training_pass_is_nemos(model, loss, float(reference["train_loss"]), norms, 0.01)
    _assert_statistics_are_nemos(model, reference, "after:")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("prefix", ["pad0", "pad16"])
def test_english_checkpoint_hears_real_speech_as_nemo_does(shared_data: Path, prefix: str) -> None:
    model, reference = _english(shared_data)
    features, lengths, expected = _tensors(
        reference, f"{prefix}_features", f"{prefix}_feature_lengths", f"{prefix}_log_probs")
    with torch.inference_mode():
        log_probs, frame_lengths = model.eval()(features, lengths)
    assert frame_lengths.tolist() == reference[f"{prefix}_log_prob_lengths"].tolist()
    _assert_frames_close(log_probs, expected, frame_lengths, 5e-3)
    labels = " abcdefghijklmnopqrstuvwxyz'"
    best = [frames[:length].argmax(-1).unique_consecutive()
            for frames, length in zip(log_probs, frame_lengths, strict=True)]
    assert ["".join(labels[i] for i in ids if i < 28) for ids in best] == reference["greedy_text"].tolist()


@pytest.mark.timeout(120)
def test_english_checkpoint_trains_as_nemos(shared_data: Path) -> None:
    model, reference = _english(shared_data)
    features, lengths, targets, target_lengths, expected = _tensors(
        reference, "pad16_features", "pad16_feature_lengths", "train_targets", "train_target_lengths",
        "train_log_probs")
    log_probs, frame_lengths = model.train()(features, lengths)
    _assert_frames_close(log_probs.detach(), expected, frame_lengths, 5e-3)
    loss = ctc_loss(log_probs, frame_lengths, targets, target_lengths).mean()
    norms = dict(zip(reference["train_gradient_names"].tolist(), reference["train_gradient_norms"].tolist(),
                     strict=True))
    _assert_training_pass_is_nemos(model, loss, float(reference["train_loss"]), norms, 0.01)
    _assert_statistics_are_nemos(model, reference, "after_step/")


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("precision", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 5e-2)])
def test_a_clip_alone_is_heard_as_in_a_batch(precision: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    model = AcousticModel(SMALL, 29).eval()
    features, lengths = torch.randn(3, 64, 200), torch.tensor([200, 77, 1])
    with torch.inference_mode(), torch.autocast("cpu", precision, enabled=precision != torch.float32):
        batched, frame_lengths = model(features, lengths)
        for utterance, length in enumerate(lengths.tolist()):
            alone, _ = model(features[utterance:utterance + 1, :, :length], lengths[utterance:utterance + 1])
            _assert_frames_close(batched[utterance:utterance + 1], alone, frame_lengths[utterance:utterance + 1],
                                 tolerance)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("precision", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 5e-2)])
def test_folded_network_is_the_same_network(precision: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    model = AcousticModel(SMALL, 29)
    features, lengths = torch.randn(3, 64, 200), torch.tensor([200, 77, 1])
    model.train()(features, lengths)  # moves BatchNorm's statistics
    quick = folded(model, precision)
    with torch.inference_mode():
        (expected, frame_lengths), (actual, quick_lengths) = model.eval()(features, lengths), quick(features, lengths)
    assert torch.equal(frame_lengths, quick_lengths)
    _assert_frames_close(actual, expected, frame_lengths, tolerance)
    assert {tensor.dtype for name, tensor in quick.state_dict().items() if "pointwise" in name} == {precision}
    assert not any("norm" in name for name in quick.state_dict()) and any("norm" in name for name in model.state_dict())


@pytest.mark.timeout(60)
def test_bfloat16_gradients_point_where_float32s_do() -> None:
    torch.manual_seed(0)
    model = AcousticModel(SMALL, 29)
    features, lengths = torch.randn(4, 64, 160), torch.tensor([160, 150, 140, 90])
    targets, target_lengths = torch.randint(0, 28, (4, 12)), torch.full((4,), 12)
    gradients = []
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            log_probs, frame_lengths = model(features, lengths)
        torch.autograd.backward(ctc_loss(log_probs, frame_lengths, targets, target_lengths).mean())
        gradients.append([parameter.grad for parameter in model.parameters()])
    for exact, rounded in zip(*gradients, strict=True):
        assert exact is not None and rounded is not None and rounded.dtype == torch.float32
        assert torch.cosine_similarity(exact.flatten(), rounded.flatten(), dim=0) > 0.97


def test_kept_batchnorm_trains_weights_and_leaves_statistics() -> None:
    torch.manual_seed(0)
    model = AcousticModel(SMALL, 29).train()
    model.encoder.set_batchnorm_mode("keep")
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    features, lengths = torch.randn(2, 64, 60), torch.tensor([60, 31])
    log_probs, _ = model(features, lengths)
    torch.autograd.backward(log_probs.exp().square().sum())
    assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in model.parameters())
    torch.testing.assert_close(model.eval()(features, lengths)[0], log_probs)


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    model = AcousticModel(SMALL, 29)
    features, lengths = torch.randn(2, 64, 60), torch.tensor([60, 31])
    plain = model.eval()(features, lengths)[0]
    model.encoder.set_dropout(0.5)
    torch.testing.assert_close(model(features, lengths)[0], plain)
    model.train().encoder.set_batchnorm_mode("keep")
    assert not torch.allclose(model(features, lengths)[0], plain, atol=1e-3)


def test_infeasible_utterance_has_no_loss_and_no_gradient() -> None:
    log_probs = torch.randn(2, 5, 4, requires_grad=True)
    losses = ctc_loss(log_probs.log_softmax(-1), torch.tensor([5, 2]), torch.tensor([[0, 1, 2], [0, 0, 1]]),
                      torch.tensor([3, 3]))
    torch.autograd.backward(losses.sum())
    assert losses[0] > 0 and losses[1] == 0
    assert log_probs.grad is not None and log_probs.grad[1].abs().max() == 0


@pytest.mark.parametrize(("name", "millions"), [("15x5", 18.9), ("10x5", 12.8), ("5x5", 6.7)])
def test_published_networks_have_the_published_size(name: str, millions: float) -> None:
    with torch.device("meta"):
        model = AcousticModel(named_network(name), 29)
    assert model.num_parameters / 1e6 == pytest.approx(millions, abs=0.06)


@pytest.mark.parametrize(("change", "message"), [
    ({"kernel": 10}, "kernel of a block is 10; it must be odd"), ({"filters": 0}, "filters of a block is 0"),
    ({"stride": 2}, "stride of a block is 2"), ({"separable": False}, "kernel of a block that is not separable is 5"),
    ({"dropout": 1.0}, "dropout of a block is 1.0")])
def test_bad_block_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        replace(BlockConfig(filters=8, kernel=5), **change)


def test_unknown_names_give_the_known_ones() -> None:
    with pytest.raises(NetworkError, match="20x5.*15x5, 10x5, 5x5, narrow"):
        named_network("20x5")
