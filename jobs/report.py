"""A page to look at a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from jobs.command import run_command, typed
from jobs.console import err, progress_bar, show_rows


@dataclass(frozen=True)
class ReportOptions:
    """Make a page to look at a run, finished or not.

    Leaves OUT/report.html: what was scored, what failed and why, how the statistics are
    distributed, the extremes and a random sample with their densities, and all images to search, to
    order and to enlarge. It opens from the disk, without a network. The page of a run of up to 200
    images is one file; of a larger one, its pictures lie in OUT/pictures beside it. The same
    command again replaces both, and no other file.
    """

    run: Positional[Annotated[str, arg(metavar="RUN")]]
    """The run directory, local or any fsspec URI."""
    out: str
    """The folder for the page, local or any fsspec URI."""
    images: int = 5000
    """Images on the page at most, 50000 at most. Of a larger run, those are the extremes, failed
    ones and a random sample; counts and distributions are of all."""
    seed: int = 0
    """Of the random sample: another number draws others."""
    densities_only: bool = False
    """Read no image again, and show the densities alone. It is so, too, for images that cannot be
    read any more."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    command = typed("report", argv)
    run_command("report", ReportOptions, lambda options: report(options, command), argv)


def report(options: ReportOptions, command: str) -> int:
    """Read, draw, write and say where."""
    with err.status("loading"):
        from gazecore.results.overview import Shown
        from gazecore.results.run import open_run
        from gazecore.storage import Location
        from gazecore.view.run import write_report
        from gazecore.wording import counted

    found = write_report(
        open_run(Location(options.run)),
        Location(options.out),
        Shown(images=options.images, seed=options.seed),
        densities_only=options.densities_only,
        command=command,
        steps=progress_bar,
    )
    rows = [("images", f"{found.images:,} on the page")]
    if found.unread:
        what = "was not read" if found.unread == 1 else "were not read"
        rows.append(("", f"{counted(found.unread, 'images')} {what}: the density alone is shown"))
    show_rows([*rows, ("page", found.page.uri)])
    return 0


if __name__ == "__main__":
    main()
