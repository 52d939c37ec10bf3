"""What a study is judged by is written down at its start, and stays."""

from dataclasses import replace
from pathlib import Path

import pytest
from told_study import make_run

from corpora.reference import Reference
from models.frontend import FrontendConfig
from search.config import ConfigError
from search.inputs import clip_limits, keep_reference
from search.prepare import store_key

pytestmark = pytest.mark.timeout(60)


def test_reference_stays_once_there_are_trials(tmp_path: Path) -> None:
    run, _ = make_run(tmp_path)
    reference = Reference.load(run.reference)
    changed = replace(reference, rows=(("dev", "dev0", "otra cosa"), *reference.rows[1:]))
    keep_reference(run, changed)
    assert Reference.load(run.reference) == changed, "a study without trials begins again"
    (run.path / "study.db").touch()
    before = run.reference.read_bytes()
    with pytest.raises(ConfigError, match="reference.parquet: the texts that .* have changed since its start: 1 of 120 "
                                          "shared clips have another text. Put back"):
        keep_reference(run, reference)
    keep_reference(run, replace(changed, rows=changed.rows[::-1]))
    assert run.reference.read_bytes() == before


def test_features_are_of_the_language_with_all_that_is_in_it(tmp_path: Path) -> None:
    run, _ = make_run(tmp_path)
    limits = clip_limits(run.config, FrontendConfig())
    other = replace(limits, language=replace(limits.language, symbols=limits.language.symbols | {"%": "porcentaje"}))
    assert limits.language.code == "es" and store_key([], limits) != store_key([], other)
    assert store_key([], limits) == store_key([], replace(limits, language=replace(limits.language)))
