"""The loading benchmark's store is as long as it says, its padding is counted right, and its tables are whole."""

import os
from pathlib import Path

import loading
import numpy as np
import pytest
from processes import mapped_bytes

from corpora.features import FeatureStore

pytestmark = pytest.mark.timeout(120)


def test_clips_are_as_long_as_those_of_common_voice() -> None:
    frames = loading.lengths_like_common_voice(20.0)
    assert frames.sum() / 360_000 == pytest.approx(20.0, rel=0.02)
    assert (frames.mean() / 100, frames.std() / 100) == pytest.approx((4.82, 1.65), rel=0.25)
    assert frames.min() >= 100 and frames.max() <= 2000


def test_padding_is_counted_in_two_parts() -> None:
    to_longest, to_multiple, steps = loading.padding(np.full(10, 100), 5)  # 5 clips of 100 frames, padded to 112
    assert (to_longest, steps) == (0, 2) and to_multiple == pytest.approx(12 / 112)
    lengths = np.array([160, 320])
    assert loading.padding(lengths, 7) == pytest.approx((160 / 640, 0, 1))


def test_times_of_a_small_store_make_a_table(tmp_path: Path) -> None:
    store = loading.write_store(tmp_path, 0.05)
    assert store.split("train").duration_s == pytest.approx(180, rel=0.2)
    head, _, row = loading.report_times(store, [10], ["narrow"], repeat=2)
    assert head.count("|") == row.count("|") and row.startswith("| 10 |")
    times = [float(cell.strip(" %")) for cell in row.strip("|").split("|")]
    assert all(time > 0 for time in times) and times[-1] < 100


def test_mapped_bytes_are_those_that_were_read(tmp_path: Path) -> None:
    loading.write_store(tmp_path, 0.05)
    split = FeatureStore(tmp_path).split("train")
    assert mapped_bytes(os.getpid(), str(tmp_path)) == 0
    read = sum(float(split.features(row).sum()) != 0 for row in range(len(split)))
    size = (tmp_path / "000000.npy").stat().st_size
    assert read == len(split) and 0.9 * size < mapped_bytes(os.getpid(), str(tmp_path)) <= size + 4096
