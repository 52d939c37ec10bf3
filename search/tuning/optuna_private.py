"""Every use of undocumented parts of Optuna (5.0).

`tests/test_search_tuning_optuna_private.py` reports what a new version of Optuna breaks.
"""

import optuna
from optuna.trial import FrozenTrial, Trial


def reopen(study: optuna.Study, trial: FrozenTrial) -> Trial:
    """A writable trial that is already in the study: one that a killed process left, or that was added as a whole.

    Optuna's public API has only `ask`, which makes a new trial. The id is the trial's key in the storage, not its
    number.
    """
    return Trial(study, trial._trial_id)
