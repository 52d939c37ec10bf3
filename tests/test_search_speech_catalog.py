"""Names of what can be downloaded."""

import re

import pytest
from torchaudio.datasets import librispeech

from search.config import ConfigError
from search.speech.catalog import SOURCES, SUBSETS, as_given, is_name

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("name", ["stt_en_quartznet15x5", "QuartzNet15x5Base-En", "librispeech:dev-other",
                                  "mdc:cminc35no007no707hql26lzk", "mdc:common-voice_25"])
def test_name_stays_as_it_was_written(name: str) -> None:
    assert is_name(name) and as_given(name) == name


@pytest.mark.parametrize("path", ["cv-corpus-25.0-es.tar.gz", "LibriSpeech/dev-clean", "stt_en_quartznet15x5.nemo",
                                  "./mdc:x", "librispeech"])
def test_path_becomes_absolute(path: str) -> None:
    assert not is_name(path) and as_given(path).startswith("/")


@pytest.mark.parametrize(("name", "said"), [
    ("librispeech:train-clean-10",
     "no such subset; the nearest is librispeech:train-clean-100. Give one or several of "),
    ("librispeech:", "no such subset"), ("mdc:", "after mdc: comes the id of a dataset"),
    ("mdc:../../etc", "after mdc: comes the id"), ("mdc:a/b", "after mdc: comes the id")])
def test_wrong_name_is_one_clear_line(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"corpus is {name!r}; ") + ".*" + re.escape(said)) as error:
        is_name(name)
    assert "\n" not in str(error.value)


def test_hashes_are_those_that_torchaudio_checks() -> None:
    theirs = {url.rpartition("/")[2]: digest for url, digest in librispeech._CHECKSUMS.items()}
    assert {remote.file_name: remote.sha256 for remote in SUBSETS.values()} == theirs


def test_every_source_is_a_nemo_file_over_https() -> None:
    for name, remote in SOURCES.items():
        assert remote.url.startswith("https://") and remote.file_name == f"{name}.nemo" and "terms" in remote.terms
