"""The terminal: what every command prints by, and how it shows that it is at work."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from gazecore.wording import printable

Entered = TypeVar("Entered")


class _Console(Console):
    """Prints no control characters that come with names and texts of others."""

    def print(self, *objects: Any, **options: Any) -> None:
        """As Rich's, whose own styles are no part of the texts."""
        super().print(
            *(printable(o, "\n\t") if isinstance(o, str) else o for o in objects), **options
        )

    def on_broken_pipe(self) -> None:
        """Left to `run_command`: the reader went away, which is its right."""
        raise BrokenPipeError


out = _Console(highlight=False, markup=False)
err = _Console(stderr=True, highlight=False, markup=False)

LOADING = "loading torch and Ray"


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
    """A bar with the time left on a terminal; yields what is to be called after each step."""
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        bar = progress.add_task(title, total=total)
        yield lambda: progress.advance(bar)


def say(prog: str, text: str) -> None:
    """A line on stderr, above a live display if there is one."""
    err.print(f"{prog}: {text}", soft_wrap=True)


@contextmanager
def waiting(text: str, context: AbstractContextManager[Entered]) -> Iterator[Entered]:
    """A context that takes a while to enter, with words about it on a terminal meanwhile."""
    with ExitStack() as stack:
        with err.status(text):
            entered = stack.enter_context(context)
        yield entered
