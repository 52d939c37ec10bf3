"""A model is found by its path, by its run's folder and by its name."""

import shutil
from pathlib import Path

import pytest

from models.named import model_file
from models.nemo import NemoFileError
from models.recognizer import Recognizer


def test_recognizer_is_loaded_by_folder_and_by_name(shared_data: Path, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUARZO_CACHE", str(tmp_path / "cache"))
    model = shared_data / "reference/quartznet5x5_small_random.nemo"
    for file in (tmp_path / "run/best/model.nemo", tmp_path / "cache/downloads/sources/stt_en_quartznet15x5.nemo"):
        file.parent.mkdir(parents=True)
        shutil.copy(model, file)
    for name in (model, str(model), tmp_path / "run", tmp_path / "run/best", "stt_en_quartznet15x5"):
        assert Recognizer.load(name).vocabulary.size == 28


def test_name_that_is_not_in_the_cache_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUARZO_CACHE", str(tmp_path))
    for there in ("none", "QuartzNet5x5LS-En"):
        said = rf"no such model in {tmp_path}.*\(it holds: {there}\).*local_path downloads"
        with pytest.raises(NemoFileError, match=said):
            Recognizer.load("stt_en_quartznet15x5")
        (tmp_path / "downloads/sources").mkdir(parents=True, exist_ok=True)
        (tmp_path / "downloads/sources/QuartzNet5x5LS-En.nemo").touch()


def test_folder_without_a_model_and_paths_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    with pytest.raises(NemoFileError, match="is a folder without best/model.nemo"):
        Recognizer.load(tmp_path)
    for path in (tmp_path / "absent", "absent.nemo"):
        assert model_file(path) == Path(path)
        with pytest.raises(NemoFileError, match="there is no such file"):
            Recognizer.load(path)
