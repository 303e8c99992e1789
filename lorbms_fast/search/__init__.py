"""Hyperparameter search over many trainings, as the thesis wished for; needs the extra `search` (Ray Tune)."""
