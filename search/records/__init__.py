"""What a study keeps on disk: the run's folder, trial records, fingerprints, and checks for free space."""
