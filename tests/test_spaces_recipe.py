"""A recipe says what it is, comes back from YAML and flat parameters as it was, and refuses what it cannot be."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from spaces.recipe import (
    LATER_FIELDS,
    OptimizerRecipe,
    Recipe,
    RecipeError,
    ScheduleRecipe,
    TrainingRecipe,
    TransferRecipe,
    VocabularyRecipe,
)

pytestmark = pytest.mark.timeout(20)

UNUSUAL = Recipe(
    network="10x5",
    optimizer=OptimizerRecipe(name="lamb", lr=7.3e-5, beta1=0.81, beta2=0.37, weight_decay=0.0),
    schedule=ScheduleRecipe(name="warmup_hold_decay", warmup_share=0.2, hold_share=0.4, power=1.5, floor_ratio=0.05),
    vocabulary=VocabularyRecipe(kind="unigram", size=128),
    transfer=TransferRecipe(source="it", decoder="fresh", encoder_lr_ratio=0.1, frozen_epochs=3, batchnorm="keep",
                            frozen_part="encoder_but_batchnorm", layer_lr_decay=0.9, source_l2=0.5),
    training=TrainingRecipe(epochs=7, audio_s_per_step=33.5, spec_augment="time_frequency", spec_augment_strength=0.5,
                            speed_perturbation=True, dropout=0.15, gradient_clip=1.5, consistency=0.2,
                            other_recordings=0.3, data_share=0.5),
    study={"corpus": ["cv-corpus-es.tar.gz"], "language": "es", "source": "señal.nemo"},
)


def test_every_field_comes_back_from_yaml(tmp_path: Path) -> None:
    UNUSUAL.save(tmp_path / "best" / "recipe.yaml")
    loaded = Recipe.load(tmp_path / "best" / "recipe.yaml")
    assert dataclasses.asdict(loaded) == dataclasses.asdict(UNUSUAL)
    assert loaded != Recipe()
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["recipe.yaml"], "a part was left behind"


def test_every_field_but_the_study_comes_back_from_flat_parameters() -> None:
    flat = UNUSUAL.flat()
    assert Recipe.from_flat(flat) == UNUSUAL
    sections = [f.name for f in dataclasses.fields(Recipe) if f.name not in ("network", "study")]
    fields = {f"{section}.{f.name}" for section in sections for f in dataclasses.fields(getattr(UNUSUAL, section))}
    assert set(flat) == fields | {"network"}
    assert all(isinstance(value, str | int | float | bool) for value in flat.values())


def test_where_a_recipe_came_from_does_not_make_it_another_recipe() -> None:
    assert dataclasses.replace(UNUSUAL, study={}) == UNUSUAL


def test_flat_parameters_that_are_absent_keep_their_defaults() -> None:
    assert Recipe.from_flat({"optimizer.lr": 0.5}) == Recipe(optimizer=OptimizerRecipe(lr=0.5))


def test_recipe_from_before_speed_perturbation_does_without(tmp_path: Path) -> None:
    Recipe().save(tmp_path / "recipe.yaml")
    values = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    del values["training"]["speed_perturbation"]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    assert not Recipe.load(tmp_path / "recipe.yaml").training.speed_perturbation


def test_recipe_from_before_a_later_field_does_without_and_has_the_same_key(tmp_path: Path) -> None:
    Recipe().save(tmp_path / "recipe.yaml")
    values = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    for name in LATER_FIELDS:
        section, _, field = name.partition(".")
        del values[section][field]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    assert Recipe.load(tmp_path / "recipe.yaml") == Recipe()
    flat = Recipe().flat()
    assert Recipe().identity() == {name: value for name, value in flat.items() if name not in LATER_FIELDS}
    assert UNUSUAL.identity() == UNUSUAL.flat()


BAD_FIELDS: list[tuple[Callable[[], Any], str]] = [
    (lambda: OptimizerRecipe(lr=0.0), r"optimizer\.lr is 0\.0; it must be in \(0, 1\]"),
    (lambda: OptimizerRecipe(lr=float("nan")), r"optimizer\.lr is nan"),
    (lambda: OptimizerRecipe(beta1=1.0), r"optimizer\.beta1 is 1\.0; it must be in \[0, 1\)"),
    (lambda: OptimizerRecipe(beta2=-0.1), r"optimizer\.beta2 is -0\.1"),
    (lambda: OptimizerRecipe(weight_decay=-1e-3), r"optimizer\.weight_decay is -0\.001"),
    (lambda: OptimizerRecipe(name="sgd"), r"name is 'sgd'; it must be one of novograd, adamw, lion, lamb"),  # type: ignore[arg-type]
    (lambda: ScheduleRecipe(warmup_share=1.0), r"schedule\.warmup_share is 1\.0; it must be in \[0, 1\)"),
    (lambda: ScheduleRecipe(warmup_share=0.5, hold_share=0.6), r"schedule\.hold_share is 0\.6"),
    (lambda: ScheduleRecipe(power=9.0), r"schedule\.power is 9\.0"),
    (lambda: ScheduleRecipe(floor_ratio=1.0), r"schedule\.floor_ratio is 1\.0"),
    (lambda: VocabularyRecipe(kind="bpe"), r"vocabulary\.size is 0; it must be in \[32, 8192\] for pieces"),
    (lambda: VocabularyRecipe(kind="characters", size=64), r"vocabulary\.size is 64; it must be 0 for characters"),
    (lambda: TransferRecipe(encoder_lr_ratio=0.0), r"transfer\.encoder_lr_ratio is 0\.0"),
    (lambda: TransferRecipe(frozen_epochs=-1), r"transfer\.frozen_epochs is -1"),
    (lambda: TransferRecipe(frozen_part="decoder"),  # type: ignore[arg-type]
     r"frozen_part is 'decoder'; it must be one of encoder, encoder_but_batchnorm"),
    (lambda: TransferRecipe(layer_lr_decay=0.0), r"transfer\.layer_lr_decay is 0\.0; it must be in \(0, 1\]"),
    (lambda: TransferRecipe(layer_lr_decay=2.6), r"transfer\.layer_lr_decay is 2\.6; it must be in \(0, 1\]"),
    (lambda: TransferRecipe(source_l2=-0.1), r"transfer\.source_l2 is -0\.1; it must be in \[0, 1000\]"),
    (lambda: TransferRecipe(source_l2=float("nan")), r"transfer\.source_l2 is nan"),
    (lambda: TransferRecipe(source_l2=float("inf")), r"transfer\.source_l2 is inf"),
    (lambda: TransferRecipe(source_l2=True), r"transfer\.source_l2 is True"),
    (lambda: TransferRecipe(batchnorm="freeze"), r"batchnorm is 'freeze'; it must be one of adapt, keep"),  # type: ignore[arg-type]
    (lambda: TrainingRecipe(epochs=0), r"training\.epochs is 0"),
    (lambda: TrainingRecipe(audio_s_per_step=0.5), r"training\.audio_s_per_step is 0\.5; .* seconds"),
    (lambda: TrainingRecipe(spec_augment_strength=4.0), r"training\.spec_augment_strength is 4\.0"),
    (lambda: TrainingRecipe(dropout=1.0), r"training\.dropout is 1\.0"),
    (lambda: TrainingRecipe(gradient_clip=-1.0), r"training\.gradient_clip is -1\.0; it must be at least 0"),
    (lambda: TrainingRecipe(other_recordings=1.5), r"training\.other_recordings is 1\.5; it must be in \[0, 1\]"),
    (lambda: TrainingRecipe(consistency=-0.2), r"training\.consistency is -0\.2; it must be in \[0, 10\]"),
    (lambda: TrainingRecipe(consistency=float("nan")), r"training\.consistency is nan; it must be in \[0, 10\]"),
    (lambda: TrainingRecipe(consistency=0.1, spec_augment="none"),
     r"training\.consistency is 0\.1; it must be 0 where the two views of a clip would be equal; set spec_augment"),
    (lambda: TrainingRecipe(consistency=0.3, spec_augment_strength=0.0), r"training\.consistency is 0\.3; it must be"),
    (lambda: Recipe(transfer=TransferRecipe(frozen_epochs=10)),
     r"transfer\.frozen_epochs is 10; it must be less than training\.epochs = 10"),
    (lambda: Recipe(transfer=TransferRecipe(frozen_epochs=11, frozen_part="encoder_but_batchnorm")),
     r"transfer\.frozen_epochs is 11; it must be at most training\.epochs = 10"),
]


@pytest.mark.parametrize(("make", "message"), BAD_FIELDS, ids=[message for _, message in BAD_FIELDS])
def test_value_outside_its_limits_is_refused_with_name_value_and_limit(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        make()


BAD_FILES = {
    "unknown_field": ({"optimizer": {"learning_rate": 1e-3}}, r"optimizer\.learning_rate: there is no such field"),
    "misspelt_field": ({"schedule": {"warmup_shares": 0.1}}, r"the nearest is schedule\.warmup_share\."),
    "unknown_section": ({"optimiser": {}}, r"optimiser: there is no such field; the nearest is optimizer\."),
    "wrong_type": ({"training": {"epochs": "many"}}, r"training\.epochs is 'many'; it must be a whole number"),
    "truth_for_a_number": ({"training": {"epochs": True}}, r"training\.epochs is True"),
    "number_for_a_truth": ({"training": {"speed_perturbation": 0.1}}, r"speed_perturbation is 0\.1; .* true or false"),
    "wrong_choice": ({"schedule": {"name": "cosin"}}, r"schedule\.name is 'cosin'; it must be one of cosine, "),
    "section_is_no_mapping": ({"optimizer": "adamw"}, r"optimizer is 'adamw'; it must be a mapping"),
    "outside_its_limits": ({"optimizer": {"lr": 3}}, r"optimizer\.lr is 3\.0; it must be in \(0, 1\]"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_recipe_file_is_refused_by_file_and_field(tmp_path: Path, case: str) -> None:
    values, message = BAD_FILES[case]
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({"version": 1} | values))
    with pytest.raises(RecipeError, match=re.escape(str(path)) + ".*" + message):
        Recipe.load(path)


@pytest.mark.parametrize(("content", "message"), [
    (None, "there is no such recipe"), (b"a: [1", "not a readable YAML"), (b"\xff\xfe\x00", "not a readable YAML"),
    (b"- 1\n", "this is list"), (b"", "this is empty"), (b"version: 2\n", "version is 2; .* reads version 1"),
    (b"network: 15x5\n", "version is None")])
def test_file_that_is_no_recipe_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError, match=re.escape(str(path)) + ".*" + message):
        Recipe.load(path)


def test_recipe_is_told_in_a_line() -> None:
    recipe = Recipe(network="5x5", transfer=TransferRecipe(use_source=False, decoder="fresh"))
    assert recipe.in_short() == "adamw 3.0e-04, cosine, characters, from scratch"
    recipe = Recipe(vocabulary=VocabularyRecipe(kind="bpe", size=64), transfer=TransferRecipe(frozen_epochs=2))
    assert recipe.in_short() == "adamw 3.0e-04, cosine, bpe 64, letters, BatchNorm adapt, frozen 2"
    carried = TransferRecipe(frozen_epochs=10, frozen_part="encoder_but_batchnorm", layer_lr_decay=0.9, source_l2=20)
    assert Recipe(transfer=carried).in_short().endswith(
        "BatchNorm adapt, frozen 10 but BatchNorm, layer decay 0.9, L2 from source 20")


def test_vocabulary_without_a_branch_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name is in `VocabularyKind`, and nobody has said which sizes it has."""
    monkeypatch.setattr("spaces.recipe.check_types", lambda *checked: None)
    with pytest.raises(RecipeError, match=r"^vocabulary\.kind is 'word'; it must be one that spaces/recipe\.py has a"):
        VocabularyRecipe(kind="word", size=0)  # type: ignore[arg-type]
