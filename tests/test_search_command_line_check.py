"""`--check` asks for a corpus before anything is started; what it finds in one is tested with the study's inputs."""

from pathlib import Path

import pytest

from search import cluster
from search.command_line.check import check
from search.config import ConfigError, StudyConfig

pytestmark = pytest.mark.timeout(60)


def test_embedded_default_has_nothing_to_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "connected", lambda: pytest.fail("Ray was started"))
    with pytest.raises(ConfigError, match="corpus is not set; --check looks at a corpus. Name one with --corpus."):
        check(StudyConfig(cache=str(tmp_path / "cache"), out=str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()
