"""Recognizer: sound to text, on the real checkpoint and real clips."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from corpora.audio import AudioError
from corpora.languages import LANGUAGES
from corpora.text import normalise
from models.metrics import word_error_rate
from models.nemo import NemoFileError
from models.recognizer import Recognizer

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def english(shared_data: Path) -> Recognizer:
    return Recognizer.load(shared_data / "quartznet15x5_en.nemo", precision="float32")


@pytest.fixture(scope="module")
def reference(shared_data: Path) -> dict[str, np.ndarray]:
    arrays = np.load(shared_data / "reference" / "nemo_quartznet15x5_en.npz")
    return {name: arrays[name] for name in arrays.files if name.startswith(("wave", "pad16", "greedy"))}


def waveforms_of(reference: dict[str, np.ndarray]) -> list[np.ndarray]:
    lengths = reference["waveform_lengths"]
    return [waveform[:length] for waveform, length in zip(reference["waveforms"], lengths, strict=True)]


@pytest.fixture(scope="module")
def english_clips(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], list[str]]:
    """40 real clips and what was read in them."""
    folder = tmp_path_factory.mktemp("english")
    with tarfile.open(shared_data / "cv-corpus-6.1-2020-12-11-en.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    rows = [line.split("\t") for line in next(folder.rglob("validated.tsv")).read_text().splitlines()[1:]]
    clips = next(folder.rglob("clips"))
    assert len(rows) == 40
    return [clips / row[1] for row in rows], [normalise(row[2], LANGUAGES["en"]) for row in rows]


@pytest.mark.timeout(240)
def test_bfloat16_hears_real_clips_as_float32_does(
        english: Recognizer, english_clips: tuple[list[Path], list[str]]) -> None:
    clips, references = english_clips
    rates = []
    for precision in ("float32", "bf16"):
        recognizer = Recognizer(english.frontend.config, english.acoustic, english.vocabulary, precision)
        rates.append(word_error_rate(references, recognizer.transcribe(clips)))
    assert 0.07 < rates[0] < 0.11
    assert abs(rates[1] - rates[0]) < 0.003


def test_waveforms_give_nemos_features_log_probabilities_and_text(
        english: Recognizer, reference: dict[str, np.ndarray]) -> None:
    waveforms, lengths = (torch.from_numpy(reference[name]) for name in ("waveforms", "waveform_lengths"))
    features, feature_lengths = english.features(waveforms, lengths)
    assert feature_lengths.tolist() == reference["pad16_feature_lengths"].tolist()
    np.testing.assert_allclose(features.numpy(), reference["pad16_features"], atol=1e-3)
    log_probs, frame_lengths = english.log_probs(waveforms, lengths)
    assert frame_lengths.tolist() == reference["pad16_log_prob_lengths"].tolist()
    for row, num_frames in enumerate(frame_lengths.tolist()):
        np.testing.assert_allclose(log_probs[row, :num_frames].numpy(), reference["pad16_log_probs"][row, :num_frames],
                                   atol=5e-3)
    assert english.transcribe(waveforms_of(reference)) == reference["greedy_text"].tolist()


def test_files_arrays_and_tensors_give_the_same_text(
        english: Recognizer, reference: dict[str, np.ndarray], tmp_path: Path) -> None:
    waveform = waveforms_of(reference)[0]
    soundfile.write(tmp_path / "clip.wav", waveform, 16_000, subtype="FLOAT")
    texts = english.transcribe([str(tmp_path / "clip.wav"), tmp_path / "clip.wav", torch.from_numpy(waveform),
                                waveform.astype(np.float64)])
    assert texts == [reference["greedy_text"][0]] * 4


def test_saved_model_gives_the_same_log_probabilities(
        english: Recognizer, reference: dict[str, np.ndarray], tmp_path: Path) -> None:
    english.save(tmp_path / "model.nemo")
    copy = Recognizer.load(tmp_path / "model.nemo")
    waveforms = torch.from_numpy(reference["waveforms"][:1, :16_000])
    lengths = torch.tensor([16_000])
    assert torch.equal(copy.log_probs(waveforms, lengths)[0], english.log_probs(waveforms, lengths)[0])
    assert copy.vocabulary == english.vocabulary
    assert not list(tmp_path.glob("*.part"))


def test_unknown_precision_is_refused(shared_data: Path) -> None:
    with pytest.raises(ValueError, match="precision is 'half'; it must be auto, float32 or bf16"):
        Recognizer.load(shared_data / "quartznet15x5_en.nemo", precision="half")  # type: ignore[arg-type]


def test_no_clips_give_no_text(english: Recognizer) -> None:
    assert english.transcribe([]) == []


@pytest.mark.parametrize(("waveform", "complaint"), [
    (np.zeros(100, np.float32), "6.2 ms; it must be 20 ms"),
    (None, "of type NoneType; it must be a path, or"), (b"RIFF", "of type bytes"),
    (np.zeros((2, 16_000), np.float32), r"shape \(2, 16000\); it must be 16 kHz mono"),
    (np.zeros(16_000, np.int16), "torch.int16"),
    (np.full(16_000, np.nan, np.float32), "not finite"),
    (np.full(16_000, 1e300), "not finite"),
])
def test_waveforms_that_are_no_speech_are_refused(english: Recognizer, waveform: np.ndarray, complaint: str) -> None:
    with pytest.raises(AudioError, match=f"waveform 1 .*{complaint}"):
        english.transcribe([np.ones(16_000, np.float32), waveform])


def test_bad_paths_are_refused(english: Recognizer, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="no such file"):
        english.transcribe([tmp_path / "absent.wav"])
    with pytest.raises(TypeError, match="takes a list"):
        english.transcribe("clip.wav")
    with pytest.raises(NemoFileError, match="no such file"):
        Recognizer.load(tmp_path / "absent.nemo")
