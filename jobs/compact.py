"""A run's rows as a few large files."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from gazecore.errors import GazecoreError, one_line
from gazecore.wording import counted
from jobs.command import keeping, run_command
from jobs.console import out, progress_bar
from jobs.tasks import on_cluster

if TYPE_CHECKING:
    from gazecore.results.compacted import Compaction
    from gazecore.results.run import Run

MANY = 256
"""Shards beside what is compacted, beyond which a scoring ends with a compaction."""


@dataclass(frozen=True)
class CompactOptions:
    """Make a few large Parquet files of a run's many small ones, sorted by image_id, which `query`
    and the other commands then read in their stead.

    The shards' own files stay. Images that are scored or mended later are read beside the large
    files until the same command takes them in. It goes on where it was interrupted.
    """

    run: Positional[Annotated[str, arg(metavar="RUN")]]
    """The run directory, local or any fsspec URI."""
    densities: bool = False
    """The densities, too. They take as much storage again."""
    address: str | None = None
    """A Ray cluster that shares the work, HOST:PORT or `auto`. By default the one that this runs in
    (`ray job submit`), else this process alone."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command("compact", CompactOptions, compact, argv)


def compact(options: CompactOptions) -> int:
    """Compact and report."""
    from gazecore.results.compact import compact
    from gazecore.results.compacted import TABLES
    from gazecore.results.run import open_run
    from gazecore.storage import Location
    from gazecore.tasks import here

    run = open_run(Location(options.run))
    with on_cluster(options.address) as tasks:
        for table in TABLES if options.densities else TABLES[:1]:
            with keeping(lambda: "the same command goes on"):
                made = compact(run, table, progress_bar, tasks or here)
            out.print(f"{table}: {compacted_words(made)}", soft_wrap=True)
    return 0


def compact_large(run: "Run", shards: int, address: str | None = None) -> None:
    """At the end of a scoring: compact the scores if they are in many files, and say so. Trouble is
    no failure of the scoring, whose rows are read from the shards meanwhile.

    Args:
        run: that was scored.
        shards: that are planned.
        address: of the cluster that scored it, if one was named.
    """
    from botocore.exceptions import BotoCoreError

    from gazecore.results.compact import compact
    from gazecore.results.compacted import sources
    from gazecore.tasks import here

    uri = run.location.uri
    try:
        if shards > MANY and len(sources(run, "scores").shards) > MANY:
            kept = f"all images are kept, gazecore compact {shlex.quote(uri)} goes on"
            with keeping(lambda: kept), on_cluster(address) as tasks:
                made = compact(run, "scores", progress_bar, tasks or here)
            out.print(f"compacted  {compacted_words(made)}", soft_wrap=True)
    except (GazecoreError, OSError, BotoCoreError) as error:
        again = f"gazecore compact {shlex.quote(uri)} tries again"
        out.print(f"not compacted: {one_line(error)}; {again}", soft_wrap=True)


def compacted_words(made: "Compaction") -> str:
    """What there is now."""
    parts, shards = len(made.parts), made.shards.num_rows
    size = sum(part.size for part in made.parts) / 1e6
    return (
        f"{made.rows:,} rows of {counted(shards, 'shards')} in {counted(parts, 'files')}, "
        f"{size:,.1f} MB"
    )


if __name__ == "__main__":
    main()
