"""What a study takes of others: their order and their recipes, never their figures, and nothing that does not fit."""

import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import optuna
import pytest
import yaml
from optuna.samplers import RandomSampler
from optuna.trial import FixedTrial, TrialState, create_trial

from search import study as study_module
from search.command_line.commands import FAILED, run
from search.config import ConfigError, StudyConfig
from search.records.run_folder import RunFolder
from search.speech.task import SpeechTask
from search.study import enqueue_baseline
from search.tuning.optuna_study import open_study
from search.tuning.searcher import OptunaSearcher, num_proposed
from search.tuning.warm_start import FILE, PastRun, PastTrial, keep_past, read_past, read_run, to_try_again
from spaces import spanish, synthetic
from spaces.recipe import Recipe

pytestmark = pytest.mark.timeout(60)

EPOCHS = 6
sample = partial(synthetic.sample, max_epochs=EPOCHS, has_source=True)
HAND = synthetic.baseline(max_epochs=EPOCHS, has_source=True)
COMPLETE, PRUNED, FAIL, RUNNING = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING


def drawn(count: int, sample: Callable[[Any], Recipe] = sample) -> list[optuna.Trial]:
    study = optuna.create_study(sampler=RandomSampler(seed=1))
    trials = [study.ask() for _ in range(count)]
    for trial in trials:
        sample(trial)
    return trials


def make_run(folder: Path, ends: list[tuple[TrialState, list[float]]], sample: Callable[[Any], Recipe] = sample,
             version: int = 1) -> Path:
    """A run's folder with a trial for each (state, word error rates by epoch)."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"version": version}))
    study = open_study(folder / "study.db", seed=1)
    for trial, (state, wers) in zip(drawn(len(ends), sample), ends, strict=True):
        study.add_trial(create_trial(state=state, value=min(wers) if state == COMPLETE else None, params=trial.params,
                                     distributions=trial.distributions,
                                     intermediate_values=dict(enumerate(wers, start=1))))
    return folder


def many(count: int) -> list[tuple[TrialState, list[float]]]:
    """The first trials are the worst."""
    return [(COMPLETE, [0.9 - 0.01 * i] * EPOCHS) for i in range(count)]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def past_of(folder: str, parameters: list[dict[str, Any]]) -> PastRun:
    return PastRun(folder=folder, trials=tuple(PastTrial(number=i, is_complete=True, parameters=one)
                                               for i, one in enumerate(parameters)))


# --- read -----------------------------------------------------------------------------------------------------------


def test_trials_are_ranked_as_tpe_would_and_those_that_say_nothing_are_left_out(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a run #1", [
        (PRUNED, [0.1]), (COMPLETE, [0.9, 0.8]), (FAIL, [0.2]), (PRUNED, [0.9, 0.6]), (COMPLETE, [0.7, 0.75]),
        (RUNNING, [0.1]), (PRUNED, []), (PRUNED, [0.05])])
    before = content(folder)
    past = read_run(folder)
    assert [(trial.number, trial.is_complete) for trial in past.trials] == [
        (4, True), (1, True), (3, False), (7, False), (0, False)]
    assert past.trials[0].parameters == drawn(8)[4].params
    assert content(folder) == before


def test_study_that_runs_may_be_read_and_goes_on(tmp_path: Path) -> None:
    study = open_study(make_run(tmp_path / "live", many(2)) / "study.db", seed=1)
    trial = study.ask()
    trial.report(0.4, 1)
    assert len(read_run(tmp_path / "live").trials) == 2
    trial.report(0.3, 2)
    study.tell(trial, 0.3)
    assert [trial.number for trial in read_run(tmp_path / "live").trials] == [2, 1, 0]


def cut(folder: Path) -> None:
    whole = (folder / "study.db").read_bytes()
    (folder / "study.db").write_bytes(whole[: int(len(whole) * 0.6)])


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda folder: shutil.rmtree(folder), "there is no study here (config.yaml is missing)"),
    (lambda folder: (folder / "study.db").unlink(), "there is no study here (study.db is missing)"),
    (lambda folder: (folder / "config.yaml").write_text("version: 2\n"), "of version 2; this Cuarzo reads version 1"),
    (lambda folder: (folder / "study.db").write_bytes(b""), "study.db is not a study's database, or is damaged"),
    (lambda folder: (folder / "study.db").write_bytes(b"<html>" * 999), "(file is not a database)"),
    (cut, "study.db is not a study's database, or is damaged"),
])
def test_folder_that_is_no_study_of_ours_is_refused_before_anything_is_begun(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
        spoil: Callable[[Path], None], message: str) -> None:
    monkeypatch.setattr(study_module.cluster, "connected", lambda: pytest.fail("it went on"))
    other = make_run(tmp_path / "other", many(3))
    spoil(other)
    assert run(["--warm-start", str(other), "--out", str(tmp_path / "new"), "--cache", str(tmp_path)]) == FAILED
    error = capsys.readouterr().err
    assert error.startswith(f"error: warm_start {other}: ") and message in error and error.count("\n") == 1, error
    assert not (tmp_path / "new").exists()


def test_study_without_a_trial_trained_to_its_end_is_refused(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "other", [(PRUNED, [0.9]), (FAIL, []), (RUNNING, [0.8]), (PRUNED, [0.8, 0.7])])
    with pytest.raises(ConfigError, match="2 of its trials have a word error rate, and none was trained to its end"):
        read_run(folder)
    with pytest.raises(ConfigError, match="1 of its trials has a word error rate, and none was trained to its end"):
        read_run(make_run(tmp_path / "one", [(PRUNED, [0.9])]))


def test_resumed_study_begins_from_what_it_began_from_when_the_others_are_gone(tmp_path: Path) -> None:
    others = [make_run(tmp_path / name, many(4)) for name in "ab"]
    config = StudyConfig(out=str(tmp_path / "new"), warm_start=tuple(map(str, [*others, others[0]])))
    opened = RunFolder.open(config, resume=False)
    past = read_past(opened, resume=False)
    keep_past(opened, past)
    open_study(others[0] / "study.db", seed=1).ask()
    shutil.rmtree(others[1])
    assert read_past(opened, resume=True) == past and [run.folder for run in past] == list(map(str, others))
    with pytest.raises(ConfigError, match="b: there is no study here"):
        read_past(opened, resume=False)
    (opened.path / FILE).write_text("[{}]")
    with pytest.raises(ConfigError, match=re.escape(f"{opened.path / FILE}: what was taken from other studies cannot")):
        read_past(opened, resume=True)


def test_study_without_a_warm_start_keeps_nothing_and_reads_nothing(tmp_path: Path) -> None:
    opened = RunFolder.open(StudyConfig(out=str(tmp_path / "new")), resume=False)
    keep_past(opened, read_past(opened, resume=False))
    assert not opened.path.exists()
    assert to_try_again([], sample, list(HAND.values()), 100) == ({}, [])


# --- fit ------------------------------------------------------------------------------------------------------------


def test_best_recipes_are_taken_in_turn_without_hand_recipes_and_without_doubles() -> None:
    a, b, c, d, e, f = (trial.params for trial in drawn(6))
    past = [past_of("es", [HAND["letters_kept"], a, b, c, d]), past_of("de", [b, e, f])]
    recipes, lines = to_try_again(past, sample, list(HAND.values()), num_trials=100)
    assert lines == ["warm start: recipes of other studies that are tried after the hand recipes: 5"]
    assert list(recipes.items()) == [("es trial 0001", a), ("de trial 0000", b), ("de trial 0001", e),
                                     ("es trial 0003", c), ("de trial 0002", f)]
    assert list(to_try_again(past, sample, list(HAND.values()), num_trials=8)[0].values()) == [a, b]
    assert to_try_again(past, sample, list(HAND.values()), num_trials=2)[0] == {}


def test_stopped_trial_is_not_tried_again() -> None:
    stopped = PastTrial(number=0, is_complete=False, parameters=drawn(1)[0].params)
    assert to_try_again([PastRun(folder="es", trials=(stopped,))], sample, [], num_trials=100)[0] == {}


def test_what_does_not_fit_is_named_and_its_recipe_left_out() -> None:
    fits, lacks, more, outside, other = (dict(HAND["letters_kept"]) for _ in range(5))
    fits["novograd.lr"] = 4e-3
    del lacks["transfer.batchnorm"]
    more["dropout"], outside["novograd.lr"], other["vocabulary"] = 0.1, 0.5, "syllables"
    recipes, lines = to_try_again([past_of("es", [lacks, more, outside, other, fits])], sample, [], num_trials=100)
    assert list(recipes.values()) == [fits]
    assert lines == [
        "warm start from es: dropout does not fit in 1 of 5 trials: this study has no such parameter",
        "warm start from es: novograd.lr does not fit in 1 of 5 trials: it is outside 0.002 to 0.08",
        "warm start from es: vocabulary does not fit in 1 of 5 trials: it was syllables, and here is one of "
        "characters, characters_folded, bpe",
        "warm start from es: 4 of 5 recipes do not fit as a whole and are left out",
        "warm start: recipes of other studies that are tried after the hand recipes: 1"]
    assert to_try_again([past_of("fr", [lacks])], sample, [], num_trials=100)[1][0] == (
        "warm start from fr: 1 of 1 recipe does not fit as a whole and is left out")


def test_recipe_of_transfer_does_not_fit_a_study_without_a_source() -> None:
    scratch = partial(synthetic.sample, max_epochs=EPOCHS, has_source=False)
    recipes, lines = to_try_again([past_of("es", [HAND["letters_kept"]])], scratch, [], num_trials=100)
    assert recipes == {}
    assert [line.split(" does not fit")[0].rpartition(" ")[2] for line in lines[:-2]] == [
        "transfer.batchnorm", "transfer.decoder", "transfer.encoder_lr_ratio", "transfer.frozen_epochs"]


def test_recipe_of_another_space_with_more_to_draw_does_not_fit() -> None:
    wide = partial(spanish.sample, max_epochs=EPOCHS, has_source=True)
    past = [past_of("es", [trial.params for trial in drawn(8)])]
    assert to_try_again(past, wide, [], num_trials=100)[0] == {}
    assert len(to_try_again(past, sample, [], num_trials=100)[0]) == 3


# --- begin ----------------------------------------------------------------------------------------------------------


def begin(folder: Path, past: list[PastRun]) -> tuple[optuna.Study, OptunaSearcher]:
    """As `search.study.search` does."""
    study = open_study(folder / "study.db", seed=1)
    task = SpeechTask(store=folder, vocabularies=folder, sources={"": cast(Any, "some")}, space="synthetic",
                      max_epochs=EPOCHS)
    enqueue_baseline(study, task, past, 9)
    return study, OptunaSearcher(study, sample, metric="wer", seed=1, num_trials=9, folder=folder,
                                   why_infeasible=lambda _: None, is_interrupted=lambda: False)


def origins(study: optuna.Study) -> list[str]:
    return [str(trial.user_attrs.get("hand_recipe") or trial.user_attrs.get("warm_start")) for trial in study.trials]


IN_LINE = [*HAND, "es trial 0000", "es trial 0001", "es trial 0002"]


def test_recipes_of_others_follow_the_hand_recipes_once_and_none_of_their_trials_is_one_of_ours(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    past = [past_of("es", [trial.params for trial in drawn(20)])]
    study, searcher = begin(tmp_path, past)
    assert origins(study) == IN_LINE and num_proposed(study.trials) == 0
    assert capsys.readouterr().out.count("\n") == 1
    jobs = [cast(dict[str, Any], searcher.suggest(str(i)))["job"] for i in range(6)]
    tried = [sample(FixedTrial(trial.parameters)) for trial in past[0].trials[:3]]
    assert [Recipe.from_flat(job["recipe"]) for job in jobs[len(HAND):]] == tried
    assert num_proposed(study.trials) == len(study.trials) == 6
    assert not [trial for trial in study.trials if trial.values or trial.intermediate_values]
    resumed, _ = begin(tmp_path, past)
    assert len(resumed.trials) == 6 and capsys.readouterr().out == ""


def test_recipe_that_a_kill_cut_off_is_tried_again_under_its_origin(tmp_path: Path) -> None:
    past = [past_of("es", [trial.params for trial in drawn(20)])]
    study, _ = begin(tmp_path, past)
    for _ in range(3):
        study.ask()  # and the process is gone before the recipes were drawn
    resumed, _ = begin(tmp_path, past)
    assert origins(resumed) == [*IN_LINE, *IN_LINE[:3]]
    assert [trial.state for trial in resumed.trials] == [PRUNED] * 3 + [TrialState.WAITING] * len(IN_LINE)


@pytest.mark.parametrize("enqueued", range(6))
def test_kill_while_recipes_are_put_in_line_puts_none_there_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                  enqueued: int) -> None:
    past = [past_of("es", [trial.params for trial in drawn(20)])]
    calls, enqueue = [0], optuna.Study.enqueue_trial

    def killed(*arguments: Any, **options: Any) -> None:
        if calls[0] == enqueued:
            raise KeyboardInterrupt
        calls[0] += 1
        enqueue(*arguments, **options)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(optuna.Study, "enqueue_trial", killed)
        patched.setattr(optuna.Study, "set_user_attr", killed)  # the mark that all are there
        begin(tmp_path, past)
    study, _ = begin(tmp_path, past)
    assert origins(study) == IN_LINE


def test_kill_while_a_recipe_is_put_back_in_line_puts_it_there_once(tmp_path: Path,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    past = [past_of("es", [trial.params for trial in drawn(20)])]
    study, _ = begin(tmp_path, past)
    study.ask()  # and the process is gone before its recipe was drawn
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(optuna.Study, "tell", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        begin(tmp_path, past)
    resumed, _ = begin(tmp_path, past)
    assert origins(resumed) == [*IN_LINE, IN_LINE[0]]
