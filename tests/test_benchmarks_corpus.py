"""The corpus benchmark's two ways do the same work, and each second is charged once."""

from pathlib import Path

import corpus as benchmark
import numpy as np
import pytest
from corpus import STAGES, WAYS, Stages

from corpora import audio
from corpora.corpus import open_corpus
from corpora.features import FeatureStore, finish_store

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    path = tmp_path_factory.mktemp("corpus") / "es.tar.gz"
    return path, benchmark.write_release(path, 0.01, benchmark.generated_clips(4, seed=0))


def test_release_is_as_long_as_asked_for_and_repeats_its_clips(release: tuple[Path, float]) -> None:
    path, audio_s = release
    assert 36 <= audio_s < 36 + 12
    corpus = open_corpus(path)
    clips = [clip for _, _, clip in corpus.clips(corpus.splits)]
    assert len(clips) == sum(map(len, corpus.splits.values())) > 4
    assert len(set(clips)) == 4


def test_both_ways_make_the_same_features(release: tuple[Path, float], tmp_path: Path) -> None:
    path, audio_s = release
    ours, plain = Stages(), Stages()
    benchmark.our_path(path, tmp_path / "ours", ours)
    benchmark.plain_loop(path, tmp_path / "plain", plain)
    finish_store(tmp_path / "ours", len(list((tmp_path / "ours").glob("*.npy"))), {})
    store = FeatureStore(tmp_path / "ours")
    assert not list(store.bad_clips())
    found = {name.rpartition("/")[2]: store.split(split).features(row) for split in ("train", "dev", "test")
             for row, name in enumerate(store.split(split).ids)}
    assert sorted(found) == sorted(path.stem for path in (tmp_path / "plain").glob("*.npy"))
    for name, frames in found.items():
        expected = np.load(tmp_path / "plain" / f"{name}.npy")
        assert frames.shape == expected.shape
        assert np.abs(frames.astype(float) - expected)[:, :60].mean() < 0.02  # another resampling filter
    assert sum(len(frames) for frames in found.values()) == pytest.approx(100 * audio_s, rel=0.02)
    assert set(ours.spent) == set(STAGES) - {"rest"}
    assert set(plain.spent) == {"read", "decode", "resample", "log-mel", "write"}


def test_stages_are_charged_once_and_calls_are_put_back(release: tuple[Path, float]) -> None:
    read = audio._read
    spent = benchmark.measure(release[0], rounds=1)
    assert audio._read is read
    assert set(spent) == set(WAYS)
    for seconds in spent.values():
        assert sum(seconds[stage] for stage in STAGES) == pytest.approx(seconds["whole"])
        assert all(seconds[stage] >= 0 for stage in STAGES)
    lines = list(benchmark.table(spent, release[1]))
    assert len(lines) == 2 + len(STAGES) + 3
    assert "times as fast" in lines[-1]
