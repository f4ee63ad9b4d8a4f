"""Judging a model on a corpus, with its baselines beside it."""
