"""A study of speech knows what it is made of before anything is started."""

from pathlib import Path

import pytest

from search.config import StudyConfig
from search.speech import embedded_study
from search.speech.speech_study import SpeechStudy

pytestmark = pytest.mark.timeout(60)


def test_embedded_study_is_made_of_code_and_of_no_file(tmp_path: Path) -> None:
    made_of = SpeechStudy.open(StudyConfig(cache=str(tmp_path)).resolved()).identify()
    assert made_of.corpus == (embedded_study.corpus_key(),) and made_of.source == embedded_study.source_key()
    assert list(tmp_path.iterdir()) == [], "nothing is made before a run's folder is locked"


def test_study_is_made_of_the_content_of_what_it_names(shared_data: Path, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    shared_data = shared_data.resolve()
    monkeypatch.chdir(shared_data)
    given = StudyConfig(corpus=("cv-corpus-6.1-2020-12-11-es.tar.gz",), cache=str(tmp_path),
                        source="reference/quartznet5x5_small_random.nemo")
    located = SpeechStudy.locate(given)
    monkeypatch.chdir(tmp_path)
    assert located.corpus == (str(shared_data / given.corpus[0]),) and located.source == str(
        shared_data / str(given.source))
    made_of = SpeechStudy.open(located.resolved()).identify()
    from_nothing = SpeechStudy.open(StudyConfig(corpus=located.corpus, source="none").resolved()).identify()
    assert made_of.corpus == from_nothing.corpus and made_of.source and not from_nothing.source
