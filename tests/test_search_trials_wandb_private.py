"""What is used of W&B beside its documentation, and what broke where W&B moves a part."""

import os
from pathlib import Path

import pytest
import wandb
import wandb_workspaces.workspaces as workspaces

from search.environment import WANDB_SERVICE
from search.trials.wandb_private import drop_link, services, view_of, write_over
from search.trials.wandb_run import end_service

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize("view", [["nw-abc-v", "id of a view"], ["", ""]])
def test_saved_workspace_is_known_by_name_and_id(view: list[str]) -> None:
    workspace = workspaces.Workspace(entity="me", project="cuarzo", name="study")
    assert view_of(workspace) == ["", ""], "a workspace is called in another way: each resume would save a new one"
    write_over(workspace, view)
    assert view_of(workspace) == view
    sent = workspace._to_model()
    assert [sent.name, sent.id] == view, "`save` sends another name than that of the workspace to write over"


def test_process_of_a_run_is_found_and_its_link_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WANDB_SERVICE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache" / "wandb"))
    run = wandb.init(mode="offline", dir=str(tmp_path), settings=wandb.Settings(silent=True))
    try:
        assert len(list(services())) == 1, "W&B's own process has another name: one that hangs would stay"
        assert WANDB_SERVICE in os.environ, "children of this process would be told of its service in another way"
        link = Path(run.settings.log_user).with_name("debug-core.log")
        assert link.is_symlink(), "W&B leaves its link elsewhere: it would dangle in the run's folder"
        drop_link(run)
        assert not link.is_symlink()
    finally:
        run.finish()
        end_service()
    assert list(services()) == []
