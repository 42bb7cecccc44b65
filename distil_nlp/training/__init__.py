"""`DistillationTrainer` and its callbacks."""
