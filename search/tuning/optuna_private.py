"""All that is used of Optuna without being in its documentation (Optuna 5.0).

`tests/test_search_tuning_optuna_private.py` says what broke where a new version of Optuna moves it.
"""

import optuna
from optuna.trial import FrozenTrial, Trial


def reopen(study: optuna.Study, trial: FrozenTrial) -> Trial:
    """A trial that is in the study already, to be written on: one that a killed process left, or that was added whole.

    In public Optuna has `ask` alone for it, which makes a new trial. What is asked here is a trial's key in the
    storage; its number is another one.
    """
    return Trial(study, trial._trial_id)
