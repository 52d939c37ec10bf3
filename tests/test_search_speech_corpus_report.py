"""What a study sees of its corpora, counted by hand, and how a person reads it."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from corpora.corpus import open_corpus
from corpora.features import FeatureRow, FeatureStore, finish_store, write_shard
from corpora.grammars import GRAMMARS, draw_sentences
from corpora.languages import Language, language
from corpora.text import TextChanges, normalise, why_unusable
from models.frontend import FrontendConfig
from search.capacity.estimate import Load, estimate
from search.config import StudyConfig
from search.speech.corpus_report import characters, corpus_report, find_misfit, misfit, words
from search.speech.features import join_corpora
from search.speech.shards import all_clips, chunks, make_shard
from search.speech.split_overlap import find_overlaps
from search.speech.study_inputs import clip_limits
from search.speech.vocabularies import VocabularyReport

pytestmark = pytest.mark.timeout(60)

CLIPS = [("train", "ana", "uno dos", 150), ("train", "ana", "uno", 50), ("train", "", "niño", 250),
         ("dev", "eva", "uno tres", 100), ("test", "luz", "uno tres", 120)]
"""Split, speaker, text and frames."""

BAD = [{"id": "0/x", "split": "train", "reason": "foreign_letters",
        "detail": "'die straße [bold]' holds 'ж', which 'es' cannot spell"},
       *({"id": f"0/y{i}", "split": "dev", "reason": "too_long", "detail": "30.00 s; the limits are 0.3 to 20 s"}
         for i in range(5))]

VOCABULARIES = [
    VocabularyReport(kind="characters", size=0, num_labels=34, infeasible_share=0.01, mean_labels=5.0,
                     unknown_share=0.0, error=None),
    VocabularyReport(kind="bpe", size=64, num_labels=64, infeasible_share=0.2, mean_labels=2.5, unknown_share=0.25,
                     error=None),
    VocabularyReport(kind="bpe", size=128, num_labels=0, infeasible_share=1.0, mean_labels=0.0, unknown_share=1.0,
                     error="vocabulary.size is 128; the texts give at most 70.")]


@pytest.fixture
def report(tmp_path: Path) -> dict[str, Any]:
    """Of five clips taken and six left out."""
    rows = [FeatureRow(id=f"0/{i}", split=split, speaker=speaker, text=text, duration_s=frames / 100,
                       features=np.zeros((frames, 64), dtype=np.float32))
            for i, (split, speaker, text, frames) in enumerate(CLIPS)]
    changed = {"clips": 3, "found": {"3": 3}, "examples": [{"before": "3 [x]", "after": "tres x"}]}
    write_shard(tmp_path, 0, rows, BAD, {"clips": 9, "changes": {"digits_spelled_out": changed}})
    finish_store(tmp_path, 1, {"num_clips": 11})
    store = FeatureStore(tmp_path)
    config = StudyConfig(corpus=("es.tar.gz",), source="en.nemo", budget="1h").resolved()
    load = Load(train_s=4.5, dev_s=1.0, speech_s_per_s=2.0, concurrency=2, gpus_per_trial=0.0, audio_s_per_step=60.0,
                weights_bytes=76_000_000, features_bytes=57_600, free_bytes=10**9)
    return corpus_report(config, store, VOCABULARIES, find_overlaps(store)) | {"estimate": estimate(config, load)}


def test_splits_are_measured(report: dict[str, Any]) -> None:
    train = report["splits"]["train"]
    assert (train["clips"], train["hours"], train["speakers"], train["clips_of_unknown_speakers"],
            train["sentences"]) == (3, round(4.5 / 3600, 4), 1, 1, 3)
    assert train["length_s"] == {"shortest": 0.5, "5 %": 0.6, "25 %": 1.0, "median": 1.5, "75 %": 2.0, "95 %": 2.4,
                                 "longest": 2.5}
    assert report["lengths"] == {"bin_s": 0.5, "clips": {
        "train": [0, 1, 0, 1, 0, 1], "dev": [0, 0, 1, 0, 0, 0], "test": [0, 0, 1, 0, 0, 0]}}
    assert report["overlap"]["said"] == [
        "1 sentence and 0 speakers of test are in dev too (1 of 1 clip): 'uno tres'"]


def test_empty_split_is_reported_too(tmp_path: Path) -> None:
    write_shard(tmp_path, 0, [], [])
    finish_store(tmp_path, 1, {"num_clips": 0})
    found = corpus_report(StudyConfig(corpus=("a",), source="none").resolved(), FeatureStore(tmp_path), [], [])
    assert found["splits"]["test"] == {"clips": 0, "hours": 0.0, "speakers": 0, "clips_of_unknown_speakers": 0,
                                       "sentences": 0, "length_s": {}}
    assert found["lengths"]["clips"] == {"train": [0], "dev": [0], "test": [0]}


def test_characters_are_counted_and_the_odd_ones_named() -> None:
    found = characters({"train": ["ab a", "b"], "dev": ["ax"]}, " abc", BAD)
    assert found == {"counts": {"a": 3, "b": 2, " ": 1, "x": 1}, "not_in_alphabet": {"x": 1}, "left_out": {"ж": 1},
                     "not_in_train": {"x": 1}, "never": "c"}


TEXTS = {
    "es": "El niño pequeño comía un melocotón en la plaza, y mañana el señor José vendrá aquí con su perro. ",
    "en": "The child was eating a peach in the square, and tomorrow the old man will be here with his dog. ",
    "pt": "A criança não comia pêssego na praça, e amanhã o senhor João virá aqui com os cães da irmã. ",
    "fr": "L'enfant a mangé une pêche à la place, et le garçon à côté, déjà âgé, est là-bas avec son élève. ",
    "it": "Il bambino mangiò la pesca perché era già lì, e la città più vicina è là, dov'è il caffè. ",
    "ca": "El nen petit menjava un préssec a la plaça, i demà el senyor Josep vindrà aquí però sol. ",
}
GALICIAN = Language(code="gl", letters="abcdefghijklmnñopqrstuvwxyzáéíóúïü")
UKRAINIAN, RUSSIAN = "Сьогодні її їжа є в місті. ", Language(code="ru", letters="абвгдеёжзийклмнопрстуфхцчшщъыьэюя")


def misfit_of(raws: Sequence[str], spoken: Language) -> str:
    """What is said of transcripts, as a study's store would have them."""
    seen, texts, bad = TextChanges(spoken), [], []
    for raw in raws:
        text = normalise(raw, spoken)
        if why := why_unusable(raw, text, spoken):
            bad.append({"reason": why[0], "detail": why[1]})
            continue
        texts.append(text)
        seen.observe(raw, text)
    folded = seen.facts()["changes"].get("letters_folded", {"found": {}})["found"]
    return misfit(spoken, characters({"train": texts}, spoken.alphabet, bad), folded, len(bad) / len(raws))


@pytest.mark.parametrize(("text", "spoken", "said"), [
    (TEXTS["pt"], GALICIAN, r"folded \(ã→a \d+, ç→c \d+, ê→e \d+\)"),
    (TEXTS["fr"], language("es"), r"folded \(à→a \d+"), (TEXTS["it"], language("es"), "folded"),
    (TEXTS["es"], language("en"), "folded"), (TEXTS["es"], language("pt"), r"folded \(ñ→n \d+\)"),
    (TEXTS["ca"], language("es"), "folded"), (TEXTS["fr"], language("it"), "folded"),
    (TEXTS["en"], language("es"), "none of its [0-9,]+ letters is one of á é í ñ ó ú ü"),
    (TEXTS["en"], language("fr"), "none of its"), (TEXTS["es"].replace("é", "e"), language("fr"), "folded"),
    (UKRAINIAN, RUSSIAN, r"100% of its clips are left out .*\(і 40, ї 40, є 40\)"),
])
def test_language_that_does_not_fit_is_said(text: str, spoken: Language, said: str) -> None:
    line = misfit_of([text] * 40, spoken)
    assert line.startswith(f"the corpus may not be in {spoken.code!r}: ") and re.search(said, line), line


def test_language_that_fits_is_not_doubted(shared_data: Path) -> None:
    for code, text in TEXTS.items():
        assert misfit_of([text] * 40, language(code)) == "", code
    assert misfit_of([TEXTS["es"]] * 40, GALICIAN) == misfit_of([TEXTS["en"]], language("es")) == ""
    assert misfit_of(["Café, señor Müller, à la carte.", *[TEXTS["en"]] * 60], language("en")) == ""
    for name in ("es-real", "es-kokoro"):
        lines = (shared_data / name / "train.jsonl").read_text(encoding="utf-8").splitlines()
        assert misfit_of([json.loads(line)["text"] for line in lines], language("es")) == "", name
    for code in ("es", "en"):
        corpus = open_corpus(shared_data / f"cv-corpus-6.1-2020-12-11-{code}.tar.gz")
        raws = [utterance.text for manifest in corpus.splits.values() for utterance in manifest]
        assert misfit_of(raws, language(code)) == "", code
    for name, grammar in GRAMMARS.items():
        assert misfit_of(draw_sentences(grammar, 300, Random(0)), language(name)) == "", name


def test_words_of_dev_that_train_never_says_are_counted() -> None:
    assert words(["uno dos", "dos"], ["uno tres", "dos seis"]) == {"in_train": 2, "dev_unseen_share": 0.5}
    assert words(["uno"], []) == {"in_train": 1, "dev_unseen_share": 0.0}


def test_vocabulary_is_usable_within_the_study_s_limit(report: dict[str, Any]) -> None:
    assert [found["is_usable"] for found in report["vocabularies"]] == [True, False, False]


def test_clips_left_out_are_counted_by_reason_and_all_named(report: dict[str, Any]) -> None:
    assert report["left_out_by_reason"] == {"too_long": 5, "foreign_letters": 1}
    assert (report["clips_found"], report["clips_left_out"], report["left_out"]) == (11, 6, BAD)


def test_store_of_another_language_is_doubted(tmp_path: Path, shared_data: Path) -> None:
    (tmp_path / "gl.yaml").write_text("code: gl\nletters: abcdefghijklmnopqrstuvwxyz\n")
    manifest = tmp_path / "train.jsonl"
    clips = sorted((shared_data / "es-kokoro" / "audio").glob("*.opus"))[:20]
    manifest.write_text("".join(json.dumps({"audio_filepath": str(clip), "duration": 1.0, "text": TEXTS["pt"],
                                            "speaker": f"s{n}"}) + "\n" for n, clip in enumerate(clips)))
    config = StudyConfig(corpus=(str(manifest),), source="none", language=str(tmp_path / "gl.yaml")).resolved()
    limits = clip_limits(config, FrontendConfig())
    corpora = join_corpora([str(manifest)])
    made = list(enumerate(chunks(all_clips(corpora), limits)))
    for number, chunk in made:
        make_shard(tmp_path / "store", number, chunk.clips, limits)
    finish_store(tmp_path / "store", len(made), {"num_clips": len(clips)})
    said = find_misfit(FeatureStore(tmp_path / "store"), config.spoken)
    assert re.match(r"the corpus may not be in 'gl': \d+ of its [\d,]+ letters .*ã→a 100", said), said
