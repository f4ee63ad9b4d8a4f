"""What people see while a run goes on: a live line on a terminal, a log line elsewhere."""

import itertools
import time
from types import TracebackType
from typing import TYPE_CHECKING

import structlog
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from gazecore.shards.clock import PHASES, Times, verdict
from gazecore.shards.plan import GONE
from gazecore.shards.tally import Tally
from gazecore.wording import counted

if TYPE_CHECKING:
    from cluster.telemetry import Telemetry  # which imports Ray

LOG_EVERY = 30.0
"""Seconds between log lines where there is no terminal."""

KNOWN_AFTER = 10.0
"""Seconds of work after which its rate is said: batches come in waves too."""

MAX_NAMED = 20
"""How many shards that could not be done the last words name."""


class ProgressReport:
    """Shows images, rate, failures and the time left; use as a context manager."""

    def __init__(
        self,
        title: str,
        total: int,
        console: Console,
        done: int = 0,
        telemetry: "Telemetry | None" = None,
    ) -> None:
        """Start with `total` planned images, of which `done` are done already.

        Args:
            title: what is done.
            total, done: images.
            console: where to show it.
            telemetry: where to tell Prometheus how many images are left.
        """
        self._total, self._before, self._telemetry = total, done, telemetry
        self._started = self._logged = time.monotonic()
        self._first: tuple[float, int] | None = None
        self._live: Progress | None = None
        if console.is_terminal:
            self._live = Progress(
                TextColumn(title),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}  {task.fields[note]}  {task.fields[eta]}"),
                console=console,
            )
            self._task = self._live.add_task(
                "", total=total, completed=done, rate="starting", note="", eta=""
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
        """Show how far a run is."""
        ok, failed = tally.ok + tally.unfinished[0], tally.failed + tally.unfinished[1]
        if self._telemetry:
            self._telemetry.set("gazecore_images_left", self._total - self._before - ok - failed)
        self.show(ok + failed, f"{failed} failed", failed=failed, shards=tally.shards)

    def show(self, here: int, note: str, **facts: object) -> None:
        """Show how far this command is.

        Args:
            here: images that it did.
            note: more for a terminal.
            facts: more for a log line.
        """
        now, done = time.monotonic(), self._before + here
        if here and self._first is None:
            self._first = (now, done)  # start-up is not part of the rate
        rate = 0.0
        if self._first and now >= self._first[0] + KNOWN_AFTER:
            rate = (done - self._first[1]) / (now - self._first[0])
        left = max(0.0, (self._total - done) / rate) if rate > 0 else None
        if self._live:
            self._live.update(
                self._task,
                completed=done,
                note=note,
                rate=f"{rate:.1f} images/s" if rate else "starting",
                eta=f"{clock(left)} left" if left is not None else "",
            )
        elif now - self._logged >= LOG_EVERY:
            self._logged = now
            structlog.get_logger().info(
                "progress",
                images=done,
                total=self._total,
                images_per_second=round(rate, 2),
                eta_seconds=None if left is None else round(left),
                **facts,
            )


def summary_rows(
    tally: Tally, did: str, before: int, seconds: float, failed_before: int | None = 0
) -> list[tuple[str, str]]:
    """The last words of a command, labelled: what was done, and what failed.

    Args:
        tally: what this command did.
        did: how it calls that, `scored`.
        before: images that were done already.
        seconds: how long this command took.
        failed_before: how many of those that were done already failed; None: not known.
    """
    rows = [("done before", f"{before:,}{_of_which(failed_before)}")] if before else []
    rows.append((did, f"{tally.ok:,}"))
    for error, count in sorted(tally.errors.items(), key=lambda item: -item[1]):
        rows.append((GONE if error == GONE else "failed", f"{count:,}  {_words(error)}"))
    for shard, reason in itertools.islice(tally.failed_shards.items(), MAX_NAMED):
        rows.append(("not done", f"shard {shard}: {reason}; the same command tries it again"))
    if len(tally.failed_shards) > MAX_NAMED:
        more = len(tally.failed_shards) - MAX_NAMED
        rows.append(("not done", f"{counted(more, 'more shards')} (shard_error in the log)"))
    if any(tally.retried):
        rows.append(
            ("retried", f"{sum(tally.retried):,} that had a row before: {tally.retried[0]:,} ok")
        )
    if tally.deaths:
        rows.append(("actors lost", f"{tally.deaths}, replaced"))
    rate = (tally.ok + tally.failed) / seconds
    rows.append(("time", f"{clock(seconds)}, {rate:.1f} images/s with start-up"))
    return rows + phase_rows(tally.times)


def _words(error: str) -> str:
    return "no longer in the input" if error == GONE else error


def _of_which(failed: int | None) -> str:
    if failed is None:
        return ", of which the failed ones were not counted"
    return f", of which {failed:,} failed" if failed else ""


def phase_rows(times: Times) -> list[tuple[str, str]]:
    """Where the time went, labelled: how busy the network and the other stages were."""
    if not times.working:
        return []
    others = ", ".join(f"{s} {times.busy(s):.0%}" for s in PHASES if s != "compute")
    return [
        ("network", f"busy {times.busy('compute'):.0%} of the time: {verdict(times)}"),
        ("stages", f"{others} busy; {decimal(times.bytes_read)} read"),
    ]


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
