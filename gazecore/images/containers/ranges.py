"""A container as a file that is read by ranges, and a compressed one that is read in order."""

import gzip
import io
import zlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import Any

from gazecore.errors import GazecoreError, StorageError
from gazecore.images.fetch import fetch_part, object_size

AHEAD = 4 * 2**20
"""Bytes of a request where what follows will be wanted, too."""

FIRST = 2**16
"""Bytes of a request after a jump."""

_COMING = 3
"""Requests that are on their way beside the one that is read from."""

_NEAR = 2**20
"""A jump ahead of at most so many bytes is read over: that costs less than a request."""

_RATIO, _FREE = 100, 2**28
"""A compressed container may unpack to so many times its bytes, and so many bytes beside that."""

in_background = ThreadPoolExecutor(16, "gazecore-ahead")
_ONCE = Event()
_ONCE.set()
"""Nobody waits for what is read ahead: where it fails, it is read again when it is wanted."""


class RangeFile(io.RawIOBase):
    """An object, whose errors that may pass are tried again. While it is read on, the next ranges
    are on their way.

    Attributes:
        size: bytes.
        error: of the storage, that a read ended with; who reads through a library that turns it
            into its own finds it here.
        until: where reading ahead ends.
    """

    def __init__(self, uri: str) -> None:
        """Ask for its size. Raises as `fetch`."""
        self.size = self.until = object_size(uri)
        self.error: GazecoreError | None = None
        self._uri, self._at, self._start, self._data = uri, 0, 0, b""
        self._is_expected = False
        self._coming: deque[tuple[int, int, Future[bytes]]] = deque()

    def readable(self) -> bool:
        """See `io.IOBase`."""
        return True

    def seekable(self) -> bool:
        """See `io.IOBase`."""
        return True

    def tell(self) -> int:
        """See `io.IOBase`."""
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        """See `io.IOBase`."""
        self._at = offset + (0, self._at, self.size)[whence]
        if self._at < 0:
            raise ValueError("before its begin")
        return self._at

    def expect(self, end: int) -> None:
        """What is read next goes on to `end`, and not beyond."""
        self.until, self._is_expected = end, True

    def readinto(self, buffer: Any) -> int:
        """All that is asked for, unless the file ends before. Raises as `fetch`."""
        view, done = memoryview(buffer).cast("B"), 0
        while done < len(view) and self._at < self.size:
            if not self._start <= self._at < self._start + len(self._data):
                self._request(len(view) - done)
            skip = self._at - self._start
            piece = self._data[skip : skip + len(view) - done]
            view[done : done + len(piece)] = piece
            done += len(piece)
            self._at += len(piece)
        return done

    def _request(self, wanted: int) -> None:
        goes_on = self._is_expected or 0 <= self._at - self._start - len(self._data) <= _NEAR
        self._is_expected = False
        self._start, self._data = self._at, b""
        while self._coming and not self._data:
            start, end, future = self._coming.popleft()
            if start <= self._at < end and not future.exception():
                self._start, self._data = start, future.result()
            elif self._at < start:
                self._coming.clear()
        ahead = min(self.until - self._at, AHEAD if goes_on else FIRST)
        end = min(self.size, self._at + max(wanted, ahead))
        try:
            if self._at >= self._start + len(self._data):
                self._start = self._at
                self._data = fetch_part(self._uri, self._at, end)
            if not self._data:
                raise StorageError("it has become shorter while it was read")
        except GazecoreError as error:
            self.error = error
            raise
        follows = self._coming[-1][1] if self._coming else self._start + len(self._data)
        last = min(self.until, self.size) if goes_on else 0
        while follows < last and len(self._coming) < _COMING:
            end = min(last, follows + AHEAD)
            future = in_background.submit(fetch_part, self._uri, follows, end, _ONCE)
            self._coming.append((follows, end, future))
            follows = end


class Gunzip(io.RawIOBase):
    """What a file unpacks to, which is read in order: seeking leads ahead only."""

    def __init__(self, file: RangeFile) -> None:
        self.file = file
        self._gzip = gzip.GzipFile(fileobj=io.BufferedReader(file, 2**18))

    def readable(self) -> bool:
        """See `io.IOBase`."""
        return True

    def tell(self) -> int:
        """See `io.IOBase`."""
        return self._gzip.tell()

    def seek(self, offset: int, whence: int = 0) -> int:
        """See `io.IOBase`. Raises StorageError as `readinto`."""
        if whence or offset < self.tell():
            raise io.UnsupportedOperation("it is read in order")
        while (left := offset - self.tell()) and self.read(min(left, 2**20)):
            pass
        return self.tell()

    def readinto(self, buffer: Any) -> int:
        """All that is asked for, unless the file ends before.

        Raises:
            StorageError: it is damaged, or unpacks to more than files of images do.
        """
        view, done = memoryview(buffer).cast("B"), 0
        try:
            while done < len(view) and (count := self._gzip.readinto(view[done : done + 2**20])):
                done += count
                if self.tell() > _FREE + _RATIO * self.file.tell():
                    raise StorageError(f"it unpacks to more than {_RATIO} times its own bytes")
        except (OSError, EOFError, zlib.error) as error:
            raise StorageError(f"its compression is damaged: {error}") from error
        return done
