"""Plain values become what the type says, or an error that names the field; YAML is written whole or not at all."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from spaces.typed import build, convert, load_yaml, save_yaml

pytestmark = pytest.mark.timeout(20)


class TypedError(Exception):
    """What the caller asked to be raised."""


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 1.0
    count: int = 1


@dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    name: str = "a"
    limit: int | None = None
    size: int | Literal["auto"] = "auto"
    paths: tuple[str, ...] = ()
    is_on: bool = False
    notes: dict[str, Any] = field(default_factory=dict)


@pytest.mark.parametrize(("hint", "value", "expected"), [
    (float, 1, 1.0), (float, "1e-3", 1e-3), (int, 3, 3), (str, "x", "x"), (bool, False, False),
    (int | None, None, None), (int | None, 4, 4), (float | None, 2, 2.0), (int | Literal["auto"], "auto", "auto"),
    (int | Literal["auto"], 2, 2), (tuple[str, ...], ["a", "b"], ("a", "b")), (tuple[str, ...], "a", ("a",)),
    (Literal["a", "b"], "b", "b"), (dict[str, Any], {"k": [1]}, {"k": [1]})])
def test_value_of_the_type_is_taken(hint: Any, value: Any, expected: Any) -> None:
    converted = convert(hint, value, TypedError, "x")
    assert converted == expected and type(converted) is type(expected)


@pytest.mark.parametrize(("hint", "value"), [
    (int, True), (int, 1.5), (int, "1"), (float, True), (float, "many"), (float, None), (str, 1), (bool, 1),
    (bool, "yes"), (int | None, "1"), (int | Literal["auto"], "Auto"), (tuple[str, ...], 1), (tuple[str, ...], [1]),
    (Literal["a", "b"], "c"), (dict[str, Any], [1])])
def test_value_of_another_type_is_refused_by_name_and_value(hint: Any, value: Any) -> None:
    with pytest.raises(TypedError, match="^the_field is ") as caught:
        convert(hint, value, TypedError, "the_field")
    wrong = value[0] if isinstance(value, list) and hint == tuple[str, ...] else value
    assert repr(wrong) in str(caught.value) and "it must be" in str(caught.value)


def test_nested_values_become_the_dataclass() -> None:
    values = {"inner": {"rate": 2, "count": 5}, "paths": ["x"], "limit": 3, "is_on": True}
    assert build(Outer, values, TypedError) == Outer(inner=Inner(rate=2.0, count=5), paths=("x",), limit=3, is_on=True)
    assert build(Outer, {}, TypedError) == Outer()


@pytest.mark.parametrize(("values", "message"), [
    ({"naem": "b"}, "naem: there is no such field; the nearest is name."),
    ({"inner": {"rat": 1}}, "inner.rat: there is no such field; the nearest is inner.rate."),
    ({"inner": {"count": "x"}}, "inner.count is 'x'; it must be a whole number."),
    ({"inner": 3}, "inner is 3; it must be a mapping."),
    ([1], r"the file is [1]; it must be a mapping."),
    ({"inner": {"naem": 1}}, "inner.naem: there is no such field; the nearest is name."),
    ({"inner": {"weight": 1}}, "inner.weight: there is no such field; there are inner.rate, inner.count."),
    ({1: 2}, "1: there is no such field; there are inner, name, limit, size, paths, is_on, notes.")])
def test_what_does_not_fit_is_refused_by_its_full_name(values: Any, message: str) -> None:
    with pytest.raises(TypedError) as caught:
        build(Outer, values, TypedError)
    assert str(caught.value).startswith(message)


def test_yaml_comes_back_as_it_was_written_and_leaves_no_part(tmp_path: Path) -> None:
    values = {"z": 1, "a": [1, 2.5, None], "text": "año ñandú", "nested": {"b": True}}
    save_yaml(tmp_path / "new" / "file.yaml", values)
    assert load_yaml(tmp_path / "new" / "file.yaml", "file", TypedError) == values
    assert list(load_yaml(tmp_path / "new" / "file.yaml", "file", TypedError)) == list(values), "the order is kept"
    assert "año" in (tmp_path / "new" / "file.yaml").read_text(encoding="utf-8")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file.yaml"]


def test_failed_write_leaves_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    save_yaml(path, {"a": 1})
    with pytest.raises(Exception, match="object"):
        save_yaml(path, {"a": object()})
    assert load_yaml(path, "file", TypedError) == {"a": 1}


@pytest.mark.parametrize(("content", "message"), [
    (None, "there is no such file"), (b"\xff", "not a readable YAML file"),
    (b"a: 1\nb: {\n", "not a readable YAML file \\(line 3: "),
    (b"- a\n", "is a YAML mapping; this is list"), (b"", "is a YAML mapping; this is empty")])
def test_unreadable_yaml_is_refused_in_one_line(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "file.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TypedError, match=message) as caught:
        load_yaml(path, "file", TypedError)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypedError, match="not a readable YAML file"):
        load_yaml(tmp_path, "file", TypedError)


def test_array_in_the_place_of_a_word_is_refused() -> None:
    with pytest.raises(ValueError, match="it must be one of a, b"):
        convert(Literal["a", "b"], np.array([1, 2]), ValueError, "x")
