"""A run leaves no link that dangles: `ray up` and rsync stop at one."""

import os
from pathlib import Path

import pytest

from search.config import StudyConfig
from search.records.run_folder import RunFolder

pytestmark = pytest.mark.timeout(60)


def links(folder: Path) -> dict[str, str]:
    """All links below a folder, and where they lead."""
    return {str(path.relative_to(folder)): os.readlink(path) for path in folder.rglob("*") if path.is_symlink()}


@pytest.mark.parametrize("when", ["before", "within"])
def test_run_leaves_no_link_that_dangles_or_will(tmp_path: Path, when: str) -> None:
    """W&B makes them; the ones of a run that was killed are gone after the next start, those of a run after its end."""
    run = RunFolder.open(StudyConfig(out=str(tmp_path / "run"), trials=1), resume=False)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "core-debug.log").write_text("of W&B's own")
    (tmp_path / "elsewhere" / "mine.txt").write_text("of a person")
    made = {"wandb/run-1/logs/debug-core.log": str(tmp_path / "elsewhere" / "core-debug.log"),
            "wandb/run-1/logs/gone.log": str(tmp_path / "nowhere"), "wandb/latest-run": "run-1",
            "wandb/circle": "circle", "trials/0000/deep/gone": "../nowhere", "gone": "nowhere",
            "mine.txt": str(tmp_path / "elsewhere" / "mine.txt"), "best": str(tmp_path / "not-mounted")}

    def make() -> None:
        for name, target in made.items():
            (run.path / name).parent.mkdir(parents=True, exist_ok=True)
            (run.path / name).symlink_to(target)

    if when == "before":
        make()
    with run.locked():
        if when == "within":
            make()
        else:
            assert "wandb/run-1/logs/gone.log" not in links(run.path)
    kept = ("wandb/latest-run", "mine.txt", "best")  # the last: its disk may only not be mounted now
    assert links(run.path) == {name: made[name] for name in kept}


def test_links_of_a_folder_that_a_person_put_elsewhere_are_looked_at_too(tmp_path: Path) -> None:
    run = RunFolder.open(StudyConfig(out=str(tmp_path / "run"), trials=1), resume=False)
    scratch = tmp_path / "scratch"
    (scratch / "run-1").mkdir(parents=True)
    (scratch / "latest-run").symlink_to("run-1")
    (scratch / "debug.log").symlink_to(tmp_path / "nowhere")
    run.path.mkdir()
    (run.path / "wandb").symlink_to(scratch)
    with run.locked():
        pass
    assert links(scratch) == {"latest-run": "run-1"} and (run.path / "wandb").is_symlink()
