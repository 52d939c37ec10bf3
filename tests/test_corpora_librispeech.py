"""LibriSpeech's layout to splits, from folders and from tarballs."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from corpora.audio import SAMPLE_RATE_HZ, AudioError, decode
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


def test_what_macos_notes_about_a_transcript_is_none(librispeech: Path, tmp_path: Path) -> None:
    before = open_corpus(librispeech).splits
    for chapter in librispeech.glob("*/*/*"):
        for file in list(chapter.iterdir()):
            (chapter / f"._{file.name}").write_bytes(b"\x00\x05\x16\x07\xff")
    assert open_corpus(librispeech).splits == before
    with tarfile.open(tmp_path / "all.tar.gz", "w:gz") as archive:
        archive.add(librispeech, "LibriSpeech")
    assert {split: len(found) for split, found in open_corpus(tmp_path / "all.tar.gz").splits.items()} == {
        "train": 4, "dev": 2, "test": 2}


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


def test_real_sound_in_librispeechs_layout_is_heard_with_its_own_words(tmp_path: Path) -> None:
    spoken = {"train-clean-100": ("103", "1240"), "dev-clean": ("84", "121123"), "test-clean": ("61", "70968")}
    pitch_of: dict[str, int] = {}
    for subset, (speaker, chapter) in spoken.items():
        folder = tmp_path / "LibriSpeech" / subset / speaker / chapter
        folder.mkdir(parents=True)
        names = [f"{speaker}-{chapter}-{number:04}" for number in range(3)]
        for name in names:
            pitch_hz = pitch_of[f"PITCH {len(pitch_of)}"] = 200 + 100 * len(pitch_of)
            time_s = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
            sound = 0.5 * np.sin(2 * np.pi * pitch_hz * time_s)
            soundfile.write(folder / f"{name}.flac", sound.astype(np.float32), SAMPLE_RATE_HZ)
        texts = list(pitch_of)[-3:]
        lines = "".join(f"{name} {text}\n" for name, text in zip(names, texts, strict=True))
        (folder / f"{speaker}-{chapter}.trans.txt").write_text(lines)
    corpus = open_corpus(tmp_path / "LibriSpeech")
    assert {split: len(manifest) for split, manifest in corpus.splits.items()} == {"train": 3, "dev": 3, "test": 3}
    for split, utterance, clip in corpus.clips(["train", "dev", "test"]):
        assert split in str(clip)
        assert utterance.speaker == spoken[Path(str(clip)).parts[-4]][0]
        spectrum = np.abs(np.fft.rfft(decode(clip)))
        assert int(np.argmax(spectrum)) == pitch_of[utterance.text]


def test_line_is_parted_at_its_end_only(librispeech: Path) -> None:
    transcript = librispeech / "dev-clean/2/7/2-7.trans.txt"
    transcript.write_bytes("\ufeff2-7-0000 HE\u2028SAID\x85 SO\x0b\r\n2-7-0001 DON'T".encode())
    assert [found.text for found in open_corpus(librispeech).splits["dev"]] == ["HE\u2028SAID\x85 SO", "DON'T"]


def test_transcript_that_is_a_pipe_a_device_or_too_large_is_named(
    librispeech: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transcript = librispeech / "dev-clean/2/7/2-7.trans.txt"
    transcript.unlink()
    transcript.symlink_to("/dev/zero")
    with pytest.raises(CorpusError, match=r"2-7\.trans\.txt: is not a regular file of at most 1,048,576 bytes"):
        open_corpus(librispeech)
    transcript.unlink()
    os.mkfifo(transcript)
    with pytest.raises(CorpusError, match=r"2-7\.trans\.txt: is not a regular file"):
        open_corpus(librispeech)
    transcript.unlink()
    transcript.touch()
    os.truncate(transcript, 1 << 40)
    with pytest.raises(CorpusError, match=r"2-7\.trans\.txt: is not a regular file"):
        open_corpus(librispeech)


def test_clip_named_twice_and_name_that_leads_elsewhere(librispeech: Path) -> None:
    transcript = librispeech / "dev-clean/2/7/2-7.trans.txt"
    transcript.write_text("2-7-0000 HE SAID\n../../../train-clean-100/0/7/0-7-0000 HE LIED\n2-7-0000 SHE SAID\n")
    clips = [clip for _, _, clip in open_corpus(librispeech).clips(["dev"])]
    reasons = sorted(clip.reason for clip in clips if isinstance(clip, AudioError))
    assert reasons == ["duplicate", "duplicate", "missing"]
    assert len(clips) == 3


def test_speaker_whose_folder_cannot_be_printed_is_named(librispeech: Path) -> None:
    odd = os.fsencode(librispeech / "dev-clean") + b"/\xf1\n"
    os.rename(librispeech / "dev-clean" / "2", odd)
    with pytest.raises(CorpusError, match="cannot be printed") as error:
        open_corpus(librispeech)
    assert str(error.value).isprintable()


def test_transcript_that_is_not_text_is_named(librispeech: Path) -> None:
    transcript = librispeech / "dev-clean/2/7/2-7.trans.txt"
    transcript.write_bytes(b"2-7-0000 \xff")
    with pytest.raises(CorpusError, match=r"2-7\.trans\.txt: byte 9 is not UTF-8"):
        open_corpus(librispeech)


# --- tarball --------------------------------------------------------------------------------------------------------


FIRST = tuple(f"LibriSpeech/{name}" for name in ("LICENSE.TXT", "README.TXT", "CHAPTERS.TXT", "SPEAKERS.TXT"))
TRANSCRIPT = b"84-7-0000 HE SAID\n84-7-0001 DON'T\n84-7-0002 GO\n"
CHAPTER = "LibriSpeech/dev-clean/84/7"


def pack(path: Path, *members: tuple[str, bytes], first: tuple[str, ...] = FIRST) -> Path:
    """A tarball as OpenSLR's, its members in this order."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in (*((name, b"about") for name in first), *members):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def clips(*numbers: int) -> list[tuple[str, bytes]]:
    return [(f"{CHAPTER}/84-7-{number:04d}.flac", b"fLaC%d" % number) for number in numbers]


@pytest.mark.parametrize("place", ["before", "between", "behind"])
def test_transcript_before_between_or_behind_its_clips(tmp_path: Path, place: str) -> None:
    members, transcript = clips(2, 0, 1), (f"{CHAPTER}/84-7.trans.txt", TRANSCRIPT)
    members.insert({"before": 0, "between": 1, "behind": 3}[place], transcript)
    corpus = open_corpus(pack(tmp_path / "dev-clean.tar.gz", *members))
    assert (corpus.kind, list(corpus.splits), corpus.archive) == ("librispeech", ["dev"], corpus.path)
    assert {utterance.text: clip for _, utterance, clip in corpus.clips(["dev"])} == {
        "HE SAID": b"fLaC0", "DON'T": b"fLaC1", "GO": b"fLaC2"}
    assert {utterance.speaker for utterance in corpus.splits["dev"]} == {"84"}


def test_tarball_and_folder_hold_the_same(librispeech: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "all.tar.gz", "w:gz") as archive:
        archive.add(librispeech, "LibriSpeech")
    of_folder, of_tarball = open_corpus(librispeech), open_corpus(tmp_path / "all.tar.gz")
    for split, manifest in of_folder.splits.items():
        assert [(u.id, u.text, u.speaker) for u in manifest] == [
            (u.id, u.text, u.speaker) for u in of_tarball.splits[split]]
    reasons = [clip.reason for _, _, clip in of_tarball.clips(["test"]) if isinstance(clip, AudioError)]
    assert reasons == ["missing"]


def test_tarball_without_files_about_it_and_with_another_root_is_known_too(tmp_path: Path) -> None:
    members = [(name.replace("LibriSpeech/", "./"), content) for name, content in clips(0)]
    corpus = open_corpus(pack(tmp_path / "x.tgz", *members, ("./dev-clean/84/7/84-7.trans.txt", TRANSCRIPT), first=()))
    assert [isinstance(clip, bytes) for _, _, clip in corpus.clips(["dev"])] == [True, False, False]


def test_transcript_that_is_no_text_or_too_large_is_named(tmp_path: Path) -> None:
    for content, said in ((b"84-7-0000 \xff", r"dev-clean/84/7/84-7\.trans\.txt: byte 10 is not UTF-8"),
                          (b"x" * (1 << 20) + b"x", r"84-7\.trans\.txt is 1,048,577 bytes; a chapter's transcript is")):
        path = pack(tmp_path / "dev.tar.gz", (f"{CHAPTER}/84-7.trans.txt", content))
        with pytest.raises(CorpusError, match=said) as error:
            open_corpus(path)
        assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_clips_without_a_transcript_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="dev.tar.gz: holds 0 transcripts; LibriSpeech holds"):
        open_corpus(pack(tmp_path / "dev.tar.gz", *clips(0)))


@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_tarball_that_is_cut_off_is_one_clear_line(tmp_path: Path, share: float) -> None:
    path = pack(tmp_path / "dev.tar.gz", *clips(0, 1, 2), (f"{CHAPTER}/84-7.trans.txt", TRANSCRIPT))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CorpusError, match="damaged or cut off"):
        open_corpus(path)
