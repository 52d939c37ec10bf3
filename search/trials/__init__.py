"""One trial on Ray: its process or worker group, checkpoints, watchdog, budget, W&B run."""
