"""One small file per command: parse, build, run, report."""

from gazecore.cores import limit_libraries

limit_libraries()  # before a command loads any
