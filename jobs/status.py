"""How far a run is."""

import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

from rich.live import Live
from rich.text import Text
from tyro.conf import Positional, arg

from gazecore.errors import InputError
from gazecore.wording import counted
from jobs.command import run_command
from jobs.console import labelled, out, show_rows

if TYPE_CHECKING:
    from gazecore.results.run import Run
    from gazecore.results.status import Status


@dataclass(frozen=True)
class StatusOptions:
    """Show how many of a run's images are done, missing and failed, and at what rate."""

    run: Positional[Annotated[str, arg(metavar="RUN")]]
    """The run directory, local or any fsspec URI."""
    watch: bool = False
    """Show it again and again until every planned image has a row: in place on a terminal, else one
    line each time. A look lists the run's scores and reads those that are new. Ctrl-C ends it."""
    every: float = 5.0
    """Seconds between two looks of --watch."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command("status", StatusOptions, status, argv)


def status(options: StatusOptions) -> int:
    """Count and print, once or until the run is complete."""
    from gazecore.results.run import open_run
    from gazecore.results.status import RunCounter
    from gazecore.storage import Location

    if not 0 < options.every < math.inf:
        raise InputError(f"--every must be positive, not {options.every:g}")
    run = open_run(Location(options.run))
    if options.watch:
        watch(run, options.every)
    else:
        show_rows(status_rows(run, RunCounter(run).status()))
    return 0


def watch(run: "Run", every: float) -> None:
    """Count and show until the run is complete."""
    from gazecore.results.status import RunCounter

    counter = RunCounter(run)
    live = Live(console=out, auto_refresh=False) if out.is_terminal else None
    with live or contextlib.nullcontext():
        while True:
            counts = counter.status()
            if live:
                text = "\n".join(labelled(status_rows(run, counts)))
                live.update(Text(text, overflow="fold"), refresh=True)
            else:
                out.print(status_line(counts), soft_wrap=True)
            if counts.is_complete:
                return
            time.sleep(every)


def status_rows(run: "Run", counts: "Status") -> list[tuple[str, str]]:
    """All that is known, labelled."""
    from gazecore.results.noticed import read_noticed

    rows = [
        ("input", run.settings.input),
        ("model", model_name(run)),
        ("images", f"{counts.images:,} in {counted(counts.shards, 'shards')}"),
        ("done", f"{counts.ok:,} ok in {counted(counts.shards_done, 'shards')}"),
        ("missing", f"{counts.missing:,}"),
        ("failed", f"{counts.failed:,}"),
        *(("", f"{count:,}  {error}") for error, count in counts.errors.items()),
        *([("gone", f"{counts.gone:,} are no longer in the input")] if counts.gone else []),
        *([("noticed", str(noticed))] if (noticed := read_noticed(run)) else []),
        ("rate", f"{counts.rate:.1f} images/s" if counts.rate else "not known yet"),
    ]
    if counts.rate and counts.missing:
        rows.append(("left", f"{_duration(counts.missing / counts.rate)} at that rate"))
    if counts.missing:
        rows.append(("last shard", _last_commit(counts)))
    return rows


def model_name(run: "Run") -> str:
    """What the run calls its model, and the fingerprint that tells it from all others."""
    note, fingerprint = run.model, run.settings.model
    name = f"{note.name} ({fingerprint})" if note.name else fingerprint
    return f"{name}, trained on {note.trained_on}" if note.trained_on else name


def status_line(counts: "Status") -> str:
    """What changes while a run goes on, on one line."""
    words = [
        time.strftime("%H:%M:%S"),
        f"{counts.images - counts.missing:,} of {counted(counts.images, 'images')} done",
        f"{counts.failed:,} failed",
        f"{counts.rate:.1f} images/s" if counts.rate else "rate not known yet",
    ]
    if counts.rate and counts.missing:
        words.append(f"{_duration(counts.missing / counts.rate)} left")
    if counts.missing:
        words.append(f"last shard {_last_commit(counts)}")
    return "  ".join(words)


def _last_commit(counts: "Status") -> str:
    """How long ago a shard was finished: a run that stands still shows here."""
    if counts.last_commit is None:
        return "not known yet"
    return f"{_duration(max(0.0, time.time() - counts.last_commit))} ago"


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


if __name__ == "__main__":
    main()
