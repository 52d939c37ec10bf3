"""Read YAML files that hold one mapping, raising the caller's error with what is wrong and where."""

from pathlib import Path
from typing import Any

import yaml


def load_yaml(path: str | Path, what: str, error: type[Exception]) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        error: no such file, not YAML, or not a mapping.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise error(f"{path}: there is no such {what}. Check the path.") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as reason:
        mark = getattr(reason, "problem_mark", None)
        why = f"line {mark.line + 1}: {getattr(reason, 'problem', '')}" if mark else str(reason).splitlines()[0]
        raise error(f"{path}: not a readable YAML {what} ({why}).") from reason
    if not isinstance(values, dict):
        found = "empty" if values is None else type(values).__name__
        raise error(f"{path}: a {what} is a YAML mapping; this is {found}.")
    return values
