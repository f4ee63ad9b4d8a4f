"""What people see while a run goes on: a live line on a terminal, a log line elsewhere."""

import shlex
import sys
import time
from types import TracebackType

import structlog
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from cluster.pool import Tally
from gazecore.results.run import Run

LOG_EVERY = 30.0
"""Seconds between log lines where there is no terminal."""


class ProgressReport:
    """Shows images, rate, failures and the time left; use as a context manager."""

    def __init__(self, total: int, console: Console, done: int = 0) -> None:
        """Start with `total` planned images, of which `done` are done already."""
        self._total, self._before = total, done
        self._started = self._logged = time.monotonic()
        self._first: tuple[float, int] | None = None
        self._live: Progress | None = None
        if console.is_terminal:
            self._live = Progress(
                TextColumn("scoring"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}  {task.fields[failed]} failed  {task.fields[eta]}"),
                console=console,
            )
            self._task = self._live.add_task(
                "", total=total, completed=done, rate="starting", failed=0, eta=""
            )

    def __enter__(self) -> "ProgressReport":
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, tally: Tally) -> None:
        """Show how far the run is."""
        ok, failed = tally.ok + tally.unfinished[0], tally.failed + tally.unfinished[1]
        now, done = time.monotonic(), self._before + ok + failed
        if ok + failed and self._first is None:
            self._first = (now, done)  # start-up is not part of the rate
        rate = 0.0
        if self._first and now > self._first[0]:
            rate = (done - self._first[1]) / (now - self._first[0])
        left = max(0.0, (self._total - done) / rate) if rate > 0 else None
        if self._live:
            self._live.update(
                self._task,
                completed=done,
                failed=failed,
                rate=f"{rate:.1f} images/s" if rate else "starting",
                eta=f"{clock(left)} left" if left is not None else "",
            )
        elif now - self._logged >= LOG_EVERY:
            self._logged = now
            structlog.get_logger().info(
                "progress",
                images=done,
                total=self._total,
                failed=failed,
                shards=tally.shards,
                images_per_second=round(rate, 2),
                eta_seconds=None if left is None else round(left),
            )


def summary_rows(run: Run, tally: Tally, before: int, seconds: float) -> list[tuple[str, str]]:
    """The last words of a run, labelled: what was done, what failed, and how to go on.

    Args:
        run: scored.
        tally: what this command did.
        before: images that were done already.
        seconds: how long this command took.
    """
    rows = [("done before", f"{before:,}")] if before else []
    rows.append(("scored", f"{tally.ok:,}"))
    for error, count in sorted(tally.errors.items(), key=lambda item: -item[1]):
        rows.append(("failed", f"{count:,}  {error}"))
    for shard, reason in tally.failed_shards.items():
        rows.append(("not done", f"shard {shard}: {reason}; the same command tries it again"))
    if tally.deaths:
        rows.append(("actors lost", f"{tally.deaths}, replaced"))
    rate = (tally.ok + tally.failed) / seconds
    uri = run.location.uri
    rows.append(("time", f"{clock(seconds)}, {rate:.1f} images/s with start-up"))
    rows.append(("results", uri))
    columns = "image_id, information_bits, peak_x, peak_y"
    question = f"SELECT {columns} FROM scores ORDER BY information_bits DESC LIMIT 10"
    rows.append(("ask", f'gazecore query {shlex.quote(uri)} "{question}"'))
    return rows


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def configure_logging() -> None:
    """Log lines go to stderr: readable on a terminal, JSON elsewhere."""
    on_terminal = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer() if on_terminal else structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
