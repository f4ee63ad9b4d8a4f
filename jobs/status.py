"""How far a run is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from gazecore.results.run import open_run
from gazecore.results.verify import run_status
from gazecore.storage import Location
from jobs.command import run_command, show_rows


@dataclass(frozen=True)
class StatusOptions:
    """Show how many of a run's images are done, missing and failed, and at what rate."""

    run: Positional[Annotated[str, arg(metavar="RUN")]]
    """The run directory, local or any fsspec URI."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command("status", StatusOptions, status, argv)


def status(options: StatusOptions) -> int:
    """Count and print."""
    run = open_run(Location(options.run))
    counts = run_status(run)
    rows = [
        ("input", run.settings.input),
        ("images", f"{counts.images:,} in {counts.shards:,} shards"),
        ("done", f"{counts.ok:,} ok in {counts.shards_done:,} shards"),
        ("missing", f"{counts.missing:,}"),
        ("failed", f"{counts.failed:,}"),
        *(("", f"{count:,}  {error}") for error, count in counts.errors.items()),
        ("rate", f"{counts.rate:.1f} images/s" if counts.rate else "not known yet"),
    ]
    if counts.rate and counts.missing:
        rows.append(("left", f"{counts.missing / counts.rate / 3600:.1f} hours at that rate"))
    show_rows(rows)
    return 0


if __name__ == "__main__":
    main()
