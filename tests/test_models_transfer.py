"""What a trial's network starts from."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from corpora.languages import LANGUAGES
from models.frontend import FrontendConfig
from models.nemo import SourceModel
from models.quartznet import AcousticModel, named_network
from models.transfer import TransferError, start_model
from models.vocabulary import CharacterVocabulary, train_vocabulary
from spaces.recipe import Recipe, RecipeError, TrainingRecipe, TransferRecipe, VocabularyRecipe

pytestmark = pytest.mark.timeout(60)

ENGLISH = CharacterVocabulary(tuple(LANGUAGES["en"].alphabet))
SPANISH = CharacterVocabulary(tuple(LANGUAGES["es"].alphabet))
SCRATCH = TransferRecipe(use_source=False)


def recipe(network: str = "source", **transfer: Any) -> Recipe:
    return Recipe(network=network, transfer=TransferRecipe(**transfer))


@pytest.fixture(scope="module")
def source() -> SourceModel:
    """A narrow English network whose statistics are those of no fresh one, in half precision."""
    generator = torch.Generator().manual_seed(7)
    state = AcousticModel(named_network("narrow"), ENGLISH.size + 1).state_dict()
    drawn: dict[str, Tensor] = {
        name: torch.rand(tensor.shape, generator=generator).half() if tensor.is_floating_point() else tensor
        for name, tensor in state.items()}
    return SourceModel(frontend=FrontendConfig(), network=named_network("narrow"), vocabulary=ENGLISH, state=drawn)


def test_encoder_is_the_sources_with_its_statistics(source: SourceModel) -> None:
    model = start_model(recipe(), source, SPANISH, seed=1)
    for name, tensor in model.encoder.state_dict().items():
        assert torch.equal(tensor, source.state[f"encoder.{name}"].to(tensor.dtype)), name
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_letters_start_from_their_own_or_base_letters_row(source: SourceModel) -> None:
    model = start_model(recipe(decoder="letters"), source, SPANISH, seed=1)
    for letter, base in {"a": "a", "z": "z", " ": " ", "á": "a", "é": "e", "ñ": "n", "ü": "u"}.items():
        row, source_row = SPANISH.labels.index(letter), ENGLISH.labels.index(base)
        assert torch.equal(model.decoder.weight[row], source.state["decoder.weight"][source_row].float())
        assert torch.equal(model.decoder.bias[row], source.state["decoder.bias"][source_row].float())
    assert torch.equal(model.decoder.weight[SPANISH.blank], source.state["decoder.weight"][ENGLISH.blank].float())


def test_letters_without_a_base_start_fresh(source: SourceModel) -> None:
    greek = CharacterVocabulary((" ", "a", "ω"))
    lettered = start_model(recipe(decoder="letters"), source, greek, seed=1).decoder.weight
    fresh = start_model(recipe(decoder="fresh"), source, greek, seed=1).decoder.weight
    assert torch.equal(lettered[2], fresh[2]) and not torch.equal(lettered[1], fresh[1])


def test_fresh_decoder_copies_nothing(source: SourceModel) -> None:
    weight = start_model(recipe(decoder="fresh"), source, SPANISH, seed=1).decoder.weight
    copied = source.state["decoder.weight"].float()
    assert not any(torch.equal(row, other) for row in weight for other in copied)


def test_start_of_a_decoder_without_a_branch_is_refused_by_name(source: SourceModel) -> None:
    unbuilt = recipe(decoder="fresh")
    object.__setattr__(unbuilt.transfer, "decoder", "phonemes")
    with pytest.raises(RecipeError, match=r"^transfer\.decoder is 'phonemes'; it must be one that models/transfer\.py"):
        start_model(unbuilt, source, SPANISH, seed=1)


def test_same_seed_gives_the_same_weights_and_leaves_the_global_state_alone() -> None:
    scratch = Recipe(network="narrow", transfer=SCRATCH)
    before = torch.random.get_rng_state()
    first, again, other = (start_model(scratch, None, SPANISH, seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)
    weights = [name for name in first if "norm" not in name]
    assert weights and not any(torch.equal(first[name], other[name]) for name in weights)


def test_random_weights_are_xavier_uniform() -> None:
    model = start_model(Recipe(network="narrow", transfer=SCRATCH), None, SPANISH, seed=3)
    weight = model.encoder.state_dict()["blocks.5.layers.0.pointwise"]
    bound = (6 / sum(weight.shape)) ** 0.5
    assert 0.95 * bound < weight.abs().max() <= bound
    assert weight.std() == pytest.approx(bound / 3**0.5, rel=0.05)


def test_source_is_ignored_where_the_recipe_starts_from_scratch(source: SourceModel) -> None:
    scratch = Recipe(network="narrow", transfer=TransferRecipe(use_source=False, batchnorm="keep"))
    alone, beside = start_model(scratch, None, SPANISH, 5), start_model(scratch, source, SPANISH, 5)
    assert all(torch.equal(a, b) for a, b in zip(alone.parameters(), beside.parameters(), strict=True))
    alone.train()(torch.randn(2, 64, 32), torch.tensor([32, 20]))
    assert not torch.equal(alone.state_dict()["encoder.blocks.0.layers.0.norm.running_mean"], torch.zeros(64))


@pytest.mark.parametrize("mode", ["keep", "adapt"])
def test_batchnorm_mode_decides_whether_statistics_move(source: SourceModel, mode: str) -> None:
    model = start_model(recipe(batchnorm=mode), source, SPANISH, seed=1).train()
    model(torch.randn(2, 64, 32, generator=torch.Generator().manual_seed(0)), torch.tensor([32, 20]))
    name = "encoder.blocks.0.layers.0.norm.running_mean"
    assert torch.equal(model.state_dict()[name], source.state[name].float()) == (mode == "keep")


def test_dropout_is_the_recipes(source: SourceModel) -> None:
    dropping = Recipe(transfer=TransferRecipe(batchnorm="keep"), training=TrainingRecipe(dropout=0.5))
    features, lengths = torch.randn(1, 64, 32), torch.tensor([32])
    model = start_model(dropping, source, SPANISH, seed=1).train()
    assert not torch.equal(model(features, lengths)[0], model(features, lengths)[0])
    steady = start_model(recipe(batchnorm="keep"), source, SPANISH, seed=1).train()
    assert torch.equal(steady(features, lengths)[0], steady(features, lengths)[0])


def test_source_that_does_not_fit_is_refused(source: SourceModel) -> None:
    with pytest.raises(TransferError, match=r"network '5x5' does not fit the source: blocks\.\d.* in the source and"):
        start_model(recipe(network="5x5"), source, SPANISH, seed=1)
    with pytest.raises(TransferError, match="takes 64 mels and the features have 80"):
        start_model(recipe(), source, SPANISH, seed=1, num_mels=80)
    with pytest.raises(TransferError, match="no source is given"):
        start_model(recipe(), None, SPANISH, seed=1)


def test_named_network_of_the_sources_shape_takes_its_weights(source: SourceModel) -> None:
    named, own = (start_model(recipe(network=name), source, SPANISH, seed=1) for name in ("narrow", "source"))
    assert all(torch.equal(a, b) for a, b in zip(named.parameters(), own.parameters(), strict=True))


def test_letters_need_characters_on_both_sides(source: SourceModel) -> None:
    sentence = "la casa de la abuela es bonita y grande y tiene flores en las ventanas"
    pieces = train_vocabulary(VocabularyRecipe(kind="bpe", size=32), [sentence], LANGUAGES["es"].alphabet)
    with pytest.raises(TransferError, match="the recipe's vocabulary is bpe"):
        start_model(recipe(decoder="letters"), source, pieces, seed=1)
    with pytest.raises(TransferError, match="the source's vocabulary is bpe"):
        start_model(recipe(decoder="letters"), replace(source, vocabulary=pieces), SPANISH, seed=1)
    fresh = start_model(recipe(decoder="fresh"), source, pieces, seed=1)
    assert fresh.decoder.weight.shape == (pieces.size + 1, 256)
