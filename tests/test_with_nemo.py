"""Cuarzo beside NeMo itself; runs where `nemo_toolkit[asr]` is installed, which is in an environment of its own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.frontend import FrontendConfig
from models.nemo import read_nemo
from models.nemo_recipe import TOKENIZER_FOLDER, nemo_recipe, write_nemo_recipe
from models.optimizers import build_optimizer
from models.quartznet import AcousticModel, BlockConfig, QuartzNetConfig, ctc_loss
from models.recognizer import Recognizer
from models.schedules import learning_rate_factor
from models.vocabulary import CharacterVocabulary, Vocabulary, train_vocabulary
from spaces.recipe import OptimizerRecipe, Recipe, ScheduleRecipe, TrainingRecipe, TransferRecipe, VocabularyRecipe

novograd = pytest.importorskip("nemo.core.optim.novograd", reason="NeMo is not installed: this check did not run")

NETWORK = QuartzNetConfig(blocks=(
    BlockConfig(filters=16, kernel=5, stride=2, residual=False), BlockConfig(filters=16, repeat=2, kernel=3),
    BlockConfig(filters=24, kernel=1, residual=False, separable=False)))
TEXTS = [f"{a} {b} {c}" for a in ("enciende", "apaga", "sube") for b in ("la luz", "el ventilador", "la puerta")
         for c in ("ahora", "mañana", "del salón", "de la cocina")]
RECIPES = {kind: VocabularyRecipe(kind=kind, size=34 if kind in ("bpe", "unigram") else 0)  # type: ignore[arg-type]
           for kind in ("characters", "characters_folded", "bpe", "unigram")}


def _vocabulary(kind: str) -> Vocabulary:
    return train_vocabulary(RECIPES[kind], TEXTS, " abcdefghijklmnopqrstuvwxyzáéíñóúü")


def _fine_tuned(kind: str) -> Recognizer:
    """A small network after some steps on noise: its statistics and weights are not those it started with."""
    torch.manual_seed(0)
    vocabulary = _vocabulary(kind)
    acoustic = AcousticModel(NETWORK, vocabulary.size + 1)
    optimizer = torch.optim.AdamW(acoustic.parameters(), lr=1e-2)
    labels = torch.tensor([vocabulary.encode(TEXTS[0])])
    for _ in range(20):
        log_probs, lengths = acoustic(torch.randn(2, 64, 160), torch.tensor([160, 150]))
        loss = ctc_loss(log_probs, lengths, labels.expand(2, -1), torch.tensor([labels.shape[1]] * 2)).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    with torch.no_grad():
        # CTC learns the blank first; with labels that are equally likely on the whole there is text to compare.
        log_probs, _ = acoustic.eval()(torch.randn(2, 64, 160), torch.tensor([160, 160]))
        acoustic.decoder.bias -= log_probs.mean((0, 1))
        if kind in ("bpe", "unigram"):
            acoustic.decoder.bias[0] -= 50.0  # what no piece spells, which NeMo writes as a sign
    return Recognizer(FrontendConfig(), acoustic, vocabulary, "float32")


@pytest.mark.parametrize("kind", RECIPES)
def test_nemo_restores_our_file_and_hears_the_same(kind: str, tmp_path: Path) -> None:
    from nemo.collections.asr.models import ASRModel

    ours = _fine_tuned(kind)
    ours.save(tmp_path / "model.nemo")
    theirs = ASRModel.restore_from(str(tmp_path / "model.nemo"), map_location="cpu").eval()
    waveforms = 0.1 * torch.randn(2, 24_000, generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([24_000, 17_777])
    expected, expected_lengths = ours.log_probs(waveforms, lengths)
    with torch.inference_mode():
        log_probs, frame_lengths, _ = theirs(input_signal=waveforms, input_signal_length=lengths)
        heard = theirs.decoding.ctc_decoder_predictions_tensor(log_probs, decoder_lengths=frame_lengths)
    assert torch.equal(frame_lengths, expected_lengths)
    for row, length in enumerate(frame_lengths.tolist()):
        torch.testing.assert_close(log_probs[row, :length], expected[row, :length], rtol=0, atol=1e-3)
    texts = ours.transcribe([waveform[:length] for waveform, length in zip(waveforms, lengths, strict=True)])
    assert any(texts)
    assert [" ".join(hypothesis.text.split()) for hypothesis in heard] == texts


@pytest.mark.parametrize("kind", RECIPES)
def test_nemo_builds_the_model_of_our_yaml(kind: str, tmp_path: Path) -> None:
    from nemo.collections.asr import models
    from omegaconf import OmegaConf

    vocabulary = _vocabulary(kind)
    recipe = Recipe(vocabulary=RECIPES[kind], optimizer=OptimizerRecipe(name="novograd", lr=0.01, beta1=0.8, beta2=0.5),
                    transfer=TransferRecipe(decoder="fresh", encoder_lr_ratio=0.1),
                    training=TrainingRecipe(dropout=0.2))
    write_nemo_recipe(tmp_path / "nemo.yaml", recipe, FrontendConfig(), NETWORK, vocabulary, precision="32-true")
    config: Any = OmegaConf.load(tmp_path / "nemo.yaml")
    for data in ("train_ds", "validation_ds"):  # they ask for manifests
        del config.model[data]
    is_pieces = kind in ("bpe", "unigram")
    if is_pieces:
        config.model.tokenizer.dir = str(tmp_path / TOKENIZER_FOLDER)
    model = (models.EncDecCTCModelBPE if is_pieces else models.EncDecCTCModel)(cfg=config.model)
    acoustic = AcousticModel(NETWORK, vocabulary.size + 1)
    assert sum(parameter.numel() for parameter in model.parameters()) == acoustic.num_parameters
    assert list(model.decoder.vocabulary) == list(vocabulary.labels)
    assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} == {0.2}
    assert model.spec_augmentation is not None
    config.model.optim.sched.max_steps = 100
    optimizer, _ = model.setup_optimization(config.model.optim)
    assert isinstance(optimizer, novograd.Novograd)
    assert sorted(group["initial_lr"] for group in optimizer.param_groups) == pytest.approx([0.001, 0.01])


@pytest.mark.parametrize("name", ["cosine", "polynomial", "noam", "warmup_hold_decay", "none"])
def test_schedules_of_our_yaml_are_ours(name: Any) -> None:
    from nemo.core.optim.lr_scheduler import prepare_lr_scheduler

    recipe = Recipe(schedule=ScheduleRecipe(name=name, warmup_share=0.12, hold_share=0.3, floor_ratio=0.01),
                    optimizer=OptimizerRecipe(lr=0.02))
    vocabulary = CharacterVocabulary(("a",))
    config = nemo_recipe(recipe, FrontendConfig(), NETWORK, vocabulary, precision="32-true")["model"]["optim"]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=config["lr"])
    schedule = prepare_lr_scheduler(optimizer, config["sched"] | {"max_steps": 100})["scheduler"]
    for step in range(100):
        expected = 0.02 * learning_rate_factor(recipe.schedule, step, 100)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-4), step
        optimizer.step()
        schedule.step()


def test_novograd_is_nemos_over_four_steps(shared_data: Path) -> None:
    source = read_nemo(shared_data / "reference" / "quartznet5x5_small_random.nemo")
    reference = np.load(shared_data / "reference" / "nemo_quartznet5x5_small_random.npz")
    features, lengths, targets, target_lengths = (torch.from_numpy(reference[name]) for name in (
        "pad16_features", "pad16_feat_len", "train_targets", "train_target_len"))
    model = AcousticModel(source.network, source.vocabulary.size + 1)
    model.load_state_dict(source.state)
    model.train().encoder.set_dropout(0.0)
    trained = list(model.parameters())
    nemos = [torch.nn.Parameter(parameter.detach().clone()) for parameter in trained]
    recipe = OptimizerRecipe(name="novograd", lr=0.01, beta1=0.8, beta2=0.5, weight_decay=1e-3)
    ours = build_optimizer(recipe, trained[:-2], trained[-2:])
    theirs = novograd.Novograd(nemos, lr=0.01, betas=(0.8, 0.5), weight_decay=1e-3)
    for _ in range(4):  # both are given the gradients of our path
        log_probs, frame_lengths = model(features, lengths)
        ours.zero_grad()
        torch.autograd.backward(ctc_loss(log_probs, frame_lengths, targets, target_lengths).mean())
        for parameter, nemo in zip(trained, nemos, strict=True):
            assert parameter.grad is not None
            nemo.grad = parameter.grad.clone()
        ours.step()
        theirs.step()
        for parameter, nemo in zip(trained, nemos, strict=True):
            torch.testing.assert_close(parameter, nemo, rtol=1e-5, atol=1e-6)
