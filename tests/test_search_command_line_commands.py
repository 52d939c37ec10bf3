"""Bad input: one clear line and the right exit code; a bad clip is a counted, named row and no stop."""

import json
import re
import subprocess
import sys
import tarfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from noise_release import NO_ENDS, RELEASE, SENTENCE, pack, release, sound

from models.frontend import FrontendConfig
from models.nemo import write_nemo
from models.quartznet import AcousticModel, named_network
from models.vocabulary import CharacterVocabulary
from search.command_line import commands

pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).resolve().parents[1]
LETTERS = CharacterVocabulary(tuple(" abcdefghijklmnopqrstuvwxyz'"))


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def manifest(path: Path, *lines: str) -> Path:
    """A manifest with these lines after one that is as it should be."""
    good = json.dumps({"audio_filepath": "a.wav", "duration": 0.5, "text": SENTENCE})
    return write(path, "\n".join([good, *lines]).encode())


def cut(path: Path, share: float) -> Path:
    return write(path, path.read_bytes()[: int(path.stat().st_size * share)])


def nemo(path: Path, change: Callable[[dict[str, Any]], Any] | None = None) -> Path:
    """A .nemo of the narrow network, its configuration changed."""
    network = named_network("narrow")
    write_nemo(path, FrontendConfig(), network, LETTERS, AcousticModel(network, LETTERS.size + 1).state_dict())
    if change is not None:
        with tarfile.open(path) as archive:
            held = {member.name: archive.extractfile(member) for member in archive}
            members = {name: content.read() for name, content in held.items() if content is not None}
        config = yaml.safe_load(members["./model_config.yaml"])
        change(config)
        pack(path, members | {"./model_config.yaml": yaml.safe_dump(config).encode()})
    return path


def one_error(capsys: pytest.CaptureFixture[str], code: int) -> str:
    """The error of a command that failed: code 1, one line, no traceback."""
    printed = capsys.readouterr()
    assert code == commands.FAILED == 1
    assert printed.err.startswith("error: ") and printed.err.endswith("\n") and printed.err.count("\n") == 1, printed
    assert "Traceback" not in printed.out + printed.err and "ray::" not in printed.err
    return printed.err


def study_arguments(tmp_path: Path, corpus: Path, source: str | Path = "none") -> list[str]:
    return ["--corpus", str(corpus), "--source", str(source), "--space", "synthetic", "--wandb", "off", "--trials", "1",
            "--max-epochs", "1", "--out", str(tmp_path / "run"), "--cache", str(tmp_path / "cache")]


# --- corpora that stop a study ---------------------------------------------------------------------------------------

BAD_CORPORA: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "missing": ("no-such.tar.gz", lambda path: None, "there is no such file or folder. Give the path of"),
    "of_no_known_kind": ("clip.wav", lambda path: write(path, sound(0)), "which is not a corpus. Give"),
    "empty_folder": ("folder", lambda path: path.mkdir(), "holds neither train.tsv nor train-*/ nor a manifest. Give"),
    "tarball_of_zero_bytes": ("es.tar.gz", lambda path: write(path, b""), "is empty (0 bytes).*Download it again"),
    "tarball_of_garbage": ("es.tar.gz", lambda path: write(path, b"<html>not found</html>" * 99),
                           "is not a tarball.*Give"),
    "tarball_cut_in_the_tables": ("es.tar.gz", lambda path: cut(pack(path, release()), 0.001),
                                  "cut off.*Download it again"),
    "tarball_cut_in_the_clips": ("es.tar.gz", lambda path: cut(pack(path, release()), 0.7),
                                 "damaged or cut off.*Download it again"),
    "tar_cut_in_the_clips": ("es.tar", lambda path: cut(pack(path, release()), 0.7), "cut off"),
    "tarball_of_something_else": ("es.tar.gz", lambda path: pack(path, {"photos/cat.jpg": b"meow"}),
                                  "holds 1 files, the first 'photos/cat.jpg', but no train.tsv.*Give such a tarball"),
    "table_without_sentence": ("es.tar.gz", lambda path: pack(path, release(header="client_id\tpath\ttext")),
                               "train.tsv: has no column `sentence`; its first line is 'client_id, path, text'.*Fix"),
    "table_without_path": ("es.tar.gz", lambda path: pack(path, release(header="client_id\tfile\tsentence")),
                           "train.tsv: has no column `path`;.*Fix"),
    "empty_table": ("es.tar.gz", lambda path: pack(path, release() | {f"{RELEASE}/dev.tsv": b""}),
                    "dev.tsv: is empty (0 bytes).*Download the release again"),
    "manifest_line_that_is_no_json": ("es.jsonl", lambda path: manifest(path, "{'audio': 1}"),
                                      ":2: .* is not JSON.*fix or drop the line"),
    "manifest_line_without_text": ("es.jsonl", lambda path: manifest(path, '{"audio_filepath": "b.wav"}'),
                                   ":2: has audio_filepath, but no `text`. Add"),
    "manifest_of_nothing": ("es.jsonl", lambda path: write(path, b""), "holds 0 utterances.*Write"),
    "no_character_of_the_alphabet": ("es.tar.gz", lambda path: pack(path, release("¿…? ¡—!", ends=NO_ENDS)),
                                     "0 usable clips in train; a study needs at least 8.*16 no_text"),
    "letters_of_another_script": ("es.tar.gz", lambda path: pack(path, release("включи свет")),
                                  "0 usable clips in train; a study needs at least 8.*16 foreign_letters"),
    "every_clip_garbage": ("es.tar.gz", lambda path: pack(path, {
        name: content if name.endswith(".tsv") else b"garbage" for name, content in release().items()}),
        "0 usable clips in train.*16 undecodable"),
}


@pytest.mark.parametrize("case", BAD_CORPORA)
def test_bad_corpus_stops_the_study_in_one_line_that_names_it(
        local_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    name, make, message = BAD_CORPORA[case]
    make(tmp_path / name)
    error = one_error(capsys, commands.run(study_arguments(tmp_path, tmp_path / name)))
    pattern = re.escape(message).replace(r"\.\*", ".*")
    assert re.search(pattern, error), error
    assert str(tmp_path / name) in error
    assert not (tmp_path / "run" / "study.db").exists()


def test_mended_corpus_can_be_tried_again_in_the_same_folder(
        local_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = tmp_path / "es.jsonl"
    assert "no such file" in one_error(capsys, commands.run(study_arguments(tmp_path, corpus)))
    manifest(corpus, "oops")
    assert "is not JSON" in one_error(capsys, commands.run(study_arguments(tmp_path, corpus)))


# --- sources ---------------------------------------------------------------------------------------------------------

BAD_SOURCES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda path: None, "there is no such file. Name a .nemo file."),
    "zero_bytes": (lambda path: write(path, b""), "not a .nemo file"),
    "garbage": (lambda path: write(path, b"PK" + bytes(range(256)) * 40), "not a .nemo file"),
    "truncated": (lambda path: cut(nemo(path), 0.5), "truncated.* Download it again."),
    "tar_of_something_else": (lambda path: pack(path, {"photos/cat.jpg": b"meow"}), "has no model_config.yaml"),
    "another_model": (lambda path: nemo(path, lambda config: config["encoder"].update(
        _target_="nemo.collections.asr.modules.ConformerEncoder")), "it must be NeMo's ConvASREncoder"),
    "weights_of_another_width": (lambda path: nemo(path, lambda config: config["encoder"]["jasper"][0].update(
        filters=192)), "the shape of .* the network and 28 labels need"),
    "weights_for_fewer_labels": (lambda path: nemo(path, lambda config: config["decoder"].update(
        vocabulary=list(" abcñ"))), "the shape of decoder.weight is .* the network and 5 labels need"),
    "weights_for_fewer_blocks": (lambda path: nemo(path, lambda config: config["encoder"]["jasper"].append(
        dict(config["encoder"]["jasper"][-1]))), "its weights do not fit its model_config.yaml: .* missing"),
}


@pytest.mark.parametrize("case", BAD_SOURCES)
def test_bad_source_stops_the_study_before_any_feature_is_made(
        local_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    make, message = BAD_SOURCES[case]
    make(tmp_path / "en.nemo")
    corpus = pack(tmp_path / "es.tar.gz", release())
    error = one_error(capsys, commands.run(study_arguments(tmp_path, corpus, tmp_path / "en.nemo")))
    assert error.startswith(f"error: {tmp_path / 'en.nemo'}: ") and re.search(message, error), error
    assert not (tmp_path / "cache").exists()


def test_ctrl_c_while_libraries_are_loaded_is_one_line(
        monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Loading(types.ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise KeyboardInterrupt if name == "TrainingError" else AttributeError(name)

    monkeypatch.setitem(sys.modules, "search.training", Loading("search.training"))
    try:
        assert commands.report([str(tmp_path)]) == commands.INTERRUPTED
    except KeyboardInterrupt:
        pytest.fail("it went through, which would end the tests")
    said = capsys.readouterr().err
    assert said.startswith("interrupted; ") and said.count("\n") == 1


# --- the rest of a study ---------------------------------------------------------------------------------------------


def test_folder_of_another_study_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("version: 1\ntrials: 5\n")
    (tmp_path / "run" / "study.db").write_bytes(b"what was found")
    corpus = pack(tmp_path / "es.tar.gz", release())
    error = one_error(capsys, commands.run(study_arguments(tmp_path, corpus)))
    assert f"{tmp_path / 'run'}: this folder already holds a study." in error and "--resume" in error
    assert (tmp_path / "run" / "config.yaml").read_text() == "version: 1\ntrials: 5\n"
    assert (tmp_path / "run" / "study.db").read_bytes() == b"what was found"


def test_resume_of_a_folder_without_a_study_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = one_error(capsys, commands.run(["--resume", str(tmp_path / "nothing")]))
    assert f"{tmp_path / 'nothing'}: there is no study to resume here" in error


@pytest.mark.parametrize(("content", "message"), [
    ("version: 2\nnovelty: 3\n", "the study is of version 2; this Cuarzo reads version 1. Continue with the Cuarzo"),
    ("trials: 3\n", "the study is of version None"),
    ("version: 1\nnovelty: 3\n", "config.yaml: novelty: there is no such field. Restore the file"),
    ("version: 1\nbudget: 0h\n", "config.yaml: budget is '0h'; it must be a time above 0"),
    ("version: 1\ntrials: [\n", "config.yaml: not a readable YAML study configuration (line 3: "),
    ("", "config.yaml: a study configuration is a YAML mapping; this is empty. Restore the file"),
])
def test_resume_of_a_configuration_that_cannot_be_read_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                                             content: str, message: str) -> None:
    (tmp_path / "config.yaml").write_text(content)
    error = one_error(capsys, commands.run(["--resume", str(tmp_path), "--trials", "50"]))
    assert error.startswith(f"error: {tmp_path}") and message in error and "--out" in error
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"config.yaml": content}


def test_resume_with_a_changed_corpus_or_a_damaged_database_touches_nothing(
        local_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = pack(tmp_path / "es.tar.gz", release(SENTENCE * 3))  # its search begins, and finds no feasible recipe
    one_error(capsys, commands.run(study_arguments(tmp_path, corpus)))
    run = tmp_path / "run"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    pack(corpus, release(SENTENCE))
    error = one_error(capsys, commands.run(["--resume", str(run), "--trials", "50"]))
    assert f"{run}: corpus {corpus} has changed in content" in error and "--out" in error
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    cut(run / "study.db", 0.5)
    for command in (["--resume", str(run)], [str(run)]):
        script = commands.run if len(command) == 2 else commands.report
        assert f"{run / 'study.db'}: is not a study's database, or is damaged" in one_error(capsys, script(command))


def test_full_disk_in_a_ray_task_is_one_line(local_ray: None, capsys: pytest.CaptureFixture[str]) -> None:
    @ray.remote
    def write() -> None:
        try:
            Path("/dev/full").write_text("frames")
        except OSError as error:
            raise ValueError("a shard") from error

    error = one_error(capsys, commands._script()(lambda _: ray.get(write.remote()))())
    assert "the disk is full. Make room" in error


def test_unknown_space_names_the_known_ones(local_ray: None, tmp_path: Path,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    arguments = study_arguments(tmp_path, pack(tmp_path / "es.tar.gz", release()))
    error = one_error(capsys, commands.run([*arguments, "--space", "spanich"]))
    assert "space is 'spanich'; it must be one of spanish, synthetic" in error
    assert not (tmp_path / "cache").exists()


def test_trial_that_the_cluster_cannot_hold_is_refused(local_ray: None, tmp_path: Path,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    arguments = study_arguments(tmp_path, pack(tmp_path / "es.tar.gz", release()))
    error = one_error(capsys, commands.run([*arguments, "--cpus-per-worker", "512"]))
    assert "1 worker of one training wants 512 CPUs and 0 GPUs; the cluster has 2 and 0. Use fewer workers, " in error


def test_cache_that_cannot_be_written_is_named(local_ray: None, tmp_path: Path,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    arguments = study_arguments(tmp_path, pack(tmp_path / "es.tar.gz", release()))
    (tmp_path / "cache").write_text("in the way")
    error = one_error(capsys, commands.run(arguments))
    assert error.startswith(f"error: {tmp_path / 'cache'}: cannot be written") and "with --cache" in error
    assert not (tmp_path / "run").exists()


def test_speech_too_fast_for_every_recipe_fails_before_any_trial(local_ray: None, tmp_path: Path,
                                                                 capsys: pytest.CaptureFixture[str]) -> None:
    arguments = study_arguments(tmp_path, pack(tmp_path / "es.tar.gz", release(SENTENCE * 3)))
    error = one_error(capsys, commands.run(arguments))
    assert "recipes in a row cannot be trained; the last: " in error and "Choose another space" in error
    assert not (tmp_path / "run" / "best").exists()


@pytest.mark.parametrize("arguments", [["--trails", "3"], ["--trials", "0"], ["--corpus", "es.tar.gz"]])
def test_wrong_usage_exits_with_code_2(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        commands.run(arguments)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_script_fails_with_one_line_on_standard_error_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "en.nemo", b"not a model")
    write(tmp_path / "es.tar.gz", b"not looked into yet")
    done = subprocess.run(
        [sys.executable, "search/run.py", "--check", "--corpus", str(tmp_path / "es.tar.gz"), "--source",
         str(tmp_path / "en.nemo")],
        cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {tmp_path / 'en.nemo'}: not a .nemo file")
    assert done.stderr.count("\n") == 1


# --- a sentence of test in train -----------------------------------------------------------------------------------


def test_study_refuses_a_sentence_of_test_in_train_before_any_trial(
        local_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = pack(tmp_path / "es.tar.gz", release(ends=NO_ENDS))
    error = one_error(capsys, commands.run(study_arguments(tmp_path, corpus)))
    assert "of test are in train too" in error and str(tmp_path / "run" / "corpus_report.json") in error
    assert not (tmp_path / "run" / "trials").exists() and not (tmp_path / "run" / "study.db").exists()
    report = json.loads((tmp_path / "run" / "corpus_report.json").read_text())
    assert [pair["splits"] for pair in report["overlap"]["pairs"]] == [["train", "dev"], ["train", "test"],
                                                                       ["dev", "test"]]


# --- the other commands ----------------------------------------------------------------------------------------------


def test_report_of_a_folder_without_a_study_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = one_error(capsys, commands.report([str(tmp_path)]))
    assert f"{tmp_path}: there is no study here (study.db is missing)" in error
