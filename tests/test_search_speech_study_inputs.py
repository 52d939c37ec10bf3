"""What a study and --check find before any trial: the report is written first, and what is refused is refused then."""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from told_study import make_run

from corpora.features import FeatureRow, FeatureStore, finish_store, write_shard
from corpora.manifest import CorpusError
from corpora.reference import Reference
from models.frontend import FrontendConfig
from models.quartznet import named_network
from search import cluster
from search.command_line import check
from search.config import ConfigError, StudyConfig
from search.records.run_folder import RunFolder
from search.speech import study_inputs
from search.speech.features import Inputs, store_key
from search.speech.study_inputs import clip_limits, keep_reference
from search.speech.vocabularies import VocabularyReport
from search.trials.context import TrialContext
from spaces.recipe import VocabularyRecipe

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    """A store whose test split says what train says, in place of all that takes Ray."""
    rows = [FeatureRow(id=f"0/{split}{i}", split=split, speaker=split, text=f"frase {i}", duration_s=1.0,
                       features=np.zeros((100, 64), dtype=np.float32))
            for split, count in (("train", 9), ("test", 2)) for i in range(count)]
    write_shard(tmp_path / "store", 0, rows, [])
    finish_store(tmp_path / "store", 1, {"num_clips": len(rows)})
    found = FeatureStore(tmp_path / "store")

    def vocabularies(_: FeatureStore, recipes: Sequence[VocabularyRecipe], *__: Any
                     ) -> tuple[Path, dict[VocabularyRecipe, VocabularyReport]]:
        return found.folder, {recipe: VocabularyReport(
            kind=recipe.kind, size=recipe.size, num_labels=recipe.size or 34, infeasible_share=0.0, mean_labels=7.0,
            unknown_share=0.0, error=None) for recipe in recipes}

    monkeypatch.setattr(study_inputs, "prepare_features", lambda *_: found)
    monkeypatch.setattr(study_inputs, "prepare_vocabularies", vocabularies)
    monkeypatch.setattr(study_inputs, "pack", lambda run, context, recipe: (context, 2))
    monkeypatch.setattr(study_inputs, "measure_alone", lambda context, recipe: 50.0)
    monkeypatch.setattr(ray, "put", lambda value: value)
    monkeypatch.setattr(cluster, "resources", lambda: {"CPU": 2.0, "GPU": 0.0})
    monkeypatch.setattr(cluster, "connected", contextlib.nullcontext)
    monkeypatch.setattr("search.command_line.check.open_inputs",
                        lambda config: Inputs(sources={}, corpora=[]) if config.corpus else None)
    return found


def config(tmp_path: Path, **changes: Any) -> StudyConfig:
    return StudyConfig(corpus=("es.tar.gz",), source="none", cache=str(tmp_path / "cache"), **changes).resolved()


def test_study_that_is_refused_leaves_its_report_and_nothing_to_resume(store: FeatureStore, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run", config(tmp_path))
    with pytest.raises(CorpusError, match="2 sentences and 0 speakers of test are in train too .2 of 2 clips."):
        study_inputs.prepare(run, Inputs(sources={}, corpora=[]))
    report = json.loads((run.path / "corpus_report.json").read_text())
    assert report["overlap"]["pairs"][0]["clip_ids"] == ["0/test0", "0/test1"] and not report["overlap"]["allowed"]
    assert [path.name for path in run.path.iterdir()] == ["corpus_report.json"]


def test_study_that_is_allowed_goes_on_with_a_warning(store: FeatureStore, tmp_path: Path,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    run = RunFolder(tmp_path / "run", config(tmp_path, allow_overlap=True))
    prepared = study_inputs.prepare(run, Inputs(sources={}, corpora=[]))
    assert prepared.store is store and prepared.concurrency == 2 and isinstance(prepared.context, TrialContext)
    assert capsys.readouterr().out.startswith("warning: 2 sentences and 0 speakers of test are in train too")
    report = json.loads((run.path / "corpus_report.json").read_text())
    assert report["overlap"]["allowed"]
    assert report["estimate"]["wall_s"] is None, "a study is not kept waiting for the time it will take"
    assert report["estimate"]["disk"]["features"] == sum(
        file.stat().st_size for file in store.folder.iterdir())


def test_check_prints_and_saves_the_report_and_then_refuses(store: FeatureStore, tmp_path: Path,
                                                            capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CorpusError, match="of test are in train too"):
        check.check(config(tmp_path))
    beside = store.folder / "corpus_report.json"
    said = capsys.readouterr().out
    assert said.endswith(f"saved in {beside}\n") and "wall time" in said
    assert "one trial trains on 50 s of speech a second" in said
    assert json.loads(beside.read_text())["estimate"]["speech_s_per_s"] == 50.0


def test_check_saves_where_a_study_will_be_but_not_over_one_that_is(store: FeatureStore, tmp_path: Path) -> None:
    check.check(config(tmp_path, allow_overlap=True, out=str(tmp_path / "new")))
    assert (tmp_path / "new" / "corpus_report.json").exists() and not (store.folder / "corpus_report.json").exists()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "study.db").touch()
    check.check(config(tmp_path, allow_overlap=True, out=str(tmp_path / "old")))
    assert (store.folder / "corpus_report.json").exists() and not (tmp_path / "old" / "corpus_report.json").exists()


def test_check_looks_at_a_corpus(store: FeatureStore, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="corpus is not set; --check examines a corpus"):
        check.check(StudyConfig(cache=str(tmp_path / "cache")))


def test_weights_are_those_of_the_network_with_its_decoder() -> None:
    assert study_inputs.weights_bytes(named_network("15x5"), 35) == 76_036_216
    small, large = (study_inputs.weights_bytes(named_network("15x5"), num_labels) for num_labels in (35, 1024))
    assert large - small == 4 * (1024 + 1) * (1024 - 35)


# --- the reference -----------------------------------------------------------------------------------------------


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
