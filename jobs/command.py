"""What every command shares: parsing, and how it ends."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import tyro
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from gazecore.errors import GazecoreError, one_line

out = Console(highlight=False, markup=False)
err = Console(stderr=True, highlight=False, markup=False)

Options = TypeVar("Options")

PLAIN = (tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone)
"""Of command lines: no `--no-dry-run` beside `--dry-run`, and nobody types `None`."""


def show_rows(rows: Sequence[tuple[str, str]]) -> None:
    """Print labelled facts, one a line."""
    for line in labelled(rows):
        out.print(line, soft_wrap=True)


def labelled(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Labelled facts, one a line, with their labels as a column."""
    width = max(len(label) for label, _ in rows)
    return [f"{label:<{width}}  {value}" for label, value in rows]


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar with the time left on stderr; yields what is to be called after each step."""
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=err) as progress:
        bar = progress.add_task(title, total=total)
        yield lambda: progress.advance(bar)


def run_command(
    name: str,
    options: type[Options],
    act: Callable[[Options], int],
    argv: Sequence[str] | None,
    prog: str = "",
) -> None:
    """Parse the command line into `options`, act on them, and end the process.

    `prog` is what people type, by default `gazecore NAME`.

    `act` imports what it needs: a command's help needs no torch, and appears at once.

    The exit code is what `act` returns, 2 for a user's mistake, 1 for a failed run, 130 after
    Ctrl-C. Errors are one line on stderr.
    """
    prog = prog or f"gazecore {name}"
    try:
        code = act(tyro.cli(options, prog=prog, args=argv, config=PLAIN))
    except GazecoreError as error:
        print(f"{prog}: {one_line(error, 1000)}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader went away, which is its right
        code = 0
    except Exception as error:
        from botocore.exceptions import BotoCoreError, NoCredentialsError

        if not isinstance(error, OSError | BotoCoreError):
            raise
        mistakes = (PermissionError, FileExistsError, NotADirectoryError, NoCredentialsError)
        print(f"{prog}: {type(error).__name__}: {one_line(error)}", file=sys.stderr)
        code = 2 if isinstance(error, mistakes) else 1
    sys.exit(code)
