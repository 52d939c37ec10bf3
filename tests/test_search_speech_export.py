"""What a run leaves of its winner, without the run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from told_study import candidate, make_run, write_trial

from models.export import ExportError, read_description
from models.frontend import FrontendConfig
from models.quartznet import AcousticModel, BlockConfig, QuartzNetConfig
from models.recognizer import Recognizer
from models.vocabulary import CharacterVocabulary
from search.speech import export
from search.speech.task import SpeechTask
from search.training_config import TrainingConfig
from spaces.recipe import Recipe

NETWORK = QuartzNetConfig(blocks=(BlockConfig(filters=8, kernel=5, stride=2, residual=False),
                                  BlockConfig(filters=16, kernel=1, residual=False, separable=False)))
RECIPE = Recipe(study={"language": "es", "source": "en.nemo", "name": "spanish"})
FILES = ["model.nemo", "model.onnx", "model.ts", "nemo.yaml", "recipe.yaml"]


@pytest.fixture
def recognizer() -> Recognizer:
    torch.manual_seed(0)
    return Recognizer(FrontendConfig(), AcousticModel(NETWORK, 6), CharacterVocabulary(tuple(" abcñ")))


def test_all_files_of_the_winner_are_of_one_model(recognizer: Recognizer, tmp_path: Path) -> None:
    export.write_model(tmp_path, RECIPE, recognizer, precision="32-true", language="es")
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES
    assert Recipe.load(tmp_path / "recipe.yaml").study == RECIPE.study
    clip = np.random.default_rng(0).standard_normal(8_000).astype(np.float32)
    assert Recognizer.load(tmp_path / "model.nemo").transcribe([clip]) == recognizer.transcribe([clip])
    for name in ("model.onnx", "model.ts"):
        description = read_description(tmp_path / name)
        assert (description.language, description.vocabulary) == ("es", recognizer.vocabulary)
        assert description.takes_waveforms
    config = yaml.safe_load((tmp_path / "nemo.yaml").read_text(encoding="utf-8"))
    assert (config["name"], config["trainer"]["precision"]) == ("cuarzo-spanish", "32-true")


def test_model_that_cannot_be_exported_costs_nothing_else(recognizer: Recognizer, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch,
                                                          capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ExportError("model.onnx: no.")

    monkeypatch.setattr(export, "export_onnx", fail)
    export.write_model(tmp_path, RECIPE, recognizer, precision="32-true", language="es")
    assert sorted(path.name for path in tmp_path.iterdir()) == [name for name in FILES if name != "model.onnx"]
    assert "model.onnx: no. The winner's other files are complete." in capsys.readouterr().out


def test_machine_that_writes_does_not_say_in_what_numbers_was_trained(recognizer: Recognizer, tmp_path: Path,
                                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    run, room = make_run(tmp_path)
    winner = candidate(write_trial(run.trials, "0000", 0.2))
    monkeypatch.setattr(export, "load_trial", lambda *_: (recognizer.acoustic, recognizer.vocabulary))
    for name in ("export_onnx", "export_torchscript"):
        monkeypatch.setattr(export, name, lambda *_, **__: None)
    for trained, written in (("bf16-mixed", "bf16-mixed"), ("32-true", "32-true"), ("", "here")):  # old ones do not say
        winner.best_training.precision = trained
        monkeypatch.setattr(SpeechTask, "trainer_precision", lambda *_: "here")
        export.export_models(run, room.context, winner, {})
        assert yaml.safe_load((run.best / "nemo.yaml").read_text())["trainer"]["precision"] == written


@pytest.mark.parametrize("corpora", [{"corpus": ()}, {"corpus": ("es.tar.gz",)}, {"corpus": (), "train": ("a.jsonl",)}])
def test_recipe_of_the_winner_can_be_trained_again(recognizer: Recognizer, tmp_path: Path, corpora: dict[str, Any],
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    run, room = make_run(tmp_path, **corpora, source="en.nemo" if any(corpora.values()) else None)
    monkeypatch.setattr(export, "load_trial", lambda *_: (recognizer.acoustic, recognizer.vocabulary))
    for name in ("export_onnx", "export_torchscript"):
        monkeypatch.setattr(export, name, lambda *_, **__: None)
    export.export_models(run, room.context, candidate(write_trial(run.trials, "0000", 0.2)), {})
    again = TrainingConfig().study(Recipe.load(run.best / "recipe.yaml")).resolved()
    assert (again.corpora, again.source, again.objective) == (run.config.corpora, run.config.source, "wer")


def test_best_is_whole_whenever_the_process_is_killed(recognizer: Recognizer, tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    run, room = make_run(tmp_path)
    winner = candidate(write_trial(run.trials, "0000", 0.2))
    monkeypatch.setattr(export, "load_trial", lambda *_: (recognizer.acoustic, recognizer.vocabulary))
    monkeypatch.setattr(export, "write_model", lambda folder, *_, **__: (folder / "model.nemo").write_text("whole"))

    def write(card: str) -> None:
        export.export_models(run, room.context, winner, {"a.txt": card, "b.txt": card})

    def die(folder: Path, **_: object) -> None:
        """Delete one file, as far as a kill may let it come."""
        if folder.exists():
            next(folder.iterdir()).unlink()
            raise KeyboardInterrupt

    write("old")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(export.shutil, "rmtree", die)
        write("new")
    assert sorted(path.name for path in run.best.iterdir()) == ["a.txt", "b.txt", "model.nemo"]
    write("newest")
    assert (run.best / "a.txt").read_text() == "newest" and not list(run.path.glob("best.*"))
