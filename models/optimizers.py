"""Optimizers by name, with separate learning rates for the decoder and the encoder, or each of its blocks."""

from collections.abc import Iterable, Sequence
from typing import Any

from pytorch_optimizer.optimizer.lamb import Lamb
from pytorch_optimizer.optimizer.lion import Lion
from pytorch_optimizer.optimizer.novograd import NovoGrad
from torch import Tensor
from torch.optim import AdamW, Optimizer

from spaces.recipe import OptimizerRecipe, unknown_choice

LAMB_EPS = 1e-6
"""As in LAMB's paper."""


def build_optimizer(recipe: OptimizerRecipe, encoder_blocks: Sequence[Iterable[Tensor]],
                    decoder_parameters: Iterable[Tensor], encoder_lr_ratio: float = 1.0,
                    layer_lr_decay: float = 1.0) -> Optimizer:
    """The recipe's optimizer; each group has a `name` that starts with encoder or decoder.

    The encoder is one part, or with a `layer_lr_decay` below 1 one for each of its blocks, which are given from the
    bottom to the top: the k-th below the top one learns at lr x encoder_lr_ratio x layer_lr_decay ** k.

    NovoGrad is NeMo's: it decays every parameter, inside the moment (`m = b1 m + g / |g|ema + wd p`). AdamW, Lion and
    LAMB decay only parameters of two dimensions or more, not biases and BatchNorm, so each part is two groups; like
    LAMB's reference implementation, this one also excludes biases and BatchNorm from the layer-wise scaling. AdamW and
    Lion decouple the decay from the gradient; LAMB's decay is part of the scaled update.

    Raises:
        RecipeError: there is no branch for the recipe's optimizer.
    """
    parts = _encoder_parts(encoder_blocks, recipe.lr * encoder_lr_ratio, layer_lr_decay)
    parts["decoder"] = (list(decoder_parameters), recipe.lr)
    betas = (recipe.beta1, recipe.beta2)
    if recipe.name == "novograd":
        groups = [{"name": name, "params": parameters, "lr": lr} for name, (parameters, lr) in parts.items()]
        return NovoGrad(groups, lr=recipe.lr, betas=betas, weight_decay=recipe.weight_decay)
    groups = [group for name, (parameters, lr) in parts.items() for group in _decay_groups(name, parameters, lr)]
    if recipe.name == "adamw":
        # One pass over the memory instead of a dozen: two fifths of the time of `foreach` or less on a CPU.
        return AdamW(groups, lr=recipe.lr, betas=betas, weight_decay=recipe.weight_decay, fused=True)
    if recipe.name == "lion":
        return Lion(groups, lr=recipe.lr, betas=betas, weight_decay=recipe.weight_decay)
    if recipe.name == "lamb":
        for group in groups:
            group["adam"] = "weight_decay" in group
        # Without `adam_debias` the library also divides the rate by 1 - beta1^step: ten times the configured rate at
        # the first step. The layer-wise scaling already cancels the bias of the moments.
        return Lamb(groups, lr=recipe.lr, betas=betas, weight_decay=recipe.weight_decay,
                    weight_decouple=False, eps=LAMB_EPS, adam_debias=True)
    raise unknown_choice("optimizer.name", recipe.name, "models/optimizers.py")


def _encoder_parts(blocks: Sequence[Iterable[Tensor]], lr: float,
                   layer_lr_decay: float) -> dict[str, tuple[list[Tensor], float]]:
    """Parameters and learning rate of each part of the encoder by name."""
    if layer_lr_decay == 1:  # the groups of checkpoints from before
        return {"encoder": ([parameter for block in blocks for parameter in block], lr)}
    return {f"encoder_{number}": (list(block), lr * layer_lr_decay ** (len(blocks) - 1 - number))
            for number, block in enumerate(blocks)}


def _decay_groups(name: str, parameters: list[Tensor], lr: float) -> list[dict[str, Any]]:
    """The parameters with weight decay, and those without."""
    decayed = [parameter for parameter in parameters if parameter.ndim > 1]
    spared = [parameter for parameter in parameters if parameter.ndim <= 1]
    groups: list[dict[str, Any]] = [{"name": name, "params": decayed, "lr": lr},
                                    {"name": f"{name}_undecayed", "params": spared, "lr": lr, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
