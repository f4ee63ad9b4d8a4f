"""Members of a container that can only be read in order, and containers that stay open for it."""

import threading
from typing import Any, Protocol

from gazecore.errors import GazecoreError, StorageError, StorageUnavailable
from gazecore.images.containers import Place
from gazecore.images.containers.ranges import Gunzip, RangeFile, in_background
from gazecore.images.containers.tables import open_table

KEPT = 8
"""Containers that stay open, the ones that were used last."""

Key = tuple[str, str | None, str | None]
"""What stays open: a container's URI, the column of a table where it is named, the version."""


class Opened(Protocol):
    """A container that is open, at a position: a row, or bytes of what it unpacks to."""

    @property
    def position(self) -> int:
        """What it reads next without going back."""
        ...

    def expect(self, at: Any) -> None:
        """Say what is the last that will be read soon: nothing beyond it is read ahead."""
        ...

    def read(self, at: Any) -> bytes:
        """A member's bytes. Raises as `fetch`."""
        ...


class CompressedTar:
    """A `.tar.gz`, which is read from its begin to the last place that is asked for."""

    def __init__(self, uri: str) -> None:
        """Open it. Raises as `fetch`."""
        self._uri = uri
        self._file = Gunzip(RangeFile(uri))

    @property
    def position(self) -> int:
        """See `Opened`."""
        return self._file.tell()

    def expect(self, at: Place) -> None:
        """See `Opened`. Where it lies in what is compressed is not known."""

    def read(self, at: Place) -> bytes:
        """The bytes of a place; fewer where it ends before. Raises StorageError, see `Gunzip`."""
        if at.start < self.position:
            self._file = Gunzip(RangeFile(self._uri))
        self._file.seek(at.start)
        return self._file.read(at.length) or b""


class _Shelf:
    """Open containers that nobody reads at the moment."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: list[tuple[Key, Opened]] = []

    def take(self, key: Key, start: int) -> Opened | None:
        """The one that is nearest before a position."""
        with self._lock:
            fit = [pair for pair in self._kept if pair[0] == key and pair[1].position <= start]
            if not fit:
                return None
            best = max(fit, key=lambda pair: pair[1].position)
            self._kept.remove(best)
            return best[1]

    def put(self, key: Key, opened: Opened) -> None:
        """Keep one, and let go of the one that was kept longest."""
        with self._lock:
            self._kept = [*self._kept, (key, opened)][-KEPT:]


_shelf = _Shelf()


class Series:
    """Members of one container, read in the order in which they were added.

    Attributes:
        following: of the container that will be asked for next: it is opened meanwhile.
    """

    def __init__(self, key: Key) -> None:
        """Nothing is opened yet."""
        self._key = key
        self.following: Series | None = None
        self._waiting: list[tuple[int, Any]] = []
        self._done = 0
        self._found: dict[int, bytes | Exception] = {}
        self._opened: Opened | None = None
        self._is_fresh = False
        self._refused: GazecoreError | None = None
        self._lock = threading.Lock()

    def add(self, index: int, at: Any) -> None:
        """A member that will be asked for: a `Place`, or a row's number."""
        self._waiting.append((index, at))

    def take(self, index: int) -> bytes:
        """A member, once; those that were added before it are read before it. Raises as `fetch`."""
        with self._lock:
            following, self.following = self.following, None
            if following:
                in_background.submit(following.begin)
            while index not in self._found:
                self._read_next()
            found = self._found.pop(index)
        if isinstance(found, Exception):
            raise found
        return found

    def close(self) -> None:
        """Leave the container to others."""
        with self._lock:
            if self._opened:
                _shelf.put(self._key, self._opened)
            self._opened = None

    def begin(self) -> None:
        """Read the first member before somebody asks for it."""
        with self._lock:
            if not self._done:
                self._read_next()

    def _read_next(self) -> None:
        number, at = self._waiting[self._done]
        self._found[number] = self._read(at)
        self._done += 1

    def _read(self, at: Any) -> bytes | Exception:
        if self._refused:
            return self._refused
        try:
            if self._opened is None:
                self._open(at)
        except GazecoreError as error:
            self._refused = error
            return error
        assert self._opened is not None
        try:
            return self._opened.read(at)
        except StorageUnavailable as error:
            self._opened, self._refused = None, error
            return error
        except StorageError as error:
            if self._is_fresh:
                return error
            # It may have been replaced since another shard's reader opened it.
            self._opened, self._is_fresh = None, True
            return self._read(at)
        except Exception as error:
            return error

    def _open(self, at: Any) -> None:
        container, column, _ = self._key
        is_place = isinstance(at, Place)
        if not self._is_fresh:
            self._opened = _shelf.take(self._key, at.start if is_place else at)
        if self._opened is None:
            self._is_fresh = True
            self._opened = CompressedTar(container) if is_place else open_table(container, column)
        self._opened.expect(max(place for _, place in self._waiting))
