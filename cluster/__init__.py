"""The only code that knows Ray: actors, the scoring driver, progress."""
