"""Read YAML files that hold one mapping, raising the caller's error with what is wrong and where."""

from pathlib import Path
from typing import Any

import yaml

MAX_VALUES = 200_000
"""The number of values in a file with every alias expanded; our own files have a few dozen."""


def load_yaml(path: str | Path, what: str, error: type[Exception]) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        error: no such file, not YAML, a repeated field, more values than any such file has, or not a mapping.
    """
    try:
        loader = yaml.SafeLoader(Path(path).read_text(encoding="utf-8-sig"))
        node = loader.get_single_node()
        if node is not None:
            _check_fields(node)
            _count(node, {})
        values = None if node is None else loader.construct_document(node)
    except FileNotFoundError:
        raise error(f"{path}: there is no such {what}. Check the path.") from None
    except IsADirectoryError:
        raise error(f"{path}: is a folder, not a readable YAML {what}. Name the file.") from None
    except RecursionError as reason:
        raise error(f"{path}: not a readable YAML {what} (nested too deep).") from reason
    # PyYAML does not catch its constructors' errors: 2026-13-45 is a ValueError, !!bool x a KeyError, and so on.
    except (yaml.YAMLError, OSError, ValueError, LookupError, AttributeError, TypeError) as reason:
        mark = getattr(reason, "problem_mark", None)
        why = f"line {mark.line + 1}: {getattr(reason, 'problem', '')}" if mark else str(reason).splitlines()[0]
        raise error(f"{path}: not a readable YAML {what} ({why}).") from reason
    if not isinstance(values, dict):
        found = "empty" if values is None else type(values).__name__
        raise error(f"{path}: a {what} is a YAML mapping; this is {found}.")
    return values


def _check_fields(node: yaml.Node) -> None:
    """Refuse a field that occurs twice: YAML silently takes the last one, which may not be the one that was meant."""
    seen = set()
    for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
        if isinstance(key, yaml.ScalarNode) and key.value in seen:
            raise yaml.MarkedYAMLError(problem=f"{key.value} occurs twice", problem_mark=key.start_mark)
        seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Values below a node, counting an alias each time it occurs."""
    if id(node) not in known:
        known[id(node)] = 1  # ends the recursion of an alias inside itself
        children = node.value if isinstance(node, yaml.SequenceNode) else [
            part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else []
        known[id(node)] += sum(_count(child, known) for child in children)
    if known[id(node)] > MAX_VALUES:
        raise ValueError(f"with its aliases more than {MAX_VALUES:,} values")
    return known[id(node)]
