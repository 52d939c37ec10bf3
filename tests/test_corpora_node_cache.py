"""A node keeps one whole copy of a shard, whoever asks for it and whatever happened before."""

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from corpora import node_cache
from corpora.features import FeatureRow, FeatureStore, finish_store, write_shard
from corpora.node_cache import nearby

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(node_cache.VARIABLE, str(tmp_path / "node"))
    monkeypatch.setattr(node_cache, "SPARE_BYTES", 0)
    path = tmp_path / "shared" / "0123abcd" / "000000.npy"
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(range(256)) * 1000)
    return path


def files_in(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


def test_store_is_read_from_the_nodes_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.arange(640, dtype=np.float16).reshape(10, 64)
    write_shard(tmp_path / "key", 0, [FeatureRow(id="a", split="train", speaker="", text="a", duration_s=0.1,
                                                 features=frames)], [])
    finish_store(tmp_path / "key", 1, {})
    monkeypatch.setenv(node_cache.VARIABLE, str(tmp_path / "node"))
    monkeypatch.setattr(node_cache, "SPARE_BYTES", 0)
    np.testing.assert_array_equal(FeatureStore(tmp_path / "key").split("train").features(0), frames)
    (tmp_path / "key" / "000000.npy").unlink()
    np.testing.assert_array_equal(FeatureStore(tmp_path / "key").split("train").features(0), frames)
    assert files_in(tmp_path / "node") == ["000000.npy"]


def test_many_who_ask_at_once_copy_once(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied, found = [], []
    all_here, copy = threading.Barrier(8), shutil.copyfileobj

    def counted(*arguments: object) -> None:
        copied.append(1)
        copy(*arguments)  # type: ignore[arg-type]

    def ask() -> None:
        all_here.wait()
        found.append(nearby(shared).read_bytes())

    monkeypatch.setattr(node_cache.shutil, "copyfileobj", counted)
    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(copied) == 1
    assert found == [shared.read_bytes()] * 8
    assert files_in(tmp_path / "node") == ["000000.npy"]


def test_what_a_killed_process_left_is_written_anew(shared: Path, tmp_path: Path) -> None:
    aside = tmp_path / "node" / "0123abcd" / "000000.npy.part"
    aside.parent.mkdir(parents=True)
    aside.write_bytes(b"half a sh")
    assert nearby(shared).read_bytes() == shared.read_bytes()
    assert files_in(tmp_path / "node") == ["000000.npy"]


def test_a_full_disk_leaves_shared_storage(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                           caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(node_cache, "SPARE_BYTES", 1 << 60)
    assert nearby(shared) == shared
    assert "No space left on device" in caplog.text
    assert not any(path.stat().st_size for path in (tmp_path / "node").rglob("*") if path.is_file())
    monkeypatch.setattr(node_cache, "SPARE_BYTES", 0)
    assert nearby(shared).read_bytes() == shared.read_bytes()
    assert files_in(tmp_path / "node") == ["000000.npy"]


def test_without_the_variable_nothing_is_copied(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(node_cache.VARIABLE)
    assert nearby(shared) == shared
    assert files_in(tmp_path / "node") == []
