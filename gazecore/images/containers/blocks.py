"""Long ranges of an archive, each of which holds many members."""

import threading
from collections.abc import Callable
from threading import Event

from gazecore.images.containers import Place
from gazecore.images.containers.ranges import AHEAD
from gazecore.images.fetch import fetch_part

_GAP = 2**18
"""Bytes between two members, at most, that are read with them."""


class Block:
    """A range, which is read when the first of its members is asked for, and forgotten after the
    last."""

    def __init__(self, container: str, start: int) -> None:
        self._container, self._start, self._end = container, start, start
        self._left = 0
        self._data = b""
        self._error: Exception | None = None
        self._lock = threading.Lock()

    def takes(self, container: str, place: Place) -> bool:
        """Whether a member fits in."""
        follows = self._start <= place.start <= self._end + _GAP
        return container == self._container and follows and place.end <= self._start + AHEAD

    def add(self, place: Place) -> Callable[[Event | None], bytes]:
        """Let a member be in it; returns what gives the bytes of its place, once, fewer where the
        archive ends before, and raises as `fetch`."""
        self._end = max(self._end, place.end)
        self._left += 1
        start = place.start - self._start

        def take(given_up: Event | None) -> bytes:
            return self._take(start, start + place.length, given_up)

        return take

    def _take(self, start: int, end: int, given_up: Event | None) -> bytes:
        with self._lock:
            if self._error:
                raise self._error
            if not self._data:
                try:
                    self._data = fetch_part(self._container, self._start, self._end, given_up)
                except Exception as error:
                    self._error = error
                    raise
            piece = self._data[start:end]
            self._left -= 1
            if not self._left:
                self._data = b""
            return piece
