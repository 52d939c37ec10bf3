"""The documents' commands do what they say: as they stand, on real speech, only with less of it to train on."""

import json
import re
import runpy
import shlex
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import ray
import soundfile
from optuna.trial import FixedTrial

from corpora.audio import decode
from corpora.text import normalise
from search.command_line.arguments import parse_command_line
from search.command_line.training_arguments import parse_training
from search.config import StudyConfig
from search.training_config import TrainingConfig
from search.trials.wandb_run import end_service
from spaces import spanish

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
DOCUMENTS = [README, ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
WITHOUT_COMMANDS = {"CONTRIBUTING.md", "docs/exporting.md", "docs/python.md"}
"""Documents that name no command line of ours; those of docs/decisions/ need none either."""
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SCRIPT = re.compile(r"python search/(?:run|train)\.py(?: [^'\n|&#`]*)?")

FEWER = {"trials": 4, "max_epochs": 1, "confirm": 1, "seeds": 1, "ablation": False, "concurrency": 2,
         "allow_overlap": True}
"""What shortens a study to a minute."""
LESS = " ".join(("--" if value else "--no-") + name.replace("_", "-") + ("" if type(value) is bool else f" {value}")
                for name, value in FEWER.items())

OF_OTHERS = {"--all-extras", "--chown", "--follow", "--include-dashboard", "--include-online", "--no-cache-dir",
             "--no-wait", "--python-version", "--runtime-env-json", "--submission-id", "--tmux", "--universal",
             "--upgrade", "--upgrade-package", "--working-dir"}
"""Flags of Docker, Ray, pip, uv and W&B that the documents name."""

ONLY_SOMETIMES = {"warm_start.json", "packing.json", "dashboards.json"}
"""What a run leaves by `--warm-start`, by `--concurrency auto` and by `--wandb online`."""


def blocks(path: Path, kind: str) -> list[str]:
    """The fenced blocks of a document, by their language."""
    found = BLOCK.findall(path.read_text(encoding="utf-8"))
    return [text for language, text in found if language == kind]


def block_of(name: str, kind: str, *parts: str) -> str:
    """A document's one block of that language which holds all parts."""
    [block] = [text for text in blocks(ROOT / name, kind) if all(part in text for part in parts)]
    return block


def language_file() -> str:
    """The language file that the documents show whole."""
    return block_of("docs/languages.md", "yaml", "code:")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_scripts_take_every_command_line_of_the_documents(path: Path, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gl.yaml").write_text(language_file(), encoding="utf-8")
    [known, *_] = spanish.baseline(max_epochs=9, has_source=True).values()
    recipe = replace(spanish.sample(FixedTrial(known), max_epochs=9, has_source=True),
                     study={"corpus": ["es.tar.gz"], "source": "en.nemo"})
    scripts = re.findall(r"python (search/\w+\.py)", path.read_text(encoding="utf-8"))
    assert all((ROOT / script).is_file() for script in scripts)
    lines = [line for line in SCRIPT.findall(path.read_text(encoding="utf-8").replace("\\\n", " "))
             if "--help" not in line]
    for line in lines:
        _, script, *words = shlex.split(line.replace("/mnt/", "mnt/"))
        for flag, after in pairwise([script, *words]):
            folder = Path(after) if flag == "--resume" else Path(after).parent
            if flag == "--resume" or after.endswith("recipe.yaml"):
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "config.yaml").write_text("version: 1\n")
                recipe.save(folder / "recipe.yaml")
        assert parse_command_line("", words) if script == "search/run.py" else parse_training(words)
    assert scripts or path.relative_to(ROOT).as_posix() in WITHOUT_COMMANDS or path.parent.name == "decisions"


@pytest.mark.timeout(30)
def test_scripts_take_every_flag_of_the_readmes_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text("trials: 5\n")
    (tmp_path / "gl.yaml").write_text(language_file(), encoding="utf-8")
    (tmp_path / "runs/NAME").mkdir(parents=True)
    (tmp_path / "runs/NAME/config.yaml").write_text("version: 1\n")
    rows = re.findall(r"^\|[^|]*\| (`--.*) \|$", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) > 10
    for flags in [flags for row in rows for flags in re.findall("`(--[^`]*)`", row)]:
        needed = [] if "--resume" in flags else ["--corpus", "es.tar.gz"]
        needed += [] if {"--resume", "--source"} & set(flags.split()) else ["--source", "none"]
        assert parse_command_line("", [*needed, *shlex.split(flags)])


@pytest.mark.timeout(30)
def test_documents_name_no_flag_that_does_not_exist() -> None:
    known = {f"--{f.name.replace('_', '-')}" for kind in (StudyConfig, TrainingConfig) for f in fields(kind)}
    known |= {"--config", "--resume", "--check", "--look-again", "--help", "--json", "--names", "--no-names",
              "--no-ablation", "--no-data-scaling"} | OF_OTHERS
    named = {flag for path in DOCUMENTS for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", path.read_text("utf-8"))}
    assert len(named) > 30 and named - known == set()


@pytest.mark.timeout(30)
def test_language_file_of_the_documents_is_one(tmp_path: Path) -> None:
    (tmp_path / "gl.yaml").write_text(language_file(), encoding="utf-8")
    galician = StudyConfig(corpus="a", source="none", language=str(tmp_path / "gl.yaml")).spoken
    assert (galician.code, galician.has_apostrophe) == ("gl", False) and "ñ" in galician.letters
    numbers = block_of("docs/languages.md", "yaml", "num2words:")
    (tmp_path / "de.yaml").write_text("code: de\nletters: abcdefghijklmnopqrstuvwxyzäöüß\n" + numbers, encoding="utf-8")
    german = StudyConfig(corpus="a", source="none", language=str(tmp_path / "de.yaml")).spoken
    assert normalise("3,5 Meter", german) == "drei komma fünf meter"


@pytest.fixture(scope="module")
def place(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the files that the documents name, and a Ray that all their commands share."""
    folder = tmp_path_factory.mktemp("readme")
    release = shared_data / "cv-corpus-6.1-2020-12-11-es.tar.gz"
    named = " ".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    [corpus] = set(re.findall(r"cv-corpus-25[\w.-]*tar\.gz", named))
    (folder / corpus).symlink_to(release)
    (folder / "quartznet15x5_en.nemo").symlink_to(shared_data / "quartznet15x5_en.nemo")
    (folder / "folder").mkdir()
    with tarfile.open(release) as tar:
        clips = [member for member in tar if member.name.endswith(".mp3")][:4]
        names = ("clip.mp3", "folder/a.mp3", "folder/b.mp3", "listed.mp3")
        for name, member in zip(names, clips, strict=True):
            (folder / name).write_bytes(tar.extractfile(member).read())  # type: ignore[union-attr]
    soundfile.write(folder / "clip.wav", decode(folder / "clip.mp3"), 16_000)
    (folder / "list.txt").write_text("listed.mp3\n")
    row = {"audio_filepath": "clip.mp3", "duration": 3.0, "text": "no lo sé"}
    (folder / "clips.jsonl").write_text(json.dumps(row), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("CUARZO_CACHE", str(folder / "cache"))
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
        yield folder
        ray.shutdown()
        end_service()  # W&B's own process, whose address other tests' children would inherit


def run_script(command: str) -> None:
    """A command line of one of our scripts, in this process."""
    python, script, *words = shlex.split(command.replace("\\\n", " "), comments=True)
    assert python == "python"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script, *words])
        patch.setattr(sys, "path", [*sys.path])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        assert ended.value.code == 0, command


def run_python(code: str) -> None:
    """A block of Python, as a module of its own."""
    exec(compile(code, "a document", "exec"), {"__name__": "document"})


@pytest.mark.parametrize(("rate_hz", "num_channels"), [(16_000, 1), (48_000, 2), (8_000, 1)])
def test_onnx_block_hears_a_clip_of_any_rate_at_16_khz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate_hz: int,
                                                       num_channels: int, capsys: pytest.CaptureFixture[str]) -> None:
    import onnxruntime

    given: list[np.ndarray] = []

    class Session:
        """Hears "ab" in everything, and keeps what it was given."""

        def get_modelmeta(self) -> SimpleNamespace:
            return SimpleNamespace(custom_metadata_map={"labels": '["a", "b"]', "blank": "2"})

        def run(self, names: None, inputs: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
            given.append(inputs["waveforms"])
            assert inputs["lengths"].tolist() == [inputs["waveforms"].shape[1]]
            return np.eye(3)[[[0, 0, 2, 1]]], np.array([4])

    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda path: Session())
    monkeypatch.chdir(tmp_path)
    tone = np.sin(2 * np.pi * 440 * np.arange(rate_hz) / rate_hz)
    soundfile.write("clip.wav", np.stack([tone] * num_channels, 1), rate_hz)
    run_python(block_of("docs/exporting.md", "python", "InferenceSession"))
    assert capsys.readouterr().out == "ab\n" and given[0].dtype == np.float32
    expected = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert given[0].shape == (1, 16_000) and np.abs(given[0][0] - expected)[500:-500].max() < 0.01


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_study_and_all_that_the_documents_do_with_it(place: Path, monkeypatch: pytest.MonkeyPatch,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(place)
    run_script(block_of("README.md", "bash", "--source quartznet15x5_en.nemo", "python search/run.py --corpus")
               .rstrip() + " --out runs/NAME " + LESS)
    assert "winner: trial" in capsys.readouterr().out
    study = block_of("docs/python.md", "python", "run_study(")
    recognizer = block_of("docs/transcribing.md", "python", "Recognizer.load")
    onnx = block_of("docs/exporting.md", "python", "InferenceSession")
    [space], [near] = (blocks(DOCS / page, "python") for page in ("tutorial.md", "searching.md"))
    # tests/test_search_speech_search_space.py runs these two
    shown = [block for path in DOCUMENTS for block in blocks(path, "python")]
    assert sorted(shown) == sorted([study, recognizer, onnx, space, near]), "a block that does not run here"
    run_python(study.replace("StudyConfig(", f"StudyConfig(out='runs/OTHER', **{FEWER}, "))
    assert str(place / "runs/OTHER") in capsys.readouterr().out
    missing = {name for name in left_behind() if not list((place / "runs/NAME").glob(name))}
    assert missing and missing <= ONLY_SOMETIMES and len(left_behind()) > 20

    transcribe, report, compare = block_of("docs/run-folder.md", "bash", "search/compare.py").strip().splitlines()
    run_script(transcribe)
    assert len(capsys.readouterr().out.splitlines()) == 4
    run_script(report)
    assert "runs/NAME/report.html" in capsys.readouterr().out
    run_script(compare)
    assert capsys.readouterr().out.count("NAME") >= 1
    one, several = block_of("docs/transcribing.md", "bash", "transcribe.py").strip().splitlines()
    run_script(one)
    assert len(capsys.readouterr().out.splitlines()) == 1
    run_script(several)
    assert [json.loads(line)["path"] for line in capsys.readouterr().out.splitlines()][-1] == "listed.mp3"
    run_script("python search/transcribe.py runs/NAME/best/model.nemo clip.mp3 --json")
    heard = json.loads(capsys.readouterr().out)
    assert set(heard) == set(json.loads(block_of("docs/transcribing.md", "json", "confidence").replace(", …", "")))

    run_python(onnx)
    assert capsys.readouterr().out.strip() == heard["text"].strip()
    run_python(recognizer)
    assert float(capsys.readouterr().out) > 0
    run_script(block_of("docs/production.md", "bash", "search/train.py") + " --epochs 1 --allow-overlap")
    assert (place / "runs/production/best/card.md").exists()


def left_behind() -> list[str]:
    """The names in the list of what a run leaves."""
    listed = re.findall(r"^\| `(\S+)` \|", (DOCS / "run-folder.md").read_text(encoding="utf-8"), re.MULTILINE)
    return [name.replace("…", "*").rstrip("/") for name in listed]
