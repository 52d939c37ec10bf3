"""Turn plain values from a file or a command line into a checked dataclass, and write YAML."""

import os
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from numbers import Integral
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Self, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from files.atomic import write_aside
from files.mapping import load_yaml as load_yaml
from spaces.did_you_mean import nearest

T = TypeVar("T")


MAX_LISTED = 12
"""Fields that a message names one by one."""


def build(kind: type[T], values: Any, error: type[Exception], prefix: str = "", names: Sequence[str] = ()) -> T:
    """Turn nested plain values into the dataclass `kind`; `names` are all fields of the dataclass it is part of.

    Raises:
        error: an unknown field (the message names a similar known one), a missing field, or a value of the wrong type.
    """
    if not isinstance(values, dict):
        raise error(f"{prefix.rstrip('.') or 'the file'} is {values!r}; it must be a mapping.")
    hints = _hints(kind)  # type: ignore[arg-type]
    names = names or _names(kind)
    check_names(kind, values, error, prefix, names)
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        if is_dataclass(hints[name]):
            arguments[name] = build(hints[name], value, error, f"{prefix}{name}.", names)
        else:
            arguments[name] = convert(hints[name], value, error, f"{prefix}{name}")
    for f in fields(kind):  # type: ignore[arg-type]
        if f.name not in values and f.default is MISSING and f.default_factory is MISSING:
            raise error(f"{prefix}{f.name} is missing; it has no default.")
    try:
        return kind(**arguments)
    except error:
        raise
    except ValueError as reason:
        raise error(f"{prefix}{reason}") from None


def check_names(kind: type, given: Iterable[Any], error: type[Exception], prefix: str = "",
                names: Sequence[str] = ()) -> None:
    """Check that the given names are fields of a dataclass; `names` are all fields of the dataclass it is part of.

    Raises:
        error: there is no such field; the message names a similar known one.
    """
    known = [f.name for f in fields(kind)]
    if unknown := [str(name) for name in given if name not in known]:
        own = [prefix + other for other in known]
        near = nearest(unknown[0], own) or nearest(unknown[0], names or _names(kind))
        listed = f"; there are {', '.join(own)}" if len(own) <= MAX_LISTED else ""
        raise error(f"{prefix}{unknown[0]}: there is no such field{near or listed}.")


class Named:
    """Base class of configurations: in Python too, an unknown field raises our own error, which names the nearest."""

    __slots__ = ()
    error = ValueError

    def __new__(cls, *unnamed: Any, **given: Any) -> Self:
        """Refuse unknown fields and positional arguments.

        Raises:
            error: the class's own.
        """
        if unnamed:
            raise cls.error(f"{cls.__name__} was given {unnamed[0]!r} without a name; all of its fields are given by "
                            f"name, as in {cls.__name__}({fields(cls)[0].name}=...).")  # type: ignore[arg-type]
        check_names(cls, given, cls.error)
        return super().__new__(cls)


def _names(kind: type, prefix: str = "") -> list[str]:
    """All fields; those of sections with the section as prefix."""
    names = []
    for name, hint in _hints(kind).items():
        names += _names(hint, f"{prefix}{name}.") if is_dataclass(hint) else [prefix + name]  # type: ignore[arg-type]
    return names


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def check_types(made: Any, error: type[Exception], prefix: str = "") -> None:
    """Check the field types of a frozen dataclass that Python code made, widening as `convert` does.

    Raises:
        error: a value is not of its field's type.
    """
    for name, hint in _hints(type(made)).items():  # type: ignore[arg-type]
        object.__setattr__(made, name, convert(hint, getattr(made, name), error, prefix + name))


def convert(hint: Any, value: Any, error: type[Exception], name: str) -> Any:
    """Check `value` against a type, widening int to float, list to tuple, a path to text and NumPy's integers to int.

    Raises:
        error: the value is not of that type.
    """
    origin, options = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, UnionType):
        for option in options:
            if isinstance(value, dict) and is_dataclass(option):
                return build(option, value, error, f"{name}.")  # type: ignore[arg-type]
            try:
                return convert(option, value, error, name)
            except error:
                continue
    elif origin is Literal:
        if isinstance(value, Hashable) and value in options:  # an array is no word, and cannot be asked for
            return value
        raise error(f"{name} is {value!r}; it must be one of {', '.join(map(str, options))}.")
    elif origin is tuple:
        values = [value] if isinstance(value, str | os.PathLike) else value
        if isinstance(values, list | tuple):
            return tuple(convert(options[0], item, error, name) for item in values)
    elif origin is list and isinstance(value, list):
        return [convert(options[0], item, error, f"{name}[{i}]") for i, item in enumerate(value)]
    elif origin is dict and isinstance(value, dict):
        return {key: convert(options[1], item, error, f"{name}.{key}") for key, item in value.items()}
    elif hint is float:
        try:
            if not isinstance(value, bool):
                return float(value)  # YAML 1.1 reads 1e-3 as a string
        except (TypeError, ValueError):
            pass
    elif hint is type(None):
        if value is None:
            return None
    elif hint is str and isinstance(value, os.PathLike):
        return os.fspath(value)
    elif hint is int and isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    elif is_dataclass(hint) and isinstance(value, dict):
        return build(hint, value, error, f"{name}.")  # type: ignore[arg-type]
    elif isinstance(value, origin or hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise error(f"{name} is {value!r}; it must be {_in_words(hint)}.")


def _in_words(hint: Any) -> str:
    """A type in plain words."""
    origin, options = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(_in_words(option) for option in options if option is not type(None))
    if origin is Literal:
        return " or ".join(map(repr, options))
    if is_dataclass(hint):
        return "a mapping"
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false", list: "a list",
             tuple: "a list", dict: "a mapping", type(None): "nothing"}
    return words[origin or hint]


def save_yaml(path: str | Path, values: dict[str, Any]) -> None:
    """Write a mapping as YAML, aside and renamed; nothing is written if a value has no YAML form."""
    write_aside(Path(path), yaml.safe_dump(values, sort_keys=False, allow_unicode=True).encode())
