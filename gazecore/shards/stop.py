"""Ctrl-C and SIGTERM while shards are worked on: what is begun is finished, if it can be soon."""

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from gazecore.errors import Interrupted

FINISH_SECONDS = 60
"""How long a run that was interrupted waits for shards in work."""


class Stop:
    """Remembers a first Ctrl-C or SIGTERM; a second one raises Interrupted (which Ray, where it
    waits, makes a KeyboardInterrupt). Use as a context manager.

    Attributes:
        signal: which came first; 0: none.
    """

    def __init__(self, say: Callable[[str], object] = lambda text: None) -> None:
        """Without being entered, it stays at 0. `say` shows people a line."""
        self.signal = 0
        self._say, self._said, self._until = say, False, 0.0
        self._before: dict[int, Any] = {}
        self._calls = self._bytes = 0
        self._came: socket.socket | None = None

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():
            # Python calls a handler once for signals that come while Ray waits; each leaves a byte.
            self._sent, self._came = socket.socketpair()
            self._sent.setblocking(False)
            self._came.setblocking(False)
            self._wakeup = signal.set_wakeup_fd(self._sent.fileno(), warn_on_full_buffer=False)
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                    self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._came:
            signal.set_wakeup_fd(self._wakeup)
            self._sent.close()
            self._came.close()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._calls += 1
        if not self.signal:
            self.signal, self._until = number, time.monotonic() + FINISH_SECONDS
        self._end_if_asked_twice()

    def _end_if_asked_twice(self) -> None:
        if self._came:
            with contextlib.suppress(BlockingIOError):
                self._bytes += sum(byte in self._before for byte in self._came.recv(4096))
        if max(self._calls, self._bytes) > 1:
            raise Interrupted(self.signal)

    def check(self, in_work: int) -> None:
        """Say what is waited for, once; raise Interrupted when that took too long.

        Also after a second signal: what a handler raises may be lost within Ray.

        Args:
            in_work: shards.
        """
        self._end_if_asked_twice()
        if self.signal and in_work and not self._said:
            self._said = True
            shards = f"{in_work} {'shard' if in_work == 1 else 'shards'}"
            self._say(
                f"interrupted: finishing {shards} in work, for {FINISH_SECONDS} s at most; "
                "a second Ctrl-C or SIGTERM ends it at once"
            )
        if self.signal and time.monotonic() > self._until:
            raise Interrupted(self.signal)
