"""Read and check single fields of a configuration."""

import math
import re
from pathlib import Path
from typing import Any

from corpora.languages import Language, LanguageError, language


class ConfigError(ValueError):
    """A field of the study's configuration outside its limits, or two that contradict each other."""


def check_at_least(config: Any, limit: int, *names: str) -> None:
    """Refuse a number that is below a limit or not finite; None is accepted.

    Raises:
        ConfigError: it is below the limit, or not finite.
    """
    for name in names:
        value = getattr(config, name)
        if value is not None and not limit <= value < math.inf:
            raise ConfigError(f"{name} is {value}; it must be at least {limit}.")


def known_or_read(name: str | Language) -> str | Language:
    """A known language's code unchanged; for a path, the content of its file, which workers may not be able to read."""
    if isinstance(name, Language):
        return name
    try:
        found = language(name)
    except LanguageError as error:
        raise ConfigError(str(error)) from None
    return found.code if found.code == name else found


def seconds(name: str, text: str) -> float:
    """Convert a time such as 90s, 45m or 8h to seconds.

    Raises:
        ConfigError: the text is not a time above 0.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", text.strip())
    found = float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if not 0 < found < math.inf:
        raise ConfigError(f"{name} is {text!r}; it must be a time above 0 such as 90s, 45m or 8h.")
    return found


def named_sources(source: str | tuple[str, ...] | None) -> dict[str, str]:
    """Pretrained models by their names in recipes: a file's own name, or "" for one alone. Empty for `none`.

    Raises:
        ConfigError: two have one name, or one of several is `none`.
    """
    given = (source,) if isinstance(source, str) else source or ()
    if given in ((), ("none",)):
        return {}
    if len(given) == 1:
        return {"": given[0]}
    named = {Path(one).name.removesuffix(".nemo"): one for one in given}
    if "none" in named:
        raise ConfigError("source names none beside others; the ablation trains from random weights anyway. Leave "
                          "none out, or give it alone.")
    if len(named) < len(given):
        raise ConfigError(f"source names {' '.join(given)}, and recipes call a source by its file's name, which two of "
                          "these share. Rename one, or link to it by another name.")
    return named
