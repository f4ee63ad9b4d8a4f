"""Does a run hold what it promises?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from gazecore.wording import counted
from jobs.command import run_command
from jobs.console import out


@dataclass(frozen=True)
class VerifyOptions:
    """Check a run: every planned image has exactly one row, every `ok` image a density that sums to
    one, counts agree, and no file is left over. Exit code 1 and a line for each thing that is wrong
    otherwise."""

    run: Positional[Annotated[str, arg(metavar="RUN")]]
    """The run directory, local or any fsspec URI."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command("verify", VerifyOptions, verify, argv)


def verify(options: VerifyOptions) -> int:
    """Check and print."""
    from gazecore.results.noticed import read_noticed
    from gazecore.results.run import open_run
    from gazecore.results.status import run_status
    from gazecore.results.verify import problems
    from gazecore.storage import Location

    run = open_run(Location(options.run))
    wrong = 0
    for problem in problems(run):
        out.print(problem, soft_wrap=True)
        wrong += 1
    if wrong:
        out.print(f"{counted(wrong, 'problems')} in {run.location.uri}", soft_wrap=True)
        return 1
    counts = run_status(run)
    gone = f"{counts.gone:,} gone, " if counts.gone else ""
    if noticed := read_noticed(run):
        out.print(f"noticed: {noticed}", soft_wrap=True)
    out.print(
        f"{run.location.uri} is complete: {counted(counts.images, 'images')}, {counts.ok:,} ok, "
        f"{counts.failed:,} failed, {gone}{counted(counts.shards, 'shards')}",
        soft_wrap=True,
    )
    return 0


if __name__ == "__main__":
    main()
