"""The embedded source is trained once, however many first runs begin together."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from search.speech import embedded_study
from search.speech.embedded_study import PRETRAINING
from spaces.recipe import Recipe

pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).resolve().parents[1]

FIRST_RUN = """
    import sys, time
    from pathlib import Path
    from types import SimpleNamespace
    from search.speech import embedded_study as embedded
    from search.config import StudyConfig

    def pretrain(source, *_):
        with (source.parent / "trainings").open("a") as file:
            file.write("begun ")
            file.flush()
            time.sleep(1)
            file.write("ended ")
        source.write_bytes(b"model")

    embedded.write_synthetic = lambda *_: Path("english")
    embedded.join_corpora = embedded._context = lambda *_, **__: None
    embedded.prepare_features = lambda *_: SimpleNamespace(folder=Path("store"))
    embedded._pretrain = pretrain
    print("ready", flush=True)
    sys.stdin.readline()
    print(embedded.make_source(StudyConfig(cache=sys.argv[1])), flush=True)
"""


def test_key_of_the_source_is_that_of_the_studies_before() -> None:
    """A recipe has got fields since; a study on this source must be resumed, not refused as made of another."""
    assert embedded_study.source_key() == "c476f9eb1279809b1f772ed94616f4fe5da571332c9c293712772ba852531d78"
    values = PRETRAINING.flat()
    added = Recipe.from_flat({name: value for name, value in values.items() if name in embedded_study.FIELDS})
    assert added == PRETRAINING, "a field that is not at its default must be part of the key"


def test_two_first_runs_train_the_source_once(tmp_path: Path) -> None:
    runs = [subprocess.Popen([sys.executable, "-c", textwrap.dedent(FIRST_RUN), str(tmp_path)], cwd=ROOT, text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    for run in runs:
        assert run.stdout is not None and run.stdout.readline() == "ready\n"
    outputs = [(run.stdin.write("go\n"), run.stdin.flush()) for run in runs if run.stdin]  # both, before any ends
    assert len(outputs) == 2
    said = [run.communicate(timeout=60) for run in runs]
    [source] = {out.strip() for out, _ in said}
    assert Path(source).read_bytes() == b"model"
    assert (Path(source).parent / "trainings").read_text() == "begun ended "
    assert sum("another process trains it" in errors for _, errors in said) == 1
