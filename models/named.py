"""Find a model file by its path, by the folder of a run, or by a model's name."""

import os
from pathlib import Path

from models.nemo import NemoFileError


def model_file(name: str | os.PathLike[str]) -> Path:
    """The file at a path; for a folder, its `best/model.nemo` or `model.nemo`; for a name, the download in the cache.

    Raises:
        NemoFileError: the folder holds no model, or there is no file and no downloaded model of this name.
    """
    path = Path(name)
    if path.is_dir():
        inside = [path / "best" / "model.nemo", path / "model.nemo"]
        found = next((file for file in inside if file.is_file()), None)
        if found is None:
            raise NemoFileError(f"{path}: is a folder without best/model.nemo, which a finished run has. Name a "
                                ".nemo file, or pack an unpacked one: tar -cf model.nemo -C FOLDER .")
        return found
    if path.exists() or path.suffix == ".nemo" or path.name != str(name):
        return path
    folder = Path(os.environ.get("CUARZO_CACHE") or "~/.cache/cuarzo").expanduser() / "downloads" / "sources"
    downloaded = folder / f"{name}.nemo"
    if not downloaded.is_file():
        there = ", ".join(sorted(file.stem for file in folder.glob("*.nemo"))) or "none"
        raise NemoFileError(f"{name}: there is no such file, and no such model in {folder} (it holds: {there}). Name a "
                            ".nemo file; search.speech.resolve.local_path downloads a model of NVIDIA's catalog by "
                            "its name.")
    return downloaded
