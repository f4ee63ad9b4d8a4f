"""One small file per command: parse, build, run, report."""
