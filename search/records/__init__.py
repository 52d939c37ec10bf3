"""What lies on disk, and its room: the run's folder, a trial's record, fingerprints."""
