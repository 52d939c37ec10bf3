"""JSON is whole or as it was, and a hash is that of the bytes."""

import hashlib
import json
from pathlib import Path

import pytest

from search.records.files import sha256, write_json

pytestmark = pytest.mark.timeout(30)


def test_json_keeps_letters_and_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for values in ({"texto": "año"}, ["otro"]):
        write_json(path, values)
        assert json.loads(path.read_text(encoding="utf-8")) == values
    assert "\\u" not in path.read_text(encoding="utf-8") and list(tmp_path.iterdir()) == [path]


def test_values_that_are_no_json_leave_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"epochs": 3})
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_json(path, {"epochs": {1, 2}})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_hash_is_of_all_bytes(tmp_path: Path) -> None:
    path = tmp_path / "model.nemo"
    path.write_bytes(bytes(range(256)) * 20_000)
    assert sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()
