"""The configuration in a .nemo file, in any layout that NeMo's own loader accepts, converted to today's."""

import re
from typing import Any

import yaml

from models.nemo_archive import CONFIG, NemoFileError

MAX_VALUES = 200_000
"""Values in a configuration once every alias and reference is expanded; NeMo's have about 500."""
_MAX_DEPTH = 50
_REFERENCE = re.compile(r"\$\{\s*(\.*)([^${}:]+?)\s*\}")
_IN_BRACKETS = re.compile(r"\[\s*([\w-]+)\s*\]")
_HYDRA = ("_recursive_", "_convert_")
"""How Hydra passes a section on, nothing that is computed with."""
_UNFOLDS = (f"its {CONFIG} expands to more than {MAX_VALUES:,} values, or more than {_MAX_DEPTH} levels; a model's has "
            "a few hundred values.")


def load_config(content: bytes) -> dict[str, Any]:
    """Read it as NeMo does: only the model, references resolved, the `cls` and `params` of 2020 in today's layout.

    A reference to something outside the file is left as it is.

    Raises:
        NemoFileError: it is not YAML, not a mapping, or beyond the limits.
    """
    try:
        loader = _Loader(content)
        node = loader.get_single_node()
        if node is not None:
            _count(node, {}, 0)
        root = None if node is None else loader.construct_document(node)
    except RecursionError as error:
        raise NemoFileError(_UNFOLDS) from error
    # PyYAML does not catch its constructors' errors: !!bool x is a KeyError, !!timestamp x an AttributeError.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError) as error:
        if isinstance(error, NemoFileError):
            raise
        raise NemoFileError(f"its {CONFIG} is not YAML ({str(error).splitlines()[0]}).") from error
    if not isinstance(root, dict):
        raise NemoFileError(f"its {CONFIG} is not a mapping.")
    model, place = (root["model"], ("model",)) if isinstance(root.get("model"), dict) else (root, ())
    config: dict[str, Any] = _Resolver(root).resolve(model, place)
    return config


class _Loader(yaml.SafeLoader):
    """Reads 1e-5 as a number, as OmegaConf does; to YAML 1.1 it is a string."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$"),
                              list("-+0123456789"))


def is_reference(value: object) -> bool:
    """Whether the value is a reference that the file does not resolve."""
    return isinstance(value, str) and "${" in value


def _count(node: yaml.Node, known: dict[int, int], depth: int) -> int:
    """Values below a node, counting an alias each time it occurs; an alias inside itself never ends."""
    if depth > _MAX_DEPTH:
        raise NemoFileError(_UNFOLDS)
    if id(node) not in known:
        children: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            children = node.value
        elif isinstance(node, yaml.MappingNode):
            children = [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(_count(child, known, depth + 1) for child in children)
    if known[id(node)] > MAX_VALUES:
        raise NemoFileError(_UNFOLDS)
    return known[id(node)]


class _Resolver:
    """Follows OmegaConf's references inside one configuration."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._num_left = MAX_VALUES

    def resolve(self, value: Any, place: tuple[Any, ...], depth: int = 0) -> Any:
        """The value at `place`, in today's layout."""
        self._num_left -= 1
        if self._num_left < 0 or depth > _MAX_DEPTH:
            raise NemoFileError(_UNFOLDS)
        if isinstance(value, str) and (match := _REFERENCE.fullmatch(value)):
            found = self._place_of(match[1], match[2], place)
            return value if found is None else self.resolve(_at(self._root, found), found, depth + 1)
        if isinstance(value, dict):
            return _today({key: self.resolve(held, (*place, key), depth + 1) for key, held in value.items()})
        if isinstance(value, list):
            return [self.resolve(held, (*place, index), depth + 1) for index, held in enumerate(value)]
        return value

    def _place_of(self, dots: str, name: str, place: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Where a reference points: from the root, or, with leading dots, relative to itself."""
        keys = tuple(_IN_BRACKETS.sub(r".\1", name).split("."))
        if dots:
            places = [(*place[:-len(dots)], *keys)]
        else:  # a saved file holds only the model, and its references may start from the file it was part of
            places = [keys, keys[1:]] if keys[0] == "model" else [keys, ("model", *keys)]
        return next((found for found in places if found and _at(self._root, found) is not None), None)


def _at(root: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        if isinstance(root, list) and str(key).isdigit() and int(key) < len(root):
            root = root[int(key)]
        elif isinstance(root, dict) and key in root:
            root = root[key]
        else:
            return None
    return root


def _today(section: dict[Any, Any]) -> dict[Any, Any]:
    """Convert Hydra's layout before 1.0, {cls: …, params: {…}}, to the one since: {_target_: …, …}."""
    if "cls" in section and "_target_" not in section:
        section["_target_"] = section.pop("cls")
    for name in _HYDRA:
        section.pop(name, None)
    params = section.pop("params", None)
    return section | params if isinstance(params, dict) else section
