"""What to try next and what to stop: the Optuna study, proposals, rungs, warm start."""
