"""Transcripts of clips of any length: no word is lost at a cut, and the batch does not matter."""

import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor

from corpora.audio import AudioError, decode
from corpora.clips import Clip
from models.decoding import greedy
from models.frontend import FrontendConfig, LogMel, emphasised
from models.precision import Precision
from models.recognizer import Recognizer
from models.transcription import Transcriber, Transcript
from models.vocabulary import CharacterVocabulary

pytestmark = pytest.mark.timeout(240)

RATE_HZ = 16_000
LETTERS = " abcdefg"
LETTER_S = 0.1
Sound = npt.NDArray[np.float32]


# --- a language of tones, and a network that hears it ----------------------------------------------------------------


class PlainLogMel(LogMel):
    """Without the normalisation, with which the letters that a clip does not hold would be heard in its noise."""

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return self._log_energies(emphasised(waveforms, lengths, self.config.padding)), lengths // 160


class ToneNetwork:
    """Hears a letter where its mel is the loudest, and loud; 20 ms a frame, nothing beyond it."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, ...]] = []
        mels = LogMel(FrontendConfig()).filters.argmax(dim=1)  # the bin in which each mel is greatest
        self.mels = [int((mels * RATE_HZ / 512 - hertz(letter)).abs().argmin()) for letter in LETTERS]

    def __call__(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        self.batches.append(tuple(lengths.tolist()))
        heard = features[:, self.mels, ::2].transpose(1, 2)
        silence = torch.full_like(heard[..., :1], -3.0)
        return torch.cat([heard, silence], -1).log_softmax(-1), (lengths - 1) // 2 + 1


def hertz(letter: str) -> float:
    return 500.0 * 1.35 ** LETTERS.index(letter)


def spoken(text: str) -> Sound:
    """A tone of 60 ms for each letter, and 40 ms of near silence."""
    seconds = np.arange(round(0.06 * RATE_HZ)) / RATE_HZ
    parts = []
    for letter in text:
        parts += [0.3 * np.sin(2 * np.pi * hertz(letter) * seconds) * np.hanning(len(seconds)), np.zeros(640)]
    return np.concatenate(parts).astype(np.float32)


def with_hiss(*parts: Sound) -> Sound:
    sound = np.concatenate(parts)
    return sound + np.random.default_rng(0).normal(0, 1e-3, len(sound)).astype(np.float32)


def random_words(count: int, seed: int = 0) -> list[str]:
    generator = np.random.default_rng(seed)
    return ["".join(generator.choice(list(LETTERS[1:]), generator.integers(1, 8))) for _ in range(count)]


@pytest.fixture
def network() -> ToneNetwork:
    return ToneNetwork()


@pytest.fixture
def transcriber(network: ToneNetwork) -> Transcriber:
    return Transcriber(PlainLogMel(FrontendConfig()).eval(), network, CharacterVocabulary(tuple(LETTERS)), stride=2)


def transcript_of(transcriber: Transcriber, source: Sound | Path | Clip) -> Transcript:
    [transcript] = transcriber.transcribe([source])
    assert isinstance(transcript, Transcript), transcript
    return transcript


# --- no word is lost, and each has its time --------------------------------------------------------------------------


def test_short_clip_is_heard_in_one_piece_with_times(transcriber: Transcriber, network: ToneNetwork) -> None:
    transcript = transcript_of(transcriber, with_hiss(np.zeros(16_000, np.float32), spoken("bag fad"),
                                                      np.zeros(8_000, np.float32)))
    assert transcript.text == "bag fad" and len(network.batches) == 1
    assert transcript.duration_s == pytest.approx(2.2)
    first, second = transcript.words
    assert (first.start_s, first.end_s) == pytest.approx((1.0, 1.26), abs=0.03)
    assert (second.start_s, second.end_s) == pytest.approx((1.4, 1.66), abs=0.03)
    assert 0.5 < first.confidence < 1


def test_word_ends_no_later_than_its_clip(transcriber: Transcriber) -> None:
    transcript = transcript_of(transcriber, with_hiss(spoken("bag"), spoken("fad")[:-800]))  # half a frame too many
    assert transcript.words[-1].end_s == transcript.duration_s == pytest.approx(0.55)


def test_read_only_reversed_and_big_endian_samples_are_heard(transcriber: Transcriber) -> None:
    sound = with_hiss(spoken("bag fad"))
    read_only = sound.copy()
    read_only.flags.writeable = False
    for same in (read_only, sound[::-1].copy()[::-1], sound.astype(">f4")):
        assert transcript_of(transcriber, same).text == "bag fad"


@pytest.mark.parametrize("words_to_a_pause", [None, 4])
def test_long_sound_loses_no_word_at_a_cut(transcriber: Transcriber, network: ToneNetwork,
                                           words_to_a_pause: int | None) -> None:
    words = random_words(600)
    parts, starts_s, now_s = [], [], 0.0
    for number, word in enumerate(words):
        is_pause = words_to_a_pause is not None and number % words_to_a_pause == 0
        # No space is heard across a pause, as by the real networks at the end of a sentence.
        between = np.zeros(RATE_HZ, np.float32) if is_pause else spoken(" ")
        starts_s.append(now_s + len(between) / RATE_HZ)
        parts += [between, spoken(word)]
        now_s = starts_s[-1] + len(word) * LETTER_S
    transcript = transcript_of(transcriber, with_hiss(*parts))
    assert now_s > 200 and sum(map(len, network.batches)) > 9, "the sound was cut"
    if words_to_a_pause is None:
        assert [word.text for word in transcript.words] == words
        np.testing.assert_allclose([word.start_s for word in transcript.words], starts_s, atol=0.03)
    else:  # between two segments a word ends; inside a segment this network hears none to end in a pause
        assert transcript.text.replace(" ", "") == "".join(words)
        heard_s = {round(word.start_s, 1) for word in transcript.words}
        assert heard_s <= {round(start, 1) for start in starts_s}, "no word is cut in two"


def test_file_is_heard_as_its_samples_and_a_stretch_by_itself(transcriber: Transcriber, tmp_path: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    words = random_words(200, seed=2)
    sound = with_hiss(spoken(" ".join(words)))
    soundfile.write(tmp_path / "long.flac", sound, RATE_HZ)
    monkeypatch.setattr("corpora.audio.BLOCK_S", 7.3)
    assert transcript_of(transcriber, tmp_path / "long.flac").text == " ".join(words)
    begin = len(" ".join(words[:100])) * LETTER_S + LETTER_S
    duration = len(" ".join(words[100:103])) * LETTER_S
    stretch = transcript_of(transcriber, Clip(path=str(tmp_path / "long.flac"), offset_s=begin, duration_s=duration))
    assert stretch.text == " ".join(words[100:103]) and stretch.words[0].start_s < 0.05


def test_memory_does_not_grow_with_the_clip(transcriber: Transcriber, tmp_path: Path,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.transcription.WAITING_AUDIO_S", 60.0)
    minute = with_hiss(spoken(" ".join(random_words(120))))[:60 * RATE_HZ]
    peaks = []
    for minutes in (3, 12):
        with soundfile.SoundFile(tmp_path / "long.wav", "w", RATE_HZ, 1, "PCM_16") as file:
            for _ in range(minutes):
                file.write(minute)
        tracemalloc.start()
        transcript = transcript_of(transcriber, tmp_path / "long.wav")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert transcript.duration_s == 60 * minutes and len(transcript.words) > 100 * minutes
    assert peaks[1] < peaks[0] + 8e6, "nine minutes of sound are 35 MB"


# --- the batch -------------------------------------------------------------------------------------------------------


def test_text_does_not_depend_on_batch_or_order(transcriber: Transcriber, network: ToneNetwork,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    clips = [with_hiss(spoken(" ".join(random_words(count, seed)))) for seed, count in enumerate((3, 150, 8, 1, 90))]
    expected = [transcript_of(transcriber, clip) for clip in clips]
    network.batches.clear()
    assert list(transcriber.transcribe(clips)) == expected
    assert len(network.batches) < sum(map(len, network.batches)), "segments of several clips share a batch"
    for batch_s, waiting_s in ((0.1, 1200.0), (40.0, 25.0), (500.0, 60.0)):
        monkeypatch.setattr("models.transcription.BATCH_AUDIO_S", batch_s)
        monkeypatch.setattr("models.transcription.WAITING_AUDIO_S", waiting_s)
        assert list(transcriber.transcribe(clips[::-1])) == expected[::-1]


@pytest.mark.parametrize("source", [
    "clip.wav", b"clip.wav", Path("clip.wav"), Clip(path="clip.wav"), np.zeros(16_000, np.float32), torch.zeros(16_000),
    torch.tensor(0.0)], ids=lambda source: type(source).__name__)
def test_one_source_in_the_place_of_a_list_is_refused_at_once(transcriber: Transcriber, source: object) -> None:
    with pytest.raises(TypeError, match="transcribe takes a list of files or waveforms; put .* in a list"):
        transcriber.transcribe(source)  # type: ignore[arg-type]


def test_bad_clip_is_an_error_in_its_place_and_the_others_are_heard(transcriber: Transcriber, tmp_path: Path,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corpora.audio.BLOCK_S", 10.0)
    good, broken = with_hiss(spoken("bad cafe")), with_hiss(spoken(" ".join(random_words(150))))
    broken[-1] = np.nan  # found when most of its segments wait already
    soundfile.write(tmp_path / "broken.wav", broken, RATE_HZ, subtype="FLOAT")
    results = list(transcriber.transcribe([AudioError("x: is a list of nothing.", reason="missing"), good,
                                           tmp_path / "broken.wav", tmp_path / "absent.wav", good]))
    assert [result.text if isinstance(result, Transcript) else result.reason for result in results] == [
        "missing", "bad cafe", "bad_samples", "missing", "bad cafe"]


def test_clips_come_when_they_are_done_and_seconds_are_told(transcriber: Transcriber,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.transcription.WAITING_AUDIO_S", 1.0)
    clip = with_hiss(spoken("abcdefg abcdefg"))  # 1.5 s
    taken, told = [], []

    def sources() -> object:
        for number in range(3):
            taken.append(number)
            yield clip

    results = transcriber.transcribe(sources(), told.append)  # type: ignore[arg-type]
    next(results)
    assert taken == [0] and told == [pytest.approx(1.5)], "the first is out before the second is read"
    assert len(list(results)) == 2 and sum(told) == pytest.approx(4.5)


def test_first_clips_are_out_before_a_long_one_behind_them_is_heard(
        transcriber: Transcriber, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.transcription.BATCH_AUDIO_S", 40.0)
    short, long = with_hiss(spoken("abcdefg")), with_hiss(spoken(" ".join(random_words(400))))
    told: list[float] = []
    results = transcriber.transcribe([short, short, long], told.append)
    assert [next(results), next(results)] == [transcript_of(transcriber, short)] * 2
    assert sum(told) < 45 < len(long) / RATE_HZ


def test_network_with_other_labels_than_the_vocabulary_is_refused(network: ToneNetwork) -> None:
    other = Transcriber(PlainLogMel(FrontendConfig()).eval(), network, CharacterVocabulary(("a",)), stride=2)
    with pytest.raises(ValueError, match="has 9 labels; the vocabulary has 1"):
        list(other.transcribe([with_hiss(spoken("a"))]))


# --- a real network and real clips -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_clips(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Sound]:
    folder = tmp_path_factory.mktemp("english")
    with tarfile.open(shared_data / "cv-corpus-6.1-2020-12-11-en.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    clips = [decode(path) for path in sorted(folder.rglob("*.mp3"))]
    assert len(clips) == 40
    return clips


@pytest.fixture(scope="module")
def recognizer(shared_data: Path) -> Recognizer:
    return Recognizer.load(shared_data / "quartznet15x5_en.nemo")


@pytest.fixture(scope="module")
def alone(recognizer: Recognizer, real_clips: list[Sound]) -> list[str]:
    """The words of the clips one by one."""
    return " ".join(recognizer.transcribe(real_clips)).split()


@pytest.mark.parametrize(
    ("pause_s", "pause_db", "most_edits", "most_letters"), [(0.5, 20, 34, 4), (0.0, 20, 34, 4), (0.0, 99, 50, 20)],
    ids=["pauses", "no pauses", "no pauses found"])
def test_clips_put_together_give_the_words_of_the_clips_one_by_one(
        recognizer: Recognizer, real_clips: list[Sound], alone: list[str], monkeypatch: pytest.MonkeyPatch,
        pause_s: float, pause_db: float, most_edits: int, most_letters: int) -> None:
    if pause_db == 99:
        monkeypatch.setattr("models.segmentation.PAUSE_DB", 99.0)
        monkeypatch.setattr("models.segmentation.DIP_DB", 99.0)
    pause = np.random.default_rng(0).normal(0, 1e-3, round(pause_s * RATE_HZ)).astype(np.float32)
    together = transcript_of(recognizer.transcriber, np.concatenate([part for clip in real_clips
                                                                     for part in (clip, pause)]))
    heard = [word.text for word in together.words]
    letters = [operation for operation in Levenshtein.opcodes("".join(alone), "".join(heard))
               if operation.tag in ("delete", "replace")]
    lost = max(operation.src_end - operation.src_start for operation in letters)
    print(f"{Levenshtein.distance(alone, heard)} of {len(alone)} words otherwise, {lost} letters in a row at most")
    assert len(alone) > 300 and Levenshtein.distance(alone, heard) <= most_edits
    assert lost <= most_letters, "a lost word is more letters in a row"


def test_no_word_is_heard_in_a_minute_of_noise_between_words(
        recognizer: Recognizer, real_clips: list[Sound]) -> None:
    before, after = real_clips[0], real_clips[1]
    noise = np.random.default_rng(0).normal(0, 2e-3, 60 * RATE_HZ).astype(np.float32)
    words = transcript_of(recognizer.transcriber, np.concatenate([before, noise, after])).words
    begins_s, ends_s = len(before) / RATE_HZ, len(before) / RATE_HZ + 60
    assert [word for word in words if begins_s < word.start_s < ends_s] == []
    heard = [" ".join(word.text for word in words if word.start_s < begins_s),
             " ".join(word.text for word in words if word.start_s > ends_s)]
    assert Levenshtein.distance(heard[0], recognizer.transcribe([before])[0]) <= 3
    assert Levenshtein.distance(heard[1], recognizer.transcribe([after])[0]) <= 3


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_real_text_does_not_depend_on_batch_or_order(
        recognizer: Recognizer, real_clips: list[Sound], monkeypatch: pytest.MonkeyPatch, precision: Precision) -> None:
    network = Recognizer(recognizer.frontend.config, recognizer.acoustic, recognizer.vocabulary, precision)
    sources = [*real_clips[:6], np.concatenate(real_clips[:9]), *real_clips[6:10]]
    assert len(sources[6]) > 30 * RATE_HZ
    expected = network.transcribe(sources)
    for batch_s, waiting_s in ((0.1, 1200.0), (30.0, 20.0)):
        monkeypatch.setattr("models.transcription.BATCH_AUDIO_S", batch_s)
        monkeypatch.setattr("models.transcription.WAITING_AUDIO_S", waiting_s)
        assert network.transcribe(sources[::-1]) == expected[::-1]


def test_words_of_a_real_clip_lie_inside_it_and_spell_greedys_text(
        recognizer: Recognizer, real_clips: list[Sound]) -> None:
    waveform = torch.from_numpy(real_clips[0])[None]
    exact = Recognizer(recognizer.frontend.config, recognizer.acoustic, recognizer.vocabulary, "float32")
    [text] = greedy(*exact.log_probs(waveform, torch.tensor([waveform.shape[1]])), recognizer.vocabulary)
    transcript = transcript_of(exact.transcriber, real_clips[0])
    assert transcript.text == text != ""
    assert transcript.words[0].start_s >= 0 and transcript.words[-1].end_s <= transcript.duration_s


@pytest.mark.parametrize("tensor", [torch.zeros(16_000).to_sparse(), torch.zeros(16_000, device="meta")])
def test_tensor_without_samples_in_a_row_is_an_error_in_its_place(transcriber: Transcriber, tensor: Tensor) -> None:
    [given] = transcriber.transcribe([tensor])
    assert isinstance(given, AudioError) and "it must be 16 kHz mono floating-point samples" in str(given)
