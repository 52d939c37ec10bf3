"""NeMo's YAML of a recipe: its names, its values, and what it cannot say."""

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from models.frontend import FrontendConfig
from models.nemo_recipe import TOKENIZER_FOLDER, nemo_recipe, write_nemo_recipe
from models.quartznet import named_network
from models.vocabulary import CharacterVocabulary, Vocabulary, train_vocabulary
from spaces.recipe import (
    OptimizerName,
    OptimizerRecipe,
    Recipe,
    ScheduleName,
    ScheduleRecipe,
    TrainingRecipe,
    TransferRecipe,
    VocabularyRecipe,
)

LETTERS = CharacterVocabulary(tuple(" abcñ"))
NETWORK = named_network("5x5")
STUDY = {"name": "spanish", "source": "en.nemo", "language": "es"}


def _config(recipe: Recipe, vocabulary: Vocabulary = LETTERS) -> dict[str, Any]:
    return nemo_recipe(recipe, FrontendConfig(), NETWORK, vocabulary, precision="bf16-mixed")


def _head(tmp_path: Path, recipe: Recipe, vocabulary: Vocabulary = LETTERS,
          frontend: FrontendConfig | None = None) -> str:
    path = tmp_path / "nemo.yaml"
    write_nemo_recipe(path, recipe, frontend or FrontendConfig(), NETWORK, vocabulary, precision="32-true")
    return "".join(line for line in path.read_text(encoding="utf-8").splitlines(True) if line.startswith("#"))


def test_characters_recipe_in_nemos_names(tmp_path: Path) -> None:
    recipe = Recipe(study=STUDY, optimizer=OptimizerRecipe(name="novograd", lr=0.002, beta1=0.95, beta2=0.25),
                    schedule=ScheduleRecipe(name="cosine", warmup_share=0.12, floor_ratio=0.01),
                    transfer=TransferRecipe(encoder_lr_ratio=0.1),
                    training=TrainingRecipe(epochs=7, dropout=0.1, gradient_clip=1.0, spec_augment_strength=0.5))
    head = _head(tmp_path, recipe)
    assert "NeMo's starts from random weights" in head and "the seconds of training speech x 7 / 160" in head
    config = yaml.safe_load((tmp_path / "nemo.yaml").read_text(encoding="utf-8"))
    model = config["model"]
    assert model["optim"] == {
        "name": "novograd", "lr": 0.002, "betas": [0.95, 0.25], "weight_decay": 1e-3,
        "sched": {"name": "CosineAnnealing", "warmup_ratio": 0.12, "min_lr": pytest.approx(2e-5)}}
    assert model["optim_param_groups"] == {"encoder": {"lr": pytest.approx(2e-4)}}
    assert config["init_from_nemo_model"] == {"source": {"path": "en.nemo", "include": ["encoder"]}}
    assert model["spec_augment"] == {"_target_": "nemo.collections.asr.modules.SpectrogramAugmentation",
                                     "rect_masks": 5, "rect_freq": 25, "rect_time": 60}
    assert (model["labels"], model["decoder"]["vocabulary"]) == (list(" abcñ"), "${model.labels}")
    assert len(model["encoder"]["jasper"]) == 8 and {row["dropout"] for row in model["encoder"]["jasper"]} == {0.1}
    assert (model["encoder"]["jasper"][0]["filters"], model["preprocessor"]["features"]) == (256, 64)
    assert model["train_ds"]["batch_duration"] == recipe.training.audio_s_per_step
    trainer = config["trainer"]
    assert (trainer["max_epochs"], trainer["precision"], trainer["gradient_clip_val"]) == (7, "32-true", 1.0)
    assert trainer["max_steps"] == model["train_ds"]["manifest_filepath"] == "???"
    assert [path.name for path in tmp_path.iterdir()] == ["nemo.yaml"]


def test_pieces_bring_their_tokenizer(tmp_path: Path) -> None:
    texts = [f"{a} {b}" for a in ("enciende", "apaga", "sube", "baja") for b in ("la luz", "el ventilador")]
    vocabulary = train_vocabulary(VocabularyRecipe(kind="bpe", size=34), texts, " abcdefghijklmnopqrstuvwxyz")
    recipe = Recipe(vocabulary=VocabularyRecipe(kind="bpe", size=34), transfer=TransferRecipe(decoder="fresh"))
    assert "speech_to_text_ctc_bpe.py" in _head(tmp_path, recipe, vocabulary)
    model = yaml.safe_load((tmp_path / "nemo.yaml").read_text(encoding="utf-8"))["model"]
    assert model["tokenizer"] == {"dir": TOKENIZER_FOLDER, "type": "bpe"}
    assert (model["decoder"]["num_classes"], model["decoder"]["vocabulary"]) == (-1, [])
    assert "labels" not in model and "labels" not in model["train_ds"]
    folder = tmp_path / TOKENIZER_FOLDER
    assert sorted(path.name for path in folder.iterdir()) == ["tokenizer.model", "tokenizer.vocab", "vocab.txt"]
    assert len((folder / "vocab.txt").read_text(encoding="utf-8").splitlines()) == vocabulary.size


@pytest.mark.parametrize(("schedule", "expected"), [
    (ScheduleRecipe(name="polynomial", power=3), {"name": "PolynomialDecayAnnealing", "power": 3}),
    (ScheduleRecipe(name="warmup_hold_decay", hold_share=0.4, power=1),
     {"name": "PolynomialHoldDecayAnnealing", "power": 1, "hold_ratio": 0.4}),
    (ScheduleRecipe(name="noam"), {"name": "InverseSquareRootAnnealing"}),
    (ScheduleRecipe(name="none"), {"name": "WarmupPolicy"}),
])
def test_schedules_have_nemos_names(schedule: ScheduleRecipe, expected: dict[str, Any]) -> None:
    sched = _config(Recipe(schedule=schedule))["model"]["optim"]["sched"]
    assert sched == {"warmup_ratio": 0.1, "min_lr": 0.0} | expected


def test_every_optimizer_and_schedule_has_a_name_in_nemo() -> None:
    for name in get_args(OptimizerName):
        optim = _config(Recipe(optimizer=OptimizerRecipe(name=name)))["model"]["optim"]
        assert name in (optim["name"] if "name" in optim else optim["_target_"].rpartition(".")[2].lower())
    for schedule in get_args(ScheduleName):
        assert _config(Recipe(schedule=ScheduleRecipe(name=schedule)))["model"]["optim"]["sched"]["name"]


def test_source_that_is_not_used_is_not_named() -> None:
    config = _config(Recipe(study=STUDY, transfer=TransferRecipe(use_source=False, encoder_lr_ratio=0.5)))
    assert "init_from_nemo_model" not in config and "optim_param_groups" not in config["model"]


def test_bands_of_time_and_frequency() -> None:
    training = TrainingRecipe(spec_augment="time_frequency")
    augment = _config(Recipe(training=training))["model"]["spec_augment"]
    assert augment.items() >= {"freq_masks": 2, "freq_width": 21, "time_masks": 2, "time_width": 100}.items()
    widest = _config(Recipe(training=replace(training, spec_augment_strength=3.0)))["model"]["spec_augment"]
    assert widest["freq_width"] == 25, "two fifths of 64 mels, as in Cuarzo's own training"
    cutout = _config(Recipe(training=TrainingRecipe(spec_augment="cutout", spec_augment_strength=3.0)))["model"]
    assert cutout["spec_augment"]["rect_freq"] == 64, "NeMo refuses rectangles that are higher than the features"
    for silent in (TrainingRecipe(spec_augment="none"), TrainingRecipe(spec_augment_strength=0.0)):
        assert "spec_augment" not in _config(Recipe(training=silent))["model"]


def test_what_nemo_cannot_do_is_said(tmp_path: Path) -> None:
    recipe = Recipe(optimizer=OptimizerRecipe(name="lion"), schedule=ScheduleRecipe(floor_ratio=0.1),
                    transfer=TransferRecipe(frozen_epochs=2, batchnorm="keep", encoder_lr_ratio=0.5, layer_lr_decay=0.9,
                                            frozen_part="encoder_but_batchnorm", source_l2=20),
                    training=TrainingRecipe(consistency=0.2, other_recordings=0.3))
    head = _head(tmp_path, recipe, CharacterVocabulary(tuple(" abc"), fold=True), FrontendConfig(padding="reflect"))
    for words in ("transfer.frozen_epochs is 2", "transfer.batchnorm is keep", "transfer.layer_lr_decay is 0.9",
                  "transfer.source_l2 is 20", "freeze_updates freezes BatchNorm too", "NeMo has no lion", "no accents",
                  "before 2.5", "do not decay", "min_lr is the decoder's", "average of the weights",
                  "training.consistency is 0.2", "training.other_recordings is 0.3"):
        assert words in head
    assert _config(recipe)["model"]["optim"]["_target_"] == "pytorch_optimizer.Lion"
    for words in ("frozen_part", "layer_lr_decay", "source_l2"):
        assert words not in _head(tmp_path, Recipe(transfer=TransferRecipe(frozen_epochs=2)))
    plain = _head(tmp_path, Recipe(
        optimizer=OptimizerRecipe(name="novograd"), transfer=TransferRecipe(use_source=False),
        training=TrainingRecipe(spec_augment="none")))
    for words in ("transfer.", "NeMo has no", "do not decay", "SpecAugment", "min_lr", "before 2.5", "accents",
                  "training.consistency", "training.other_recordings"):
        assert words not in plain
