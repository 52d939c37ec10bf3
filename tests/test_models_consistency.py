"""Two views of a clip: their loss is the paper's, whatever the workers, and each learns from the other as it stands."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_models_finetuning import acoustic, batch_of
from torch import Tensor, nn

from corpora.batches import Share
from models.augment import SpecAugment
from models.consistency import consistency_loss, consistency_weight, two_views
from models.finetuning import FineTuning, Workload
from models.quartznet import ctc_loss
from models.vocabulary import CharacterVocabulary
from spaces.recipe import Recipe, SpecAugmentKind, TrainingRecipe

pytestmark = [pytest.mark.timeout(60), pytest.mark.filterwarnings("ignore:You are trying to `self.log")]

LABELS = tuple(" abcdefghij")
RECIPE = Recipe(training=TrainingRecipe(consistency=0.2))
LENGTHS = torch.tensor([5, 3, 5, 3])


class Muffled(nn.Module):
    """Takes the lowest mels from every second view, so that a clip's views differ the same in any batch."""

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        first, second = features.chunk(2)
        return torch.cat((first, second.index_fill(1, torch.arange(20), 0.0)))


def module(world_size: int = 1, passes: int = 1) -> FineTuning:
    workload = Workload(total_steps=10, epoch_audio_s=10.0, world_size=world_size, passes=passes)
    tuned = FineTuning(RECIPE, acoustic(), CharacterVocabulary(LABELS), workload, ["ab", "c"], seed=0)
    with torch.no_grad():
        tuned.acoustic.decoder.weight.mul_(300)  # or fresh weights hear next to nothing
    tuned.augment = Muffled()  # type: ignore[assignment]
    return tuned


def outputs() -> Tensor:
    return torch.randn(4, 5, 7, generator=torch.Generator().manual_seed(0)).double().requires_grad_()


def test_difference_of_two_views_is_the_papers() -> None:
    probabilities = outputs().detach().softmax(-1).numpy()
    by_hand = []
    for clip in range(2):
        total = 0.0
        for frame in range(int(LENGTHS[clip])):
            a, b = probabilities[clip, frame], probabilities[clip + 2, frame]
            total += 0.5 * sum(b[k] * math.log(b[k] / a[k]) + a[k] * math.log(a[k] / b[k]) for k in range(7))
        by_hand.append(total)
    assert consistency_loss(outputs().log_softmax(-1), LENGTHS).tolist() == pytest.approx(by_hand)


def test_each_view_learns_from_the_other_as_a_constant() -> None:
    """So the gradient of an output is that of a cross-entropy, and none comes from the frames of the padding."""
    logits = outputs()
    consistency_loss(logits.log_softmax(-1), LENGTHS).sum().backward()
    heard = logits.detach().softmax(-1)
    expected = 0.5 * (heard - heard.roll(2, 0))
    for clip, length in enumerate(LENGTHS.tolist()):
        expected[clip, length:] = 0
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, expected)


def test_equal_views_have_no_difference() -> None:
    half = outputs().detach()[:2].log_softmax(-1)
    assert consistency_loss(torch.cat((half, half)), LENGTHS).abs().max() < 1e-12


def test_weight_rises_in_the_first_tenth_of_all_steps() -> None:
    weights = [consistency_weight(0.2, step, 100) for step in (0, 5, 10, 99)]
    assert weights == pytest.approx([0.0, 0.1, 0.2, 0.2])
    assert consistency_weight(0.2, 1, 1) == consistency_weight(0.2, 3, 0) == 0.2


@pytest.mark.parametrize("kind", ["cutout", "time_frequency"])
def test_views_are_masked_each_for_itself_and_in_more_of_the_time(kind: SpecAugmentKind) -> None:
    frames, batch = 800, batch_of(np.arange(4), np.full(4, 0.25, dtype=np.float32))
    batch = replace(batch, features=torch.ones(4, 64, frames), feature_lengths=torch.full((4,), frames))
    views, once = two_views(batch), SpecAugment(kind, 1.0, 0)
    twice = SpecAugment(kind, 1.0, 0, for_views=True)
    lost = {name: 0.0 for name in ("once", "twice")}
    for _ in range(30):
        masked = twice(views.features, views.feature_lengths)
        first, second = masked.chunk(2)
        assert not any(torch.equal(a, b) for a, b in zip(first, second, strict=True))
        silent = (masked == 0).all(1).float().mean(1)
        assert silent.max() <= 0.5
        lost["twice"] += float(silent.mean()) / 30
        lost["once"] += float((once(batch.features, batch.feature_lengths) == 0).all(1).float().mean()) / 30
    assert 0.2 < lost["twice"] < 0.3  # five bands of 40 frames on average, overlaps aside
    assert lost["twice"] > 1.8 * lost["once"]


def test_step_is_the_mean_ctc_of_the_views_and_their_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_of(np.arange(3), np.full(3, 1 / 3, dtype=np.float32))
    tuned = module()
    with torch.no_grad():
        views = [tuned.acoustic(features, batch.feature_lengths) for features in
                 Muffled()(torch.cat((batch.features,) * 2), batch.feature_lengths).chunk(2)]
        ctc = sum(ctc_loss(heard, lengths, batch.targets, batch.target_lengths).mean() for heard, lengths in views) / 2
        difference = consistency_loss(torch.cat([heard for heard, _ in views]), torch.cat([n for _, n in views])).mean()
    assert difference > 0.01
    for step, weight in ((0, 0.0), (5, 0.2)):
        monkeypatch.setattr(FineTuning, "global_step", step)
        assert tuned.training_step(batch, 0).item() == pytest.approx(float(ctc + weight * difference), rel=1e-5)


@pytest.mark.parametrize(("world_size", "passes", "num_clips"), [(2, 1, 8), (2, 2, 8), (4, 1, 3)])
def test_gradient_of_two_views_does_not_depend_on_the_workers(world_size: int, passes: int, num_clips: int,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FineTuning, "global_step", 5)

    def gradients(world_size: int, passes: int) -> list[Tensor]:
        total: list[Tensor] = []
        for rank in range(world_size):
            tuned = module(world_size, passes)
            for part, weights in Share(rank=rank, world_size=world_size, passes=passes).parts(np.arange(num_clips)):
                (tuned.training_step(batch_of(part, weights), 0) / passes / world_size).backward()
            own = [p.grad if p.grad is not None else torch.zeros_like(p) for p in tuned.acoustic.parameters()]
            total = [a + b for a, b in zip(total, own, strict=True)] if total else own
        return total

    for shared, alone in zip(gradients(world_size, passes), gradients(1, 1), strict=True):
        torch.testing.assert_close(shared, alone, rtol=1e-3, atol=1e-5 + 1e-3 * float(alone.abs().max()))
