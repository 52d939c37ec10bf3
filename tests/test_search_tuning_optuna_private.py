"""What is used of Optuna beside its documentation, and what broke where Optuna moves it."""

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from search.tuning.optuna_private import reopen
from search.tuning.optuna_study import open_study

pytestmark = pytest.mark.timeout(60)


def test_trial_that_is_in_the_study_is_written_on(tmp_path: Path) -> None:
    """As after a kill; with a study before it in the file the keys of trials are not their numbers."""
    open_study(tmp_path / "study.db", seed=1)
    other = optuna.create_study(storage=f"sqlite:///{tmp_path / 'study.db'}", study_name="other")
    study = open_study(tmp_path / "study.db", seed=1)
    other.ask()
    study.add_trial(create_trial(state=TrialState.RUNNING, user_attrs={"recipe": "some"}))
    [left] = study.get_trials(deepcopy=False)
    assert hasattr(left, "_trial_id"), "a FrozenTrial no longer has its key: no study could be resumed"
    again = reopen(study, left)
    again.report(0.5, 1)
    again.set_user_attr("reason", "none")
    study.tell(again, 0.5)
    [told] = study.trials
    assert (told.state, told.value, told.intermediate_values) == (TrialState.COMPLETE, 0.5, {1: 0.5})
    assert told.user_attrs == {"recipe": "some", "reason": "none"}
    assert [trial.state for trial in other.trials] == [TrialState.RUNNING]
