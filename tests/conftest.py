"""Fixtures that several test files share."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from broken_server import Server, served

# Ray starts only where a test starts it: one that a stray call started would serve all later tests, in its environment.
os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"

# One thread: on a busy machine two wait for each other at every product.
torch.set_num_threads(1)

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real checkpoints and clips beside the project; tests skip aloud without it."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real speech at {SHARED_DATA}: this check did not run")
    return SHARED_DATA


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, also where the tests were started in the background and ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server of ours, which no proxy stands before."""
    monkeypatch.setenv("no_proxy", "*")
    with served() as running:
        yield running


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """One Ray for the module; the commands use a connection that they find."""
    import ray

    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before
