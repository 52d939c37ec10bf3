"""Single fields of a configuration: times, and sources by their names."""

import math
from typing import Any

import pytest

from search.config import StudyConfig
from search.config_fields import ConfigError


@pytest.mark.parametrize(("budget", "seconds"), [
    (None, math.inf), ("90s", 90), ("45m", 2700), ("8h", 28_800), ("1.5 h", 5400)])
def test_budget_is_read_in_seconds(budget: str | None, seconds: float) -> None:
    assert StudyConfig(budget=budget).budget_s == seconds


def test_recipes_call_a_source_by_its_files_name() -> None:
    two = StudyConfig(corpus=("c",), source=("x/en.nemo", "y/it.nemo"))
    assert two.sources == {"en": "x/en.nemo", "it": "y/it.nemo"}
    assert [two.source_called(name) for name in ("it", "", "gone")] == ["y/it.nemo", "x/en.nemo", "x/en.nemo"]
    for one in ("en.nemo", ("en.nemo",)):
        alone = StudyConfig(corpus=("c",), source=one)
        assert (alone.sources, alone.source, alone.source_called("it")) == ({"": "en.nemo"}, "en.nemo", "en.nemo")
    none = StudyConfig(corpus=("c",), source="none")
    assert none.sources == {} and none.source_called("") == "none" and StudyConfig().source_called("") is None


@pytest.mark.parametrize(("sources", "said"), [
    (("x/en.nemo", "y/en.nemo"), "source names x/en.nemo y/en.nemo, and recipes call a source by its file's name"),
    (("en.nemo", "en.nemo"), "which two of these share"),
    (("en.nemo", "none"), "source names none beside others"),
    ((), "source is not set"), ("", "source is not set"),
    (("en.nemo", "https://a.b/?token=abcdef0123456789"), "source")])
def test_sources_that_cannot_be_told_apart_are_refused(sources: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        StudyConfig(corpus=("c",), source=sources)
    assert "\n" not in str(error.value) and "abcdef0123456789" not in str(error.value)
