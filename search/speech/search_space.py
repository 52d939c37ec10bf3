"""Load search spaces, modules of `spaces/`, and check them before anything is started."""

import importlib
import pkgutil
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import spaces
from models.quartznet import NetworkError, named_network
from search.config import ConfigError
from search.records.fingerprints import NO_SPACES
from search.tuning.optuna_study import draw
from spaces.did_you_mean import nearest
from spaces.recipe import Recipe, VocabularyRecipe

NUM_DRAWS = 20
"""Recipes drawn to check a space; each takes less than a millisecond."""

ASKED = {"sample": "sample(trial, *, max_epochs, has_source), which draws a Recipe",
         "baseline": "baseline(*, max_epochs, has_source), which gives hand recipes by name",
         "vocabularies": "vocabularies(), which lists every vocabulary that sample can draw"}
"""Functions that a space must have."""

EXAMPLE = "docs/tutorial.md shows a complete one"


def load_space(name: str) -> ModuleType:
    """The module of `spaces/` with this name.

    Raises:
        ConfigError: there is none, it cannot be imported, or it lacks part of a space.
    """
    importlib.invalidate_caches()
    modules = [module.name for module in pkgutil.iter_modules(spaces.__path__) if module.name not in NO_SPACES]
    if name not in modules:
        known = [module for module in modules if _is_space(module)]
        raise ConfigError(f"space is {name!r}; it must be one of {', '.join(known)}, or a module that you add to "
                          f"{spaces.__path__[0]}{nearest(name, known)}.")
    with _told(name, "cannot be imported"):
        module = importlib.import_module(f"spaces.{name}")
    if lacks := [what for function, what in ASKED.items() if not callable(getattr(module, function, None))]:
        raise _refused(name, f"lacks {'; '.join(lacks)}")
    network = getattr(module, "SOURCE_NETWORK", None)
    try:
        named_network(str(network))
    except NetworkError as error:
        why = "lacks SOURCE_NETWORK, the name of what is trained without a source" if network is None else (
            f"has SOURCE_NETWORK = {network!r}, and {error}")
        raise _refused(name, why) from None
    return module


def check_space(space: ModuleType, max_epochs: int, has_source: bool) -> None:
    """Draw the hand recipes of a space and some others, as a study will.

    Raises:
        ConfigError: one cannot be drawn, or is invalid.
    """
    name = space.__name__.rpartition(".")[2]
    with _told(name, "vocabularies() failed"):
        vocabularies = list(space.vocabularies())
    if wrong := [kind for kind in vocabularies if not isinstance(kind, VocabularyRecipe)]:
        raise _refused(name, f"vocabularies() gives {wrong[0]!r}; each must be a VocabularyRecipe")
    with _told(name, "baseline() failed"):
        hand = dict(space.baseline(max_epochs=max_epochs, has_source=has_source))
    for seed, (title, given) in enumerate([*hand.items(), *((None, {}) for _ in range(NUM_DRAWS))]):
        what = f"sample() of the hand recipe {title!r}" if title else "sample()"
        with _told(name, f"{what} failed"), warnings.catch_warnings():
            warnings.filterwarnings("error", "Fixed parameter")  # Optuna's warning about a value out of range
            recipe, drawn = draw(space, max_epochs, has_source, seed, given)
        _check_drawn(name, what, recipe, vocabularies, has_source)
        _check_kept(name, str(title), given, drawn)


def _check_drawn(name: str, what: str, recipe: Any, vocabularies: list[VocabularyRecipe], has_source: bool) -> None:
    if not isinstance(recipe, Recipe):
        raise _refused(name, f"{what} gives {type(recipe).__name__}; it must be a Recipe")
    if recipe.vocabulary not in vocabularies:
        raise _refused(name, f"{what} draws the vocabulary {recipe.vocabulary.kind} of size {recipe.vocabulary.size}, "
                       "which vocabularies() does not list")
    if not has_source and (recipe.network == "source" or recipe.transfer.use_source):
        raise _refused(name, f"{what} starts from a source or has its shape where has_source is False. Where it is, "
                       "give network=SOURCE_NETWORK and transfer=spaces.spanish.scratch(), or name a --source")


def _check_kept(name: str, title: str, given: dict[str, Any], drawn: dict[str, Any]) -> None:
    """Refuse a hand recipe that could not be tried exactly as written."""
    for parameter in given:
        if parameter not in drawn:
            raise _refused(name, f"the hand recipe {title!r} sets {parameter}, which sample() does not draw there"
                           f"{nearest(parameter, drawn)}")


def _is_space(name: str) -> bool:
    try:
        module = importlib.import_module(f"spaces.{name}")
    except (Exception, SystemExit):  # the user's own code, which may raise anything
        return False
    return all(callable(getattr(module, function, None)) for function in ASKED)


@contextmanager
def _told(name: str, what: str) -> Iterator[None]:
    """Turn what the user's own code raises into one line with its location.

    Raises:
        ConfigError: it raised.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == _path(name)]
        line = getattr(error, "lineno", None) or (lines[-1] if lines else None)
        at = f" in line {line}" if line else ""
        raise _refused(name, f"{what}{at} ({type(error).__name__}: {error})") from error


def _refused(name: str, why: str) -> ConfigError:
    sys.modules.pop(f"spaces.{name}", None)  # so that it is read again after a fix in a notebook
    return ConfigError(f"{_path(name)}: the space {why.rstrip('.')}. Correct it; {EXAMPLE}.")


def _path(name: str) -> str:
    found = next(module for module in pkgutil.iter_modules(spaces.__path__) if module.name == name)
    folder = getattr(found.module_finder, "path", "spaces")
    return f"{folder}/{name}" + ("/__init__.py" if found.ispkg else ".py")
