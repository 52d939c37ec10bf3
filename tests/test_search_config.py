"""A study's configuration: the same fields from Python, a file and the command line, all checked at the door."""

import contextlib
import copy
import dataclasses
import math
import pickle
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
import yaml

from corpora.languages import Language
from search.command_line.arguments import parse_command_line
from search.config import ConfigError, StudyConfig, load_config
from search.records.fingerprints import Identity
from search.records.run_folder import RunFolder
from search.training_config import TrainingConfig
from spaces.recipe import (
    OptimizerRecipe,
    Recipe,
    RecipeError,
    ScheduleRecipe,
    TrainingRecipe,
    TransferRecipe,
    VocabularyRecipe,
)

pytestmark = pytest.mark.timeout(30)

ROOT = Path(__file__).resolve().parents[1]

EVERY_FIELD: dict[str, tuple[list[str], Any]] = {
    "corpus": (["a.tar.gz", "b.jsonl"], ("a.tar.gz", "b.jsonl")),
    "train": (["t.jsonl"], ("t.jsonl",)),
    "dev": (["d.jsonl"], ("d.jsonl",)),
    "test": (["e.jsonl", "f.jsonl"], ("e.jsonl", "f.jsonl")),
    "language": (["en"], "en"),
    "source": (["none"], "none"),
    "space": (["synthetic"], "synthetic"),
    "trials": (["7"], 7),
    "max_epochs": (["3"], 3),
    "budget": (["8h"], "8h"),
    "budget_gpu_h": (["40"], 40.0),
    "cost_per_hour": (["2.5"], 2.5),
    "budget_cost": (["100"], 100.0),
    "objective": (["cer"], "cer"),
    "confirm": (["1"], 1),
    "seeds": (["4"], 4),
    "seed": (["11"], 11),
    "warm_start": (["runs/a", "runs/b"], ("runs/a", "runs/b")),
    "workers_per_trial": (["2"], 2),
    "cpus_per_worker": (["0.5"], 0.5),
    "gpus_per_worker": (["0.25"], 0.25),
    "trial_timeout": (["10m"], "10m"),
    "concurrency": (["3"], 3),
    "grace_epochs": (["1"], 1),
    "reduction_factor": (["4"], 4),
    "precision": (["bf16"], "bf16"),
    "max_audio_s_per_pass": (["60"], 60.0),
    "min_duration_s": (["1"], 1.0),
    "max_duration_s": (["15.5"], 15.5),
    "max_infeasible_share": (["0.2"], 0.2),
    "allow_overlap": (["--allow-overlap"], True),
    "ablation": (["--no-ablation"], False),
    "data_scaling": (["--data-scaling"], True),
    "wandb": (["off"], "off"),
    "out": (["runs/a"], "runs/a"),
    "cache": (["/tmp/cache"], "/tmp/cache"),
}


def parse(*arguments: str) -> StudyConfig:
    return parse_command_line("A study.", list(arguments))[0]


def usage_error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on standard error of a command line that is refused with exit code 2."""
    with pytest.raises(SystemExit) as stopped:
        parse(*arguments)
    printed = capsys.readouterr()
    assert stopped.value.code == 2 and printed.out == ""
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1, printed.err
    return printed.err


def test_corpora_are_named_once_and_keep_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    config = parse("--corpus", "a", "b", "--test", "t", "--train", "c", "--source", "none")
    assert (config.corpora, config.given_splits) == (("a", "b", "c", "t"), ("", "", "train", "test"))
    assert parse("--train", "c", "--dev", "d", "--source", "none").resolved().space == "spanish"
    assert "t: is named twice" in usage_error(capsys, "--corpus", "t", "--test", "t", "--source", "none")


def test_every_field_has_a_flag_that_sets_it() -> None:
    assert list(EVERY_FIELD) == [f.name for f in dataclasses.fields(StudyConfig)]
    arguments: list[str] = []
    for name, (values, _) in EVERY_FIELD.items():
        arguments += values if values[0].startswith("--") else ["--" + name.replace("_", "-"), *values]
    assert dataclasses.asdict(parse(*arguments)) == {name: value for name, (_, value) in EVERY_FIELD.items()}
    defaults = dataclasses.asdict(StudyConfig())
    assert not [name for name, (_, value) in EVERY_FIELD.items() if defaults[name] == value], "sets its default"


def test_no_flag_is_the_embedded_default() -> None:
    assert parse_command_line("A study.", []) == (StudyConfig(), False, False, False)
    resolved = StudyConfig().resolved()
    assert (resolved.space, resolved.trials, resolved.max_epochs, resolved.objective) == ("synthetic", 8, 6, "wer")
    real = StudyConfig(corpus=("a",), source="none", trials=5).resolved()
    assert (real.space, real.trials, real.max_epochs) == ("spanish", 5, 30)
    thai = StudyConfig(corpus=("a",), source="none", language=Language(code="th", letters="กขค", has_spaces=False))
    assert [c.resolved().objective for c in (thai, dataclasses.replace(thai, objective="wer"))] == ["cer", "wer"]


def test_resolved_study_has_no_default_left_open() -> None:
    resolved = StudyConfig(trials=5, seed=3).resolved()
    hints = get_type_hints(type(resolved))
    assert [hints[name] for name in ("space", "trials", "max_epochs", "grace_epochs")] == [str, int, int, int]
    assert resolved.resolved() == resolved and (resolved.trials, resolved.seed) == (5, 3)
    with pytest.raises(ConfigError, match="^trials is None; it must be a whole number.$"):
        dataclasses.replace(resolved, trials=None)  # type: ignore[arg-type]


def test_parts_of_the_speech_are_trained_as_the_ablation_is_unless_it_is_said() -> None:
    assert StudyConfig().resolved().data_scaling and not StudyConfig(ablation=False).resolved().data_scaling
    assert StudyConfig(ablation=False, data_scaling=True).resolved().data_scaling
    assert not StudyConfig(data_scaling=False).resolved().data_scaling


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump({"trials": 50, "seeds": 3, "budget": "2h", "corpus": ["a"], "source": "none"}))
    config = parse("--config", str(file), "--trials", "4")
    assert (config.trials, config.seeds, config.budget, config.confirm) == (4, 3, "2h", 2)
    assert config.corpus == ("a",)


def test_flag_can_turn_off_what_the_file_turns_on(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("ablation: true\nseed: 5\n")
    config = parse("--config", str(tmp_path / "study.yaml"), "--no-ablation", "--seed", "0")
    assert (config.ablation, config.seed) == (False, 0)


def test_check_and_resume_are_told_apart_from_a_new_study(tmp_path: Path) -> None:
    assert parse_command_line("A study.", ["--check", "--corpus", "a", "--source", "none"])[1:] == (False, True, False)
    (tmp_path / "config.yaml").write_text("version: 1\n")
    config, *asked = parse_command_line("A study.", ["--resume", str(tmp_path)])
    assert asked == [True, False, False] and config.out == str(tmp_path)
    assert parse_command_line("A study.", ["--resume", str(tmp_path), "--look-again"])[1:] == (True, False, True)


def test_resume_starts_from_the_studys_own_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("version: 1\ntrials: 40\nseed: 9\n")
    config = parse("--resume", str(tmp_path), "--trials", "60")
    assert (config.trials, config.seed, config.out) == (60, 9, str(tmp_path))


@pytest.mark.parametrize(("arguments", "message"), [
    (["--trails", "3"], "--trails: there is no such flag; the nearest is --trials."),
    (["--trails=3"], "--trails: there is no such flag; the nearest is --trials."),
    (["--trial", "3"], "--trial: there is no such flag; the nearest is --trials."),
    (["--max_epochs", "3"], "the nearest is --max-epochs."),
    (["--seed", "1", "stray"], "'stray' follows no flag"),
    (["--trials"], "argument --trials: expected one argument"),
    (["--trials", "many"], "argument --trials: the value is 'many'; it must be a whole number."),
    (["--gpus-per-worker", "half"], "--gpus-per-worker: the value is 'half'; it must be a number."),
    (["--concurrency", "all"], "--concurrency: the value is 'all'; it must be a whole number or 'auto'."),
    (["--wandb", "on"], "--wandb: the value is 'on'; it must be one of online, offline, off."),
    (["--budget", "8x"], "budget is '8x'; it must be a time above 0 such as 90s, 45m or 8h."),
    (["--language", "xx"], "language is 'xx'; it must be one of ca, en, es, fr, it, pt."),
    (["--language", "no/such.yaml"], "no/such.yaml: there is no such language."),
    (["--corpus", "a.tar.gz"], "source is not set; a study with a corpus needs --source"),
    (["--config", "no/such.yaml"], "no/such.yaml: there is no such study configuration."),
    (["--look-again"], "--look-again reads the test split of a study that has read it before; give the study with"),
    (["--resume", "a", "--out", "b"], "--resume uses the folder's own configuration"),
    (["--resume", "a", "--config", "b"], "--resume uses the folder's own configuration"),
])
def test_wrong_usage_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str], arguments: list[str],
                                                 message: str) -> None:
    assert message in usage_error(capsys, *arguments)


def test_configuration_of_a_run_is_one_to_begin_another_with(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, StudyConfig(corpus=("es.tar.gz",), source="none", trials=3).resolved())
    run.begin(Identity(corpus=("c",), source="", space="s", language="l", features="f"))
    config, resume, *_ = parse_command_line("", ["--config", str(tmp_path / "config.yaml"), "--out", "again"])
    assert config.resolved() == dataclasses.replace(run.config, out="again") and not resume


@pytest.mark.parametrize(("content", "message"), [
    ("version: 99\ntrials: 3\n", "the study is of version 99; this Cuarzo reads version 1."),
    ("trails: 3\n", "trails: there is no such field; the nearest is trials."),
    ("max-epochs: 3\n", "max-epochs: there is no such field; the nearest is max_epochs."),
    ("trials: three\n", "trials is 'three'; it must be a whole number."),
    ("trials: 2.5\n", "trials is 2.5; it must be a whole number."),
    ("wandb: maybe\n", "wandb is 'maybe'; it must be one of online, offline, off."),
    ("seeds: 0\n", "seeds is 0; it must be at least 1."),
    ("- trials\n", "a study configuration is a YAML mapping; this is list."),
    ("trials: [\n", "not a readable YAML study configuration"),
])
def test_bad_file_is_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str,
                                              message: str) -> None:
    (tmp_path / "study.yaml").write_text(content)
    assert message in usage_error(capsys, "--config", str(tmp_path / "study.yaml"))


@pytest.mark.parametrize(("changes", "message"), [
    ({"trials": 0}, "trials is 0; it must be at least 1."),
    ({"max_epochs": 0}, "max_epochs is 0; it must be at least 1."),
    ({"confirm": 0}, "confirm is 0; it must be at least 1."),
    ({"seeds": 0}, "seeds is 0; it must be at least 1."),
    ({"workers_per_trial": 0}, "workers_per_trial is 0; it must be at least 1."),
    ({"grace_epochs": 0}, "grace_epochs is 0; it must be at least 1."),
    ({"reduction_factor": 1}, "reduction_factor is 1; it must be at least 2."),
    ({"concurrency": 0}, "concurrency is 0; it must be at least 1."),
    ({"seed": -1}, "seed is -1; it must be at least 0."),
    ({"seed": 2**31}, f"seed is {2**31}; it must be at most {2**31 - 1}."),
    ({"cpus_per_worker": 0.0}, "cpus_per_worker is 0.0; it must be above 0."),
    ({"cpus_per_worker": math.nan}, "cpus_per_worker is nan; it must be above 0."),
    ({"gpus_per_worker": -0.5}, "gpus_per_worker is -0.5; it must be at least 0."),
    ({"gpus_per_worker": math.nan}, "gpus_per_worker is nan; it must be at least 0."),
    ({"gpus_per_worker": 1.5}, "gpus_per_worker is 1.5; above 1 it must be a whole number."),
    ({"max_audio_s_per_pass": 0.0}, "max_audio_s_per_pass is 0.0; it must be above 0."),
    ({"min_duration_s": -1.0}, "min_duration_s is -1.0; it must be at least 0."),
    ({"min_duration_s": 20.0}, "min_duration_s is 20.0; it must be below max_duration_s = 20.0."),
    ({"max_duration_s": math.nan}, "it must be below max_duration_s = nan."),
    ({"max_infeasible_share": 1.5}, "max_infeasible_share is 1.5; it must be in [0, 1]."),
    ({"language": "klingon"}, "language is 'klingon'; it must be one of ca, en, es, fr, it, pt."),
    ({"budget": "0h"}, "budget is '0h'; it must be a time above 0"),
    ({"budget": "soon"}, "budget is 'soon'; it must be a time above 0"),
    ({"corpus": ("a",)}, "source is not set"),
])
def test_value_outside_its_limits_is_refused_with_name_value_and_limit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        StudyConfig(**changes)


@pytest.mark.parametrize(("given", "message"), [
    ({"trails": 3}, "trails: there is no such field; the nearest is trials."),
    ({"n_trials": 3, "max_epochs": 0}, "n_trials: there is no such field; the nearest is trials."),
    ({"learning_rate": 3}, "learning_rate: there is no such field."),
])
def test_field_that_there_is_not_is_refused_from_python_too(given: dict[str, Any], message: str) -> None:
    for make in (StudyConfig, partial(dataclasses.replace, StudyConfig()), StudyConfig().resolved().__class__):
        with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
            make(**given)
    with pytest.raises(ConfigError, match=r"^epoch: there is no such field; the nearest is epochs\.$"):
        TrainingConfig(epoch=3)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match=r"^StudyConfig was given 'es.tar.gz' without a name; all of its fields are"):
        StudyConfig("es.tar.gz")  # type: ignore[call-arg,misc]
    config = StudyConfig(trials=3)
    assert pickle.loads(pickle.dumps(config)) == copy.deepcopy(config) == config


def test_one_corpus_may_be_a_plain_string() -> None:
    assert StudyConfig(corpus="a.tar.gz", source="none").corpus == ("a.tar.gz",)  # type: ignore[arg-type]


GALICIAN = """code: gl
letters: abcdefghijklmnñopqrstuvwxyzáéíóúïü
decimal_mark: ","
symbols: {"%": por cento}
abbreviations: sr sra etc
"""


def test_language_of_a_file_is_in_the_configuration_whole(tmp_path: Path) -> None:
    file = tmp_path / "galego.yaml"
    file.write_text(GALICIAN)
    config = parse("--language", str(file), "--corpus", "a", "--source", "none")
    assert config.spoken is config.language and config.spoken.symbols == {"%": "por cento"}
    run = RunFolder(tmp_path / "run", config.resolved())
    run.path.mkdir()
    run.begin(Identity(corpus=("c",), source="", space="s", language=config.spoken.key, features="1"))
    file.unlink()
    assert load_config(run.path).spoken == config.spoken
    assert parse("--resume", str(run.path)).spoken.key == config.spoken.key
    file.write_text(GALICIAN.replace("por cento", "por cen"))
    with pytest.raises(ConfigError, match=r"language of the study is gl \(key .*\), and gl \(key .*\) now; a resumed"):
        RunFolder.open(parse("--resume", str(run.path), "--language", str(file)), resume=True)
    assert StudyConfig(language="pt", corpus=("a",), source="none").spoken.num2words == "pt_BR"


@pytest.mark.parametrize(("content", "message"), [
    ("code: gl\n", "galego.yaml: letters is missing; it has no default."),
    ("code: gl\nletters: abc\nletter: d\n", "galego.yaml: letter: there is no such field; the nearest is letters."),
    ("code: gl\nletters: [a, b]\n", "galego.yaml: letters is ['a', 'b']; it must be text."),
    ("code: gl\nletters: aba\n", "galego.yaml: letters holds 'a'; it must hold every letter once"),
    ("code: gl\nletters: ab\nsymbols: [a]\n", "galego.yaml: symbols is ['a']; it must be a mapping."),
])
def test_bad_language_file_is_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                                       content: str, message: str) -> None:
    (tmp_path / "galego.yaml").write_text(content)
    assert message in usage_error(capsys, "--language", str(tmp_path / "galego.yaml"), "--corpus", "a",
                                  "--source", "none")
    (tmp_path / "study.yaml").write_text("language: {code: gl, letters: aba}\n")
    assert "error: language.letters holds 'a'" in usage_error(capsys, "--config", str(tmp_path / "study.yaml"))


def test_cache_is_the_field_then_the_environment_then_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUARZO_CACHE", "/tmp/from-environment")
    assert StudyConfig(cache="/tmp/from-field").cache_folder == Path("/tmp/from-field")
    assert StudyConfig().cache_folder == Path("/tmp/from-environment")
    monkeypatch.delenv("CUARZO_CACHE")
    assert StudyConfig().cache_folder == Path("~/.cache/cuarzo").expanduser().resolve()


@pytest.mark.timeout(60)
def test_script_refuses_an_unknown_flag_before_it_loads_anything_heavy() -> None:
    code = ("import sys; from search.command_line.commands import run\n"
            "try: run(['--trails', '3'])\n"
            "except SystemExit as stop: print(stop.code, sorted({'ray', 'torch', 'optuna'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert done.stdout == "2 []\n", done.stderr
    assert "the nearest is --trials" in done.stderr


OF_PYTHON = [(StudyConfig, ConfigError, ""), (TrainingConfig, ConfigError, ""), (Recipe, RecipeError, "")] + [
    (section, RecipeError, section.__name__.removesuffix("Recipe").lower() + ".")
    for section in (OptimizerRecipe, ScheduleRecipe, VocabularyRecipe, TransferRecipe, TrainingRecipe)]


@pytest.mark.parametrize(("kind", "error", "prefix"), OF_PYTHON, ids=lambda value: getattr(value, "__name__", ""))
def test_field_that_python_sets_to_another_type_is_refused_by_name_value_and_limit(kind: type, error: type[Exception],
                                                                                   prefix: str) -> None:
    for f in dataclasses.fields(kind):
        for value in (object(), b"x", [object()]):
            with pytest.raises(error, match=f"^{prefix}{f.name} is .*; it must be "):
                kind(**{f.name: value})
        for value in (float("nan"), -1, True, "five", "", {1: 2}):
            with contextlib.suppress(error):  # some are of the type; no other error than ours comes
                kind(**{f.name: value})
    with pytest.raises(ConfigError, match="^trials is 'five'; it must be a whole number[.]$"):
        StudyConfig(trials="five")  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="^optimizer.lr is 'high'; it must be a number[.]$"):
        OptimizerRecipe(lr="high")  # type: ignore[arg-type]


def test_python_may_give_paths_and_the_numbers_of_numpy() -> None:
    config: Any = StudyConfig(corpus=Path("a"), source=Path("b.nemo"), out=Path("c"), trials=np.int64(5),  # type: ignore[arg-type]
                              max_duration_s=np.float32(12))
    assert (config.corpus, config.source, config.out, config.trials, config.max_duration_s) == (
        ("a",), "b.nemo", "c", 5, 12.0)
    assert {type(value) for value in (config.source, config.out)} == {str} and type(config.trials) is int
