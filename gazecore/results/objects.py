"""A run's files on their storage: listed, and many of them read at the same time."""

import io
import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import stamina
from s3fs import S3FileSystem

from gazecore.images import s3
from gazecore.storage import READS, Location

READERS = 32
"""Requests to a storage at the same time."""

WHOLE = 2**20
"""Bytes of a file that is read by one request, whatever is wanted of it; larger ones by ranges."""

_AHEAD = 2 * READERS
_HELD = 2 * _AHEAD


class Object(Location):
    """A file that obstore reads where it is on S3, in a fifth of the processor's time."""

    def __init__(self, location: Location) -> None:
        self.fs, self.path = location.fs, location.path

    def read_bytes(self) -> bytes:
        """The whole file. Raises FileNotFoundError, or OSError for what is no file."""
        if self.is_local:
            return super().read_bytes()
        return self.read_range(None, None)

    def read_range(self, start: int | None, end: int | None) -> bytes:
        """Some bytes of a file.

        Args:
            start: the first, None for 0.
            end: the one after the last, None for the file's end.
        """
        if self.is_local:
            with open(self.path, "rb") as file:
                file.seek(start or 0)
                return file.read(-1 if end is None else end - (start or 0))
        for attempt in stamina.retry_context(on=_may_pass, attempts=READS):
            with attempt:
                if isinstance(self.fs, S3FileSystem):
                    last = sys.maxsize if end is None else end
                    return s3.read(self.fs, self.path, last, lambda: self._cat(start, end), start)
                return self._cat(start, end)
        raise AssertionError

    def _cat(self, start: int | None, end: int | None) -> bytes:
        data: bytes = self.fs.cat_file(self.path, start=start, end=end)
        return data


def _may_pass(error: Exception) -> bool:
    lasting = FileNotFoundError | PermissionError | IsADirectoryError
    return isinstance(error, OSError) and not isinstance(error, lasting)


@dataclass(frozen=True)
class File:
    """A file of a run.

    Attributes:
        name: in its folder.
        object: where it is.
        size: bytes.
    """

    name: str
    object: Object
    size: int


def list_files(folder: Location) -> list[File]:
    """The Parquet files directly inside, by name; empty where there is no directory."""
    folder.fs.invalidate_cache(folder.path)
    try:
        entries = folder.fs.ls(folder.path, detail=True)
    except FileNotFoundError:
        return []
    files = []
    for entry in entries:
        name = entry["name"].rsplit("/", 1)[-1]
        if name.endswith(".parquet") and entry["type"] == "file":
            files.append(File(name, Object(folder / name), int(entry["size"])))
    return sorted(files, key=lambda file: file.name)


class Folder:
    """Files that are read in their order more or less, by a reader who waits for each.

    Of small ones, which are read whole, those that come next are fetched meanwhile, once it shows
    that more than one is wanted.
    """

    def __init__(self, files: Sequence[File], pool: ThreadPoolExecutor) -> None:
        """Args: files: in their order; pool: what fetches."""
        self.files = {file.name: file for file in files}
        self._ordered = list(files)
        self._place = {file.name: place for place, file in enumerate(files)}
        self._pool = pool
        self._lock = threading.Lock()
        self._fetched: OrderedDict[int, Future[bytes]] = OrderedDict()
        self._asked, self._furthest = 0, -1

    def open(self, name: str) -> Any:
        """A file, to be read and sought in. Raises LookupError where there is none."""
        file = self.files[name]
        is_whole = file.size <= WHOLE and not file.object.is_local
        return io.BytesIO(self._read(name)) if is_whole else _Ranges(file)

    def _read(self, name: str) -> bytes:
        place = self._place[name]
        with self._lock:
            if place > self._furthest:
                self._furthest = place
                self._asked += 1
            ahead = min(_AHEAD, 4 * (self._asked - 1))
            for number in range(place, min(place + ahead + 1, len(self._ordered))):
                file = self._ordered[number]
                if number not in self._fetched and (number == place or file.size <= WHOLE):
                    self._fetched[number] = self._pool.submit(file.object.read_bytes)
            self._fetched.move_to_end(place)
            fetched = self._fetched[place]
            while len(self._fetched) > _HELD:
                self._fetched.popitem(last=False)
        return fetched.result()


class _Ranges(io.RawIOBase):
    """A file of which each read is a request. Nothing of it stays open: DuckDB closes some late."""

    def __init__(self, file: File) -> None:
        super().__init__()
        self._file, self._place = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._file.size}[whence]
        self._place = begin + offset
        return self._place

    def read(self, size: int | None = -1) -> bytes:
        most = self._file.size - self._place
        count = most if size is None or size < 0 else min(size, most)
        if count <= 0:
            return b""
        data = self._file.object.read_range(self._place, self._place + count)
        self._place += len(data)
        return data
