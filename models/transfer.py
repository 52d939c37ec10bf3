"""The network a trial starts from: weights carried over from the source, random where there are none."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from corpora.text import fold_accents
from models.nemo import SourceModel
from models.quartznet import AcousticModel, QuartzNetConfig, named_network
from models.vocabulary import CharacterVocabulary, Vocabulary
from spaces.recipe import Recipe, unknown_choice


class TransferError(ValueError):
    """A source that does not fit the recipe."""


def start_model(recipe: Recipe, source: SourceModel | None, vocabulary: Vocabulary, seed: int,
                num_mels: int = 64) -> AcousticModel:
    """Build the network of a recipe, in float32, ready to train.

    With a source the encoder is copied; the decoder starts `fresh`, or from `letters`: the blank and each shared letter
    from their own rows, a new letter from its base letter's (á from a, ñ from n), the rest fresh. If
    `transfer.use_source` is false, all weights are random, in the source's shape if `network` is `source`, and the
    rest of the `transfer` section, BatchNorm's mode included, has no effect. Random weights are Xavier uniform, biases
    uniform in ±1/sqrt(channels), as in NeMo; all come from `seed`.

    Raises:
        TransferError: the recipe needs a source and none is given, its shapes do not fit, or `letters` is set and one
            side does not use characters.
        NetworkError: there is no network of the recipe's name.
        RecipeError: there is no branch for how the recipe's decoder starts.
    """
    if recipe.transfer.use_source and source is None:
        raise TransferError("the recipe carries weights over and no source is given. "
                            "Name one with --source, or set transfer.use_source to false.")
    model = _random_model(_network(recipe, source, num_mels), vocabulary.size + 1, seed)
    if source is not None and recipe.transfer.use_source:
        _carry_encoder(model, source, recipe.network)
        if recipe.transfer.decoder == "letters":
            _carry_letters(model, source, vocabulary)
        elif recipe.transfer.decoder != "fresh":
            raise unknown_choice("transfer.decoder", recipe.transfer.decoder, "models/transfer.py")
        model.encoder.set_batchnorm_mode(recipe.transfer.batchnorm)
    model.encoder.set_dropout(recipe.training.dropout)
    return model


def _network(recipe: Recipe, source: SourceModel | None, num_mels: int) -> QuartzNetConfig:
    if recipe.network != "source":
        return named_network(recipe.network, num_mels)
    if source is None:
        raise TransferError("network is 'source' and no source is given. Name a network, 15x5 for example.")
    if source.network.num_mels != num_mels:
        raise TransferError(f"the source takes {source.network.num_mels} mels and the features have {num_mels}; they "
                            "must match. Choose another source, or prepare the features with its front end.")
    return source.network


def _random_model(network: QuartzNetConfig, num_labels: int, seed: int) -> AcousticModel:
    with torch.random.fork_rng(devices=[]):  # the modules' own draws, made again below, leave the global state alone
        model = AcousticModel(network, num_labels)
    generator = torch.Generator().manual_seed(seed)
    # The decoder draws first, so that a fresh one is the same with any encoder.
    nn.init.xavier_uniform_(model.decoder.weight, generator=generator)
    bound = network.num_channels**-0.5
    nn.init.uniform_(model.decoder.bias, -bound, bound, generator=generator)
    for weight in model.encoder.parameters():
        if weight.ndim > 1:
            nn.init.xavier_uniform_(weight, generator=generator)
    return model


def _carry_encoder(model: AcousticModel, source: SourceModel, network_name: str) -> None:
    """Copy every weight and statistic of the encoder, whatever its stored precision."""
    prefix = "encoder."
    given = {name.removeprefix(prefix): tensor for name, tensor in source.state.items() if name.startswith(prefix)}
    wanted = model.encoder.state_dict()
    for name in sorted(wanted.keys() | given.keys()):
        if _shape(wanted, name) != _shape(given, name):
            raise TransferError(
                f"network {network_name!r} does not fit the source: {name} is {_shape(given, name)} in the source and "
                f"{_shape(wanted, name)} in the network. Set network to source, or transfer.use_source to false.")
    model.encoder.load_state_dict(given)


def _shape(state: Mapping[str, Tensor], name: str) -> str:
    return " x ".join(map(str, state[name].shape)) or "a number" if name in state else "absent"


@torch.no_grad()
def _carry_letters(model: AcousticModel, source: SourceModel, vocabulary: Vocabulary) -> None:
    """Copy the decoder's rows of the blank, of shared letters and of the base letters of new ones."""
    for name, side in (("recipe", vocabulary), ("source", source.vocabulary)):
        if not isinstance(side, CharacterVocabulary):
            raise TransferError(f"transfer.decoder is letters and the {name}'s vocabulary is {side.kind}; rows are "
                                "carried over between characters only. Set transfer.decoder to fresh.")
    source_rows = {letter: row for row, letter in enumerate(source.vocabulary.labels)}
    rows = {vocabulary.blank: source.vocabulary.blank}
    for row, letter in enumerate(vocabulary.labels):
        shared = letter if letter in source_rows else fold_accents(letter)
        if shared in source_rows:
            rows[row] = source_rows[shared]
    for parameter, name in ((model.decoder.weight, "decoder.weight"), (model.decoder.bias, "decoder.bias")):
        parameter[list(rows)] = source.state[name][list(rows.values())].to(parameter)
