"""Log lines of the driver and of actors: readable on a terminal, JSON elsewhere."""

import logging
import sys

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from gazecore.errors import redact


def configure_logging(run: str = "") -> None:
    """Log lines go to stderr; each one names the run, and the shard where it is about one.

    The shard is bound by `structlog.contextvars`. Warnings of libraries that log through the
    standard library look the same. Secrets are blacked out in both.

    Args:
        run: URI of the run directory or feature cache; empty: none is named.
    """

    def name_run(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        return {"run": run, **event} if run else event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        name_run,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    on_terminal = sys.stderr.isatty()
    last: list[Processor] = (
        [structlog.dev.ConsoleRenderer()]
        if on_terminal
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    last.append(lambda _, __, line: redact(str(line)))
    structlog.configure(
        processors=[*shared, *last], logger_factory=structlog.PrintLoggerFactory(sys.stderr)
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
