"""LibriSpeech's layout to splits."""

from pathlib import Path

import pytest

from corpora.audio import AudioError
from corpora.corpus import open_corpus
from corpora.manifest import CorpusError, Utterance

pytestmark = pytest.mark.timeout(30)


@pytest.fixture
def librispeech(tmp_path: Path) -> Path:
    """Four subsets of one chapter each, the second clip of each absent."""
    root = tmp_path / "LibriSpeech"
    for speaker, subset in enumerate(("train-clean-100", "train-other-500", "dev-clean", "test-other")):
        chapter = root / subset / str(speaker) / "7"
        chapter.mkdir(parents=True)
        (chapter / f"{speaker}-7.trans.txt").write_text(f"{speaker}-7-0000 HE SAID\n{speaker}-7-0001 DON'T\n\n")
        (chapter / f"{speaker}-7-0000.flac").write_bytes(b"fLaC")
    (root / "SPEAKERS.TXT").touch()
    return root


def test_subsets_are_joined_into_splits(librispeech: Path) -> None:
    corpus = open_corpus(librispeech)
    assert corpus.kind == "librispeech"
    assert {split: len(manifest) for split, manifest in corpus.splits.items()} == {"train": 4, "dev": 2, "test": 2}
    assert corpus.splits["dev"][0] == Utterance(
        id="2-7-0000",
        audio=str(librispeech / "dev-clean/2/7/2-7-0000.flac"),
        duration_s=None,
        text="HE SAID",
        speaker="2",
    )


def test_the_folder_above_and_a_single_subset_are_found_too(librispeech: Path) -> None:
    assert open_corpus(librispeech.parent).splits == open_corpus(librispeech).splits
    assert list(open_corpus(librispeech / "dev-clean").splits) == ["dev"]


def test_missing_clip_is_told_in_its_place(librispeech: Path) -> None:
    clips = {utterance.id: clip for _, utterance, clip in open_corpus(librispeech).clips(["test"])}
    assert clips["3-7-0000"] == librispeech / "test-other/3/7/3-7-0000.flac"
    absent = clips["3-7-0001"]
    assert isinstance(absent, AudioError)
    assert absent.reason == "missing"


def test_subsets_without_transcripts_are_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "dev-clean" / "1").mkdir(parents=True)
    with pytest.raises(CorpusError, match="holds 0 transcripts; LibriSpeech holds"):
        open_corpus(tmp_path)


def test_transcript_that_is_not_text_is_named(librispeech: Path) -> None:
    transcript = librispeech / "dev-clean/2/7/2-7.trans.txt"
    transcript.write_bytes(b"2-7-0000 \xff")
    with pytest.raises(CorpusError, match=r"2-7\.trans\.txt: byte 9 is not UTF-8"):
        open_corpus(librispeech)
