"""What Optuna is told of each trial, and that rungs and open trials outlive a killed study."""

import json
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
import optuna_dashboard
import pytest
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher

from search.records.trial_record import write_failure
from search.tuning import searcher as searcher_module
from search.tuning.optuna_study import open_study, storage_url
from search.tuning.searcher import OptunaSearcher, SearchError, num_ended, num_proposed
from search.tuning.tpe import Draws
from spaces import synthetic
from spaces.recipe import Recipe

EPOCHS = 4


def sample(trial: optuna.Trial) -> Recipe:
    return synthetic.sample(trial, max_epochs=EPOCHS, has_source=True)


def searcher(study: optuna.Study, folder: Path, **changes: Any) -> OptunaSearcher:
    options: dict[str, Any] = {"seed": 1, "num_trials": 20, "folder": folder, "why_infeasible": lambda _: None,
                               "is_interrupted": lambda: False}
    return OptunaSearcher(study, sample, metric="wer", **(options | changes))


def report(search: OptunaSearcher, name: str, wers: list[float]) -> None:
    for epoch, wer in enumerate(wers, start=1):
        search.on_trial_result(name, {"wer": wer, "epoch": epoch})


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    return open_study(tmp_path / "study.db", seed=1)


def test_stopped_trial_is_pruned_with_its_values_and_never_complete(study: optuna.Study, tmp_path: Path) -> None:
    search = searcher(study, tmp_path)
    search.suggest("a")
    report(search, "a", [0.9])
    search.on_trial_complete("a", {"wer": 0.7, "epoch": 2})  # Tune tells the stopping result here alone
    [trial] = study.trials
    assert trial.state == TrialState.PRUNED
    assert trial.intermediate_values == {1: 0.9, 2: 0.7}


def test_finished_trial_is_complete_with_its_best_value(study: optuna.Study, tmp_path: Path) -> None:
    search = searcher(study, tmp_path)
    search.suggest("a")
    report(search, "a", [0.9, 0.5, 0.4, 0.45])
    search.on_trial_complete("a", {"wer": 0.45, "epoch": 4})
    [trial] = study.trials
    assert (trial.state, trial.value, trial.intermediate_values[4]) == (TrialState.COMPLETE, 0.4, 0.45)


def asked(storage: str, path: str) -> Any:
    """What optuna-dashboard's own server answers."""
    answer: dict[str, Any] = {}
    app = optuna_dashboard.wsgi(storage)
    environ: dict[str, Any] = {"PATH_INFO": path}
    setup_testing_defaults(environ)
    body = b"".join(app(environ, lambda status, *_: answer.update(status=status)))
    assert answer["status"] == "200 OK", body
    return json.loads(body)


@pytest.mark.parametrize("name", ["plain", "what? 50%", "{a}#b", "50%20"])
def test_optuna_dashboard_opens_the_study(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    search = searcher(open_study(folder / "study.db", seed=1), folder)
    search.suggest("a")
    report(search, "a", [0.9, 0.5, 0.4, 0.45])
    search.on_trial_complete("a", {"wer": 0.45, "epoch": 4})
    search.suggest("b")
    assert [file.name for file in tmp_path.iterdir()] == [name] and (folder / "study.db").stat().st_size
    storage = storage_url(folder / "study.db")
    if name == "plain":
        assert storage == f"sqlite:///{folder}/study.db"
    [shown] = asked(storage, "/api/studies")["study_summaries"]
    assert (shown["study_name"], shown["directions"]) == (name, ["minimize"])
    first, second = asked(storage, f"/api/studies/{shown['study_id']}")["trials"]
    assert (first["state"], first["values"], second["state"]) == ("Complete", [0.4], "Running")
    assert [(value["step"], value["value"]) for value in first["intermediate_values"]] == [
        (1, 0.9), (2, 0.5), (3, 0.4), (4, 0.45)]
    assert {param["name"] for param in first["params"]} == set(search._study.trials[0].params)


def test_job_of_a_hand_recipe_has_its_name(study: optuna.Study, tmp_path: Path) -> None:
    study.enqueue_trial({}, user_attrs={"hand_recipe": "published"})
    search = searcher(study, tmp_path)
    first, second = search.suggest("a"), search.suggest("b")
    assert isinstance(first, dict) and first["job"]["hand_recipe"] == "published"
    assert isinstance(second, dict) and "hand_recipe" not in second["job"]


def test_failed_trial_is_told_as_failed_with_its_reason(study: optuna.Study, tmp_path: Path,
                                                        capsys: pytest.CaptureFixture[str]) -> None:
    search = searcher(study, tmp_path)
    search.suggest("nan")
    write_failure(tmp_path / "0000", "the training loss is nan")
    search.on_trial_complete("nan", {"done": True})
    search.suggest("lost")
    search.on_trial_complete("lost", None, error=True)
    search.suggest("silent")
    search.on_trial_complete("silent", {"done": True})
    assert [t.state for t in study.trials] == [TrialState.FAIL] * 3
    reasons = [t.user_attrs["reason"] for t in study.trials]
    assert reasons[0] == "the training loss is nan" and "lost" in reasons[1]
    assert reasons[2] == "it ended before its first validation"
    assert capsys.readouterr().out.splitlines()[0] == "trial 0000 failed: the training loss is nan"


def test_value_that_is_not_finite_is_not_recorded(study: optuna.Study, tmp_path: Path) -> None:
    search = searcher(study, tmp_path)
    search.suggest("a")
    report(search, "a", [0.9, float("nan")])
    search.on_trial_result("a", {"epoch": 3})
    assert study.trials[0].intermediate_values == {1: 0.9}


def test_no_trial_copies_the_whole_study(study: optuna.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna copies every trial unless told not to: with 2,000 trials that took seconds for each epoch."""
    search = searcher(study, tmp_path)
    look, copies = optuna.Study.get_trials, []

    def get_trials(self: optuna.Study, deepcopy: bool = True, **options: Any) -> Any:
        copies.append(deepcopy)
        return look(self, deepcopy, **options)

    monkeypatch.setattr(optuna.Study, "get_trials", get_trials)
    search.suggest("a")
    report(search, "a", [0.9, 0.8])
    search.on_trial_complete("a", {"wer": 0.7, "epoch": 3})
    assert copies and not any(copies)


def test_infeasible_recipe_is_pruned_before_it_costs_a_trial(study: optuna.Study, tmp_path: Path) -> None:
    def why(recipe: Recipe) -> str | None:
        return "too many pieces" if recipe.vocabulary.kind == "bpe" else None

    search = searcher(study, tmp_path, why_infeasible=why, num_trials=12)
    jobs = []
    while (job := search.suggest(str(len(jobs)))) != Searcher.FINISHED:
        assert isinstance(job, dict)
        jobs.append(job["job"])
    refused = [t for t in study.trials if "infeasible" in t.user_attrs]
    assert len(jobs) == 12 == num_proposed(study.trials)
    assert refused and all(t.state == TrialState.PRUNED and not t.intermediate_values for t in refused)
    assert all(Recipe.from_flat(job["recipe"]).vocabulary.kind != "bpe" for job in jobs)


def test_space_without_a_feasible_recipe_is_an_error(study: optuna.Study, tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="clips are too short"):
        searcher(study, tmp_path, why_infeasible=lambda _: "clips are too short").suggest("a")


def test_same_seed_and_results_give_the_same_proposals(tmp_path: Path) -> None:
    def propose(name: str) -> list[Any]:
        search = searcher(open_study(tmp_path / f"{name}.db", seed=5), tmp_path)
        jobs = []
        for i in range(14):  # TPE begins after ten random draws
            jobs.append(search.suggest(str(i)))
            report(search, str(i), [0.9 - 0.01 * i] * EPOCHS)
            search.on_trial_complete(str(i), None)
        return jobs

    assert propose("one") == propose("two")


def test_resumed_study_does_not_draw_its_first_recipes_again(tmp_path: Path) -> None:
    first = searcher(open_study(tmp_path / "study.db", seed=5), tmp_path)
    drawn = [first.suggest(name) for name in "abc"]
    first.close()
    resumed = searcher(open_study(tmp_path / "study.db", seed=5), tmp_path)
    recipes = [job["job"]["recipe"] for job in [*drawn, *(resumed.suggest(name) for name in "abc")]]
    assert len({str(recipe) for recipe in recipes}) == 6


def test_drawn_recipe_is_written_in_one_transaction_that_others_can_read(study: optuna.Study, tmp_path: Path) -> None:
    def num_transactions() -> int:
        return int.from_bytes((tmp_path / "study.db").read_bytes()[24:28])  # SQLite's file change counter

    search = searcher(study, tmp_path)
    before = num_transactions()
    job = search.suggest("a")
    assert num_transactions() == before + 1 and isinstance(job, dict)
    [trial] = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 'study.db'}").trials
    assert trial.state == TrialState.RUNNING and trial.datetime_start is not None
    assert trial.params["schedule"] == job["job"]["recipe"]["schedule.name"]
    assert trial.distributions.keys() == trial.params.keys() >= {"optimizer", "vocabulary", "audio_s_per_step"}
    assert Recipe.from_dict(trial.user_attrs["recipe"]) == Recipe.from_flat(job["job"]["recipe"])


def test_waiting_recipe_comes_first_and_what_it_leaves_open_is_drawn(study: optuna.Study, tmp_path: Path) -> None:
    search = searcher(study, tmp_path)
    search.suggest("a")
    study.enqueue_trial({"optimizer": "novograd", "novograd.lr": 2e-2}, user_attrs={"hand_recipe": "half"})
    job, after = search.suggest("b"), search.suggest("c")
    assert isinstance(job, dict) and isinstance(after, dict)
    assert (job["job"]["recipe"]["optimizer.name"], job["job"]["recipe"]["optimizer.lr"]) == ("novograd", 2e-2)
    assert study.trials[1].params.keys() >= {"vocabulary", "schedule"}
    assert study.trials[1].user_attrs["hand_recipe"] == "half"
    assert [job["job"]["id"], after["job"]["id"]] == ["0001", "0002"]


class Watched(Draws):
    """Notes what it sees."""

    def __init__(self, known: list[FrozenTrial], seed: int) -> None:
        super().__init__(known, seed)
        self.known = [(trial.number, trial.state) for trial in known]
        self.seen: list[tuple[int, TrialState]] = []

    def observe(self, trial: FrozenTrial) -> None:
        super().observe(trial)
        self.seen.append((trial.number, trial.state))


def test_what_draws_knows_every_trial_that_is_open_and_every_end(tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    """Hand recipes, drawn, failed and refused ones; those that a kill left open too."""
    monkeypatch.setattr(searcher_module, "Draws", Watched)
    study = open_study(tmp_path / "study.db", seed=1)
    study.enqueue_trial(synthetic.baseline(max_epochs=EPOCHS, has_source=True)["letters_kept"])
    reasons = iter([None, "too many pieces", None, None])
    search = searcher(study, tmp_path, why_infeasible=lambda _: next(reasons))
    search.suggest("hand"), search.suggest("after a refused one"), search.suggest("open")
    search.on_trial_complete("hand", {"wer": 0.9, "epoch": 1})
    search.on_trial_complete("after a refused one", None, error=True)
    running, pruned, fail = TrialState.RUNNING, TrialState.PRUNED, TrialState.FAIL
    assert search._draws.seen == [(0, running), (1, running), (1, pruned), (2, running), (3, running), (0, pruned),
                                  (2, fail)]
    resumed = searcher(open_study(tmp_path / "study.db", seed=1), tmp_path)
    assert resumed._draws.known == [(0, pruned), (1, pruned), (2, fail), (3, running)]
    resumed.suggest("left open")
    resumed.on_trial_complete("left open", {"wer": 0.8, "epoch": 1})
    assert resumed._draws.seen == [(3, pruned)]


def test_trial_left_running_is_proposed_first_under_its_own_number(tmp_path: Path) -> None:
    killed = searcher(open_study(tmp_path / "study.db", seed=1), tmp_path, num_trials=3)
    first, second = killed.suggest("a"), killed.suggest("b")
    report(killed, "a", [0.8])
    killed.on_trial_complete("b", {"wer": 0.9, "epoch": 1})

    study = open_study(tmp_path / "study.db", seed=1)
    resumed = searcher(study, tmp_path, num_trials=3)
    assert resumed.suggest("c") == first != second
    report(resumed, "c", [0.1, 0.7])  # epoch 1 is known, and is not told twice
    assert study.trials[0].intermediate_values == {1: 0.8, 2: 0.7}
    assert isinstance(resumed.suggest("d"), dict)
    assert resumed.suggest("e") == Searcher.FINISHED
    assert len(study.trials) == 3


def test_trial_killed_while_it_was_proposed_is_closed_and_its_hand_recipe_comes_again(tmp_path: Path) -> None:
    study = open_study(tmp_path / "study.db", seed=1)
    hand = synthetic.baseline(max_epochs=EPOCHS, has_source=True)["letters_kept"]
    study.enqueue_trial(hand, user_attrs={"hand_recipe": "letters_kept"})
    study.ask()  # and the process is gone before the recipe was drawn

    resumed = searcher(open_study(tmp_path / "study.db", seed=1), tmp_path, num_trials=1)
    job = resumed.suggest("a")
    assert isinstance(job, dict) and job["job"]["id"] == "0001"
    assert job["job"]["recipe"]["optimizer.lr"] == hand["novograd.lr"]
    assert resumed.suggest("b") == Searcher.FINISHED
    assert study.trials[0].state == TrialState.PRUNED
    assert study.trials[1].user_attrs["hand_recipe"] == "letters_kept"


def test_interrupted_trial_stays_open_and_others_are_told(study: optuna.Study, tmp_path: Path) -> None:
    search = searcher(study, tmp_path, is_interrupted=lambda: True)
    search.suggest("cut"), search.suggest("done")
    report(search, "cut", [0.9])
    report(search, "done", [0.9, 0.8, 0.7, 0.6])
    search.on_trial_complete("cut", {"wer": 0.9, "epoch": 1})
    search.on_trial_complete("done", {"wer": 0.6, "epoch": 4})
    assert [t.state for t in study.trials] == [TrialState.RUNNING, TrialState.COMPLETE]


def test_trials_cut_off_by_the_budget_are_told_with_their_values(study: optuna.Study, tmp_path: Path) -> None:
    search = searcher(study, tmp_path)
    search.suggest("a"), search.suggest("b")
    report(search, "a", [0.9, 0.8])
    search.close()
    assert [t.state for t in study.trials] == [TrialState.PRUNED, TrialState.FAIL]
    assert study.trials[0].intermediate_values == {1: 0.9, 2: 0.8}


def test_what_a_study_has_done_so_far_is_its_ended_trials(tmp_path: Path) -> None:
    study = open_study(tmp_path / "study.db", seed=1)
    assert num_ended(study.trials) == 0
    study.enqueue_trial({})
    for state, wers in ((TrialState.PRUNED, [0.5, 0.25]), (TrialState.FAIL, []), (TrialState.PRUNED, []),
                        (None, [0.75])):
        trial = study.ask()
        for epoch, wer in enumerate(wers):
            trial.report(wer, epoch)
        if not wers and state == TrialState.PRUNED:
            trial.set_user_attr("infeasible", "too many pieces")
        if state is not None:
            study.tell(trial, state=state)
    assert num_ended(study.trials) == 2


def test_trials_left_running_are_told_when_their_budget_is_spent(tmp_path: Path) -> None:
    def searcher() -> OptunaSearcher:
        return OptunaSearcher(
            open_study(tmp_path / "study.db", seed=1),
            lambda trial: synthetic.sample(trial, max_epochs=4, has_source=True), metric="wer", seed=1,
            num_trials=9, folder=tmp_path, why_infeasible=lambda _: None, is_interrupted=lambda: False)

    killed = searcher()
    killed.suggest("a"), killed.suggest("b")
    killed.on_trial_result("a", {"wer": 0.9, "epoch": 1})
    searcher().close()  # resumed, and no trial is started
    states = [trial.state.name for trial in open_study(tmp_path / "study.db", seed=1).trials]
    assert states == ["PRUNED", "FAIL"]
