"""The embedded corpora: laid out as Common Voice, the same for the same seed, whole or absent."""

import csv
import importlib.util
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from corpora import grammars, synthetic
from corpora.manifest import CorpusError
from corpora.synthetic import write_synthetic

pytestmark = pytest.mark.timeout(30)

needs_espeak = pytest.mark.skipif(importlib.util.find_spec("espeakng_loader") is None, reason="no extra demo")
UTTERANCES = {"train": 70, "dev": 12, "test": 12}


@pytest.fixture(scope="module", params=["en", "es", "it"])
def release(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    language = request.param
    return write_synthetic(tmp_path_factory.mktemp("corpora"), language, UTTERANCES, seed=3), language


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


@needs_espeak
def test_release_has_the_layout_and_columns_of_common_voice(release: tuple[Path, str]) -> None:
    root = release[0] / release[1]
    assert release[0].name.startswith("cv-corpus-")
    rows = {split: _table(root / f"{split}.tsv") for split in UTTERANCES}
    assert {split: len(table) for split, table in rows.items()} == UTTERANCES
    assert ",".join(rows["train"][0]) == (
        "client_id,path,sentence_id,sentence,sentence_domain,up_votes,down_votes,age,gender,accents,variant,locale,segment"
    )
    everything = [row for table in rows.values() for row in table]
    assert _table(root / "validated.tsv") == everything
    durations = {row["clip"]: int(row["duration[ms]"]) for row in _table(root / "clip_durations.tsv")}
    assert set(durations) == {row["path"] for row in everything} == {clip.name for clip in (root / "clips").iterdir()}
    assert all(row["locale"] == release[1] and len(row["client_id"]) == 128 for row in everything)


@needs_espeak
def test_clips_are_speech_of_the_stated_length(release: tuple[Path, str]) -> None:
    root = release[0] / release[1]
    for row in _table(root / "clip_durations.tsv"):
        samples, rate_hz = soundfile.read(root / "clips" / row["clip"])
        duration_s = len(samples) / rate_hz
        assert rate_hz == 16_000 and duration_s == pytest.approx(int(row["duration[ms]"]) / 1000, abs=1e-3)
        assert 0.3 < duration_s < 5 and 0.1 < np.abs(samples).max() <= 1


@needs_espeak
def test_longer_sentences_take_longer_to_say(release: tuple[Path, str]) -> None:
    root = release[0] / release[1]
    durations = {row["clip"]: int(row["duration[ms]"]) for row in _table(root / "clip_durations.tsv")}
    table = _table(root / "validated.tsv")
    lengths = [len(row["sentence"]) for row in table]
    assert np.corrcoef(lengths, [durations[row["path"]] for row in table])[0, 1] > 0.8


@needs_espeak
def test_splits_share_neither_speakers_nor_sentences(release: tuple[Path, str]) -> None:
    root = release[0] / release[1]
    for column in ("client_id", "sentence"):
        values = [{row[column] for row in _table(root / f"{split}.tsv")} for split in UTTERANCES]
        assert len(set.union(*values)) == sum(map(len, values))
    assert len({row["client_id"] for row in _table(root / "train.tsv")}) >= 60


@needs_espeak
def test_same_seed_gives_the_same_bytes_and_another_seed_another_corpus(tmp_path: Path) -> None:
    def spoken(folder: str, seed: int) -> dict[str, bytes]:
        release = write_synthetic(tmp_path / folder, "es", {"train": 6, "dev": 3}, seed)
        return {str(path.relative_to(release)): path.read_bytes() for path in release.rglob("*.*") if path.is_file()}

    first = spoken("a", 0)
    assert len(first) == 9 + 4
    assert first == spoken("b", 0)
    assert first != spoken("b", 1)


@needs_espeak
def test_corpus_already_there_is_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = write_synthetic(tmp_path, "en", {"train": 3}, seed=0)

    def unexpected(*_: Any) -> None:
        raise AssertionError("spoke again")

    monkeypatch.setattr(synthetic, "_speak_all", unexpected)
    assert write_synthetic(tmp_path, "en", {"train": 3}, seed=0) == release
    with pytest.raises(AssertionError, match="spoke again"):
        write_synthetic(tmp_path, "en", {"train": 4}, seed=0)


@needs_espeak
def test_failure_halfway_leaves_no_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = synthetic._write_table

    def full_disk(path: Path, columns: Any, rows: Any) -> None:
        if path.name == "clip_durations.tsv":
            raise OSError(28, "No space left on device")
        whole(path, columns, rows)

    monkeypatch.setattr(synthetic, "_write_table", full_disk)
    with pytest.raises(CorpusError, match="No space left"):
        write_synthetic(tmp_path, "en", {"train": 3}, seed=0)
    assert not list(tmp_path.iterdir())


@needs_espeak
def test_failure_of_espeak_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(synthetic._VOICES, "en", ("nobody",))
    monkeypatch.setitem(synthetic._ACCENTS, "nobody", "")
    with pytest.raises(CorpusError, match=r"could not say '.+' as 'nobody\+\w+'") as caught:
        write_synthetic(tmp_path, "en", {"train": 3}, seed=0)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@needs_espeak
def test_every_voice_variant_exists() -> None:
    import espeakng_loader

    known = {path.name for path in (Path(espeakng_loader.get_data_path()) / "voices" / "!v").iterdir()}
    assert set(synthetic._VARIANTS) <= known  # eSpeak speaks an unknown one in its plain voice, and says nothing


def test_missing_espeak_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CorpusError, match=r"pip install .*\[demo\]"):
        write_synthetic(tmp_path, "en", {"train": 3}, seed=0)


@pytest.mark.parametrize(
    ("language", "utterances", "message"),
    [
        ("fr", {"train": 3}, "'fr'; the synthetic corpus is spoken in en, es, it"),
        ("es", {"training": 3}, "'training': 3; splits are train, dev, test"),
        ("es", {"dev": 0}, "'dev': 0; splits are"),
    ],
)
def test_unknown_request_is_refused(tmp_path: Path, language: Any, utterances: dict[str, int], message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        write_synthetic(tmp_path, language, utterances, seed=0)


@pytest.mark.parametrize(("language", "accented"), [("en", ""), ("es", "áéíñóúü"), ("it", "àèéìòù")])
def test_grammar_holds_thousands_of_sentences_in_the_letters_of_its_language(language: str,
                                                                                        accented: str) -> None:
    sentences = grammars.draw_sentences(grammars.GRAMMARS[language], 10_000, random.Random(0))
    assert len(set(sentences)) == 10_000
    letters = set("".join(sentences).lower()) - set(" .?¿'")
    assert letters == set("abcdefghijklmnopqrstuvwxyz" + accented)
    assert all(sentence.startswith("¿") == (sentence.endswith("?") and language == "es") for sentence in sentences)
    assert not any(bad in sentence for sentence in sentences for bad in ("{", "  ", " de el ", " a el "))


def test_exhausted_grammar_is_an_error_and_not_an_endless_loop() -> None:
    with pytest.raises(ValueError, match="gave 2 distinct sentences; 3 were asked for"):
        grammars.draw_sentences({"sentence": ("go {where}",), "where": ("left", "right")}, 3, random.Random(0))


def test_speaking_imports_neither_torch_nor_ray() -> None:
    root = Path(synthetic.__file__).parents[1]
    code = "import sys, corpora.synthetic; print(sorted({'torch', 'ray'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=root, text=True).strip() == "[]"
