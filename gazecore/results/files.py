"""A run's files on their storage: listed, and many of them read at the same time."""

import io
import itertools
import logging
import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import stamina
from s3fs import S3FileSystem

from gazecore.errors import one_line
from gazecore.images import s3
from gazecore.shards.directory import shard_name, shard_numbers
from gazecore.storage import READS, Location

_log = logging.getLogger(__name__)

READERS = 32
"""Requests to a storage at the same time."""

WHOLE = 2**20
"""Bytes of a file that is read by one request, whatever is wanted of it; larger ones by ranges."""

_AHEAD = 2 * READERS
"""Small files that are fetched before they are asked for, and that are kept for a second look."""

_PAGE = 1000
"""Objects in an answer of S3."""

_WRITTEN = ("mtime", "LastModified", "created")
_VERSION = ("ETag", "etag", "md5Hash", "content_md5", "mtime", "LastModified", "created")
"""What storages tell in their listings of a file's version, the most telling first."""


class Object(Location):
    """A file that obstore reads where it is on S3, in a fifth of the processor's time."""

    def __init__(self, location: Location) -> None:
        self.fs, self.path = location.fs, location.path

    def read_bytes(self) -> bytes:
        """The whole file. Raises FileNotFoundError, or OSError for what is no file."""
        return super().read_bytes() if self.is_local else self.read_range()

    def read_range(self, start: int = 0, end: int | None = None) -> bytes:
        """Some bytes of a file that is not on this machine.

        Args:
            start: the first.
            end: the one after the last; None for the whole file, from 0.
        """
        for attempt in stamina.retry_context(on=_may_pass, attempts=READS):
            with attempt:
                if isinstance(self.fs, S3FileSystem):
                    last, first = (sys.maxsize, None) if end is None else (end, start)
                    return s3.read(self.fs, self.path, last, lambda: self._cat(start, end), first)
                return self._cat(start, end)
        raise AssertionError

    def _cat(self, start: int, end: int | None) -> bytes:
        data: bytes = self.fs.cat_file(self.path, start=start or None, end=end)
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
        version: ETag, or when it was written; empty where the storage does not say.
        written: when, seconds since 1970; None where the storage does not say.
    """

    name: str
    object: Object
    size: int
    version: str = ""
    written: float | None = None


def list_files(folder: Location) -> list[File]:
    """The Parquet files directly inside, by name; empty where there is no directory."""
    found = _listed_by_obstore(folder) if isinstance(folder.fs, S3FileSystem) else []
    return sorted(found or _listed(folder), key=lambda file: file.name)


def _listed(folder: Location) -> list[File]:
    folder.fs.invalidate_cache(folder.path)
    try:
        entries = folder.fs.ls(folder.path, detail=True)
    except FileNotFoundError:
        return []
    files = []
    for entry in entries:
        if entry["type"] == "file":
            version = next((entry[key] for key in _VERSION if entry.get(key) is not None), "")
            when = next((entry[key] for key in _WRITTEN if entry.get(key) is not None), None)
            files += _file(folder, entry["name"], entry["size"], version, when)
    return files


def _file(folder: Location, path: str, size: int, version: Any, when: Any) -> list[File]:
    """A file of the folder, unless it is none of ours."""
    name = path.rsplit("/", 1)[-1]
    if not name.endswith(".parquet"):
        return []
    written = when.timestamp() if isinstance(when, datetime) else when
    return [File(name, Object(folder / name), int(size), str(version).strip('"'), written)]


def _listed_by_obstore(folder: Location) -> list[File]:
    """A large folder of S3 by ranges of its names, many at a time: a request has a thousand, and
    one that follows another cannot be sent before that is answered. Empty where obstore cannot."""

    def files(pages: Iterable[Sequence[Any]], last: str | None = None) -> list[File]:
        """Up to a last name, if one is given."""
        found: list[File] = []
        for page in pages:
            for meta in page:
                name = meta["path"].rsplit("/", 1)[-1]
                if last is not None and name > last:
                    return found
                is_inside = meta["path"].count("/") == depth
                when, tag = meta["last_modified"], meta["e_tag"] or meta["last_modified"]
                found += _file(folder, name, meta["size"], tag, when) if is_inside else []
                if name == last:  # so that the next request is not sent
                    return found
        return found

    def between(bounds: tuple[str, str]) -> list[File]:
        return files(s3.pages(folder.fs, folder.path, bounds[0]), bounds[1])

    depth = folder.fs.split_path(folder.path)[1].count("/") + 1
    try:
        with closing(s3.pages(folder.fs, folder.path)) as pages:
            found = files(itertools.islice(pages, 2))
            if len(found) <= _PAGE:
                return found + files(pages)
        end, wide = max(shard_numbers([found[-1].name]), default=0) // _PAGE + 1, 4
        bounds = [found[-1].name]
        with ThreadPoolExecutor(READERS) as pool:
            while True:
                bounds += [shard_name(_PAGE * number - 1) for number in range(end, end + wide)]
                parts = list(pool.map(between, itertools.pairwise(bounds)))
                found += itertools.chain(*parts)
                end, wide, bounds = end + wide, min(2 * wide, READERS), bounds[-1:]
                if not parts[-1]:  # what comes still, where there are gaps or longer names
                    found += files(s3.pages(folder.fs, folder.path, bounds[0]))
                    return list({file.name: file for file in found}.values())
    except OSError as error:
        _log.info("%s is listed by s3fs: %s", folder.uri, one_line(error))
        return []


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
        self._coming: OrderedDict[int, Future[bytes]] = OrderedDict()
        self._recent: OrderedDict[int, Future[bytes]] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self._asked, self._furthest = 0, -1

    def open(self, name: str) -> Any:
        """A file, to be read and sought in. Raises LookupError where there is none."""
        file = self.files[name]
        if file.size <= WHOLE:
            data = self._read(name)
            self._sizes[name] = len(data)
            return io.BytesIO(data)
        return opened(file)

    def size(self, name: str) -> int:
        """Bytes of a file that was opened: a shard may have been replaced since it was listed."""
        return self._sizes.get(name, self.files[name].size)

    def _read(self, name: str) -> bytes:
        place = self._place[name]
        with self._lock:
            fetched = self._coming.pop(place, None) or self._recent.get(place)
            if fetched is None:
                fetched = self._fetch(self.files[name])
            self._recent[place] = fetched
            self._recent.move_to_end(place)
            while len(self._recent) > _AHEAD:
                self._recent.popitem(last=False)
            if not self.files[name].object.is_local:
                self._fetch_ahead(place)
        return fetched.result()

    def _fetch(self, file: File) -> Future[bytes]:
        if not file.object.is_local:
            return self._pool.submit(file.object.read_bytes)
        fetched = Future[bytes]()  # which is sooner done than handed to another thread
        fetched.set_result(file.object.read_bytes())
        return fetched

    def _fetch_ahead(self, place: int) -> None:
        if place > self._furthest:
            self._furthest = place
            self._asked += 1
        ahead = min(_AHEAD, 2 * (self._asked - 1))
        for number in range(place + 1, min(place + ahead + 1, len(self._ordered))):
            file = self._ordered[number]
            is_known = number in self._coming or number in self._recent
            if not is_known and file.size <= WHOLE:
                self._coming[number] = self._fetch(file)
        while len(self._coming) > 2 * _AHEAD:
            self._coming.popitem(last=False)[1].cancel()


def opened(file: File) -> io.RawIOBase:
    """A file of which only what is wanted is read. Use as a context manager, or let go of it."""
    return _Opened(file)


class _Opened(io.RawIOBase):
    """DuckDB seeks and reads by several threads in one file, as if nothing could come between the
    two: so each thread has a place of its own."""

    def __init__(self, file: File) -> None:
        super().__init__()
        self._object, self._size = file.object, file.size
        self._descriptor: int | None = None
        if self._object.is_local:
            self._descriptor = os.open(self._object.path, os.O_RDONLY | os.O_CLOEXEC)
            self._size = os.fstat(self._descriptor).st_size
        self._own = threading.local()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return getattr(self._own, "place", 0)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: self._size}[whence]
        self._own.place = begin + offset
        return self.tell()

    def read(self, size: int | None = -1) -> bytes:
        start, most = self.tell(), self._size - self.tell()
        count = most if size is None or size < 0 else min(size, most)
        if count <= 0:
            return b""
        if self._descriptor is None:
            data = self._object.read_range(start, start + count)
        else:
            data = os.pread(self._descriptor, count, start)
        self._own.place = start + len(data)
        return data

    def close(self) -> None:
        super().close()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
