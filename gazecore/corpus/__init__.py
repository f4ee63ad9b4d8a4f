"""Recorded fixations: importers, the stored corpus, and splits."""
