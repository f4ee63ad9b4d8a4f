"""What every command shares: parsing, and how it ends."""

import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

import tyro

from gazecore.errors import GazecoreError, Interrupted, one_line

Options = TypeVar("Options")

PLAIN = (tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone)
"""Of command lines: no `--no-dry-run` beside `--dry-run`, and nobody types `None`."""


@contextmanager
def keeping(what: Callable[[], str]) -> Iterator[None]:
    """Ctrl-C or SIGTERM within ends the command with a word on what is kept, `what`."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise Interrupted(getattr(stop, "number", 0), what()) from None


def kept_images(kept: int, planned: int) -> str:
    """What is kept of a directory that is worked off shard by shard."""
    return f"{kept:,} of {planned:,} images are kept, the same command continues"


@contextmanager
def _sigterm_interrupts() -> Iterator[list[int]]:
    """SIGTERM within ends what goes on as Ctrl-C does; yields a list of those that came, since
    where Ray waits, the exception is only a KeyboardInterrupt."""
    came: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        came.append(number)
        raise Interrupted(number)

    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)


def typed(name: str, argv: Sequence[str] | None) -> str:
    """What people typed for a command to be run, `argv` as `run_command` takes it."""
    return shlex.join(["gazecore", name, *(sys.argv[1:] if argv is None else argv)])


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
    Ctrl-C, 143 after SIGTERM. Errors are one line on stderr.
    """
    prog = prog or f"gazecore {name}"
    came: list[int] = []
    try:
        with _sigterm_interrupts() as came:
            code = act(tyro.cli(options, prog=prog, args=argv, config=PLAIN))
    except GazecoreError as error:
        print(f"{prog}: {one_line(error, 1000)}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt as stop:
        print(f"{prog}: {': '.join(['interrupted', *filter(None, [str(stop)])])}", file=sys.stderr)
        code = 128 + (getattr(stop, "number", 0) or (came or [signal.SIGINT])[0])
    except BrokenPipeError:
        sys.stderr.close()  # the reader went away, which is its right
        code = 0
    except Exception as error:
        from botocore.exceptions import BotoCoreError

        from gazecore.refusals import keys_refused

        if not isinstance(error, OSError | BotoCoreError):
            raise
        refused = keys_refused(error, "the storage")
        said = f"{type(error).__name__}: {one_line(error)}"
        print(f"{prog}: {one_line(refused, 1000) if refused else said}", file=sys.stderr)
        mistakes = (PermissionError, FileExistsError, NotADirectoryError)
        code = 2 if refused or isinstance(error, mistakes) else 1
    sys.exit(code)
