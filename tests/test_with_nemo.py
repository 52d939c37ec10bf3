"""Cuarzo beside NeMo itself; runs where `nemo_toolkit[asr]` is installed, which is in an environment of its own."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.nemo import read_nemo
from models.optimizers import build_optimizer
from models.quartznet import AcousticModel, ctc_loss
from spaces.recipe import OptimizerRecipe

novograd = pytest.importorskip("nemo.core.optim.novograd", reason="NeMo is not installed: this check did not run")


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
