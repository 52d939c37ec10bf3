"""What was found: confirmation, ablation, statistics, importance, report, W&B pages."""
