"""Paths that are local or any fsspec URI, and how whole files are published on them.

A file appears atomically or not at all: one PUT of the whole object on object storage,
write-then-rename on file systems. Endpoints and keys come from the standard environment
variables of each storage (`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, ...).
"""

import errno
import io
import logging
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, TypeVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import stamina
from botocore.exceptions import FlexibleChecksumError
from fsspec.implementations.local import LocalFileSystem

from gazecore.errors import DamagedTable, InputError, one_line
from gazecore.refusals import asking, feature_refused, putting
from gazecore.temporaries import is_alive, is_temporary, temporary_path
from gazecore.web import guarded_session

READS = 3
"""How often bytes that make no sense are fetched."""

Read = TypeVar("Read")

_log = logging.getLogger(__name__)

_NONSENSE = (
    pa.ArrowException, OSError, ValueError, TypeError, LookupError, OverflowError, MemoryError,
)  # fmt: skip
"""What Arrow raises where a footer or a page is not what it says; its own errors of reading are
OSErrors too."""

_CUT = (DamagedTable, FlexibleChecksumError)

_PASSWORD = re.compile(r"[^/?#@]*:[^/?#]*@")


def protocol_of(uri: str) -> str:
    """What stands before `://` in lower case; `file` for a path on this machine."""
    protocol = uri.partition("://")[0].lower() if "://" in uri else "file"
    return "file" if protocol == "local" else protocol


def refuse_password(uri: str) -> None:
    """Raise InputError if a URI holds a password, which would end in tables and settings."""
    if "@" in uri and _PASSWORD.match(uri.partition("://")[2]):
        raise InputError(
            f"{uri} holds a password: give it by the storage's environment variables instead"
        )


class Location:
    """A directory or file on some storage: the file system and the path on it."""

    def __init__(self, uri: str, **options: Any) -> None:
        """Open the storage of `uri`, a local path or an fsspec URI.

        Args:
            uri: where.
            options: for the file system's class; none for a path.

        A `::` is part of a name. To fsspec it means a chain of file systems, by which an object's
        name in a bucket could lead to files of this machine.

        Raises:
            InputError: the protocol is unknown or its package is not installed, or the URI holds a
                password.
        """
        refuse_password(uri)
        try:
            if "\0" in uri:
                raise ValueError("a path cannot hold a null byte")
            fs, path = _open(uri, options) if "://" in uri else (LocalFileSystem(), uri)
        except Exception as error:  # every storage's constructor has its own kinds
            raise InputError(f"cannot open {uri}: {one_line(error)}") from error
        self.fs: Any = fs
        if isinstance(fs, LocalFileSystem):
            path = os.path.abspath(path)
        self.path: str = path.rstrip("/") or "/"

    @property
    def is_local(self) -> bool:
        """Whether this is on a file system of this machine."""
        return isinstance(self.fs, LocalFileSystem)

    @property
    def uri(self) -> str:
        """The location as others can open it: a path if local, else with its protocol."""
        return self.path if self.is_local else str(self.fs.unstrip_protocol(self.path))

    def __truediv__(self, name: str) -> "Location":
        child = object.__new__(Location)
        child.fs, child.path = self.fs, f"{self.path.rstrip('/')}/{name}"
        return child

    def exists(self) -> bool:
        """Whether a file or directory is there. Raises KeysRefused, or what the storage says."""
        with asking(self.fs, self.path, self.uri):
            return bool(self.fs.exists(self.path))

    def read_bytes(self) -> bytes:
        """The whole file. Raises FileNotFoundError, or OSError for what is no file."""
        if self.is_local:
            return read_regular(self.path)
        data: bytes = self.fs.cat_file(self.path)
        return data

    def read_table(self, columns: list[str] | None = None) -> pa.Table:
        """The whole Parquet file, or some of its columns. Raises InputError as `read_parquet`."""

        def read(file: pq.ParquetFile) -> pa.Table:
            if missing := set(columns or ()) - set(file.schema_arrow.names):
                raise InputError(f"{self.uri} has no column {', '.join(sorted(missing))}")
            return file.read(columns, use_threads=False)

        return self.read_parquet(read)

    def read_parquet(self, read: Callable[[pq.ParquetFile], Read]) -> Read:
        """Apply a function to a Parquet file, whose page checksums are verified where it has them.

        The bytes are fetched first: Arrow's own threads that still hold Python's when a process
        ends can abort it (seen in 2 of 240 processes that ended at once), so `read` may use none.
        Bytes that make no sense are fetched again: they may have been cut on their way.

        Raises:
            InputError: it is not a Parquet file, or lacks a column.
        """
        for attempt in self.reads():
            with attempt:
                data = self.read_bytes()
                with self.refusing_damage():
                    file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
                    return read(file)
        raise AssertionError

    @contextmanager
    def refusing_damage(self) -> Iterator[None]:
        """For a block that parses bytes of this file: whatever is wrong with them names it.

        Raises:
            DamagedTable: in place of all that Arrow raises on bytes that it cannot make sense of.
        """
        try:
            yield
        except InputError:
            raise
        except _NONSENSE as error:
            raise DamagedTable(f"{self.uri} is not a readable table: {one_line(error)}") from error

    def reads(self) -> Iterator[stamina.Attempt]:
        """Attempts at reading a Parquet file whose bytes may be cut on their way."""
        attempts = 1 if self.is_local else READS
        return iter(stamina.retry_context(on=_CUT, attempts=attempts))

    def names(self) -> list[str]:
        """Sorted names of the files directly inside; empty where there is no directory."""
        self.fs.invalidate_cache(self.path)
        try:
            entries = self.fs.ls(self.path, detail=False)
        except FileNotFoundError:
            return []
        return sorted(entry.rstrip("/").rsplit("/", 1)[-1] for entry in entries)

    def modified(self) -> dict[str, float]:
        """When each file directly inside was written: name to seconds since 1970."""
        self.fs.invalidate_cache(self.path)
        times = {}
        for info in self.fs.ls(self.path, detail=True) if self.exists() else []:
            when = info.get("mtime", info.get("LastModified", info.get("created")))
            if isinstance(when, datetime):
                when = when.timestamp()
            if when is not None:
                times[info["name"].rsplit("/", 1)[-1]] = float(when)
        return times

    def publish(self, data: bytes, *, create: bool = False) -> None:
        """Make `data` appear here as a whole.

        Args:
            data: the file's content.
            create: refuse to replace what is there, instead of replacing it.

        Raises:
            FileExistsError: with `create`, something is there already.
        """
        if not self.is_local:
            self._put(data, create)
            return
        with self._temporary() as temporary:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if create:
                os.link(temporary, self.path)
                os.unlink(temporary)
            else:
                os.replace(temporary, self.path)

    def _put(self, data: bytes, create: bool) -> None:
        with putting(self.uri):
            if create:
                try:
                    self.fs.pipe_file(self.path, data, mode="create")
                    return
                except OSError as error:
                    if not feature_refused(error):
                        raise
                # Of a storage without conditions: it is looked for, and then written.
                self.fs.invalidate_cache(self.path)
                if self.exists():
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self.uri)
            self.fs.pipe_file(self.path, data)

    @contextmanager
    def staged(self) -> Iterator[str]:
        """For a file that is too large for memory: gives the path of a local file to write.

        It appears here as a whole when the block ends, replacing what is there, and not at all if
        the block raises. What writers of this file that were killed left beside it is deleted.
        """
        if not self.is_local:
            with tempfile.TemporaryDirectory(prefix="gazecore-") as folder:
                path = f"{folder}/file"
                yield path
                with putting(self.uri):
                    self.fs.put_file(path, self.path)
            return
        parent, name = os.path.split(self.path)
        Location(parent).remove_temporaries(of=name)
        with self._temporary() as temporary:
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, self.path)

    @contextmanager
    def _temporary(self) -> Iterator[str]:
        """A name beside this local file, for one that becomes it; deleted if the block raises."""
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        temporary = temporary_path(self.path)
        try:
            yield temporary
        except BaseException as error:
            if os.path.exists(temporary):
                os.unlink(temporary)
            if isinstance(error, OSError) and error.errno and error.filename is None:
                error.filename = self.path  # a full disk does not say where
            raise

    def remove_temporaries(self, of: str | None = None) -> None:
        """Delete what writers that are gone left directly inside.

        Of a writer on this machine it is known whether it is gone; of others, after a day.

        Args:
            of: only what writers of the file of this name left.
        """
        for name, when in self.modified().items():
            if is_temporary(name, of) and not is_alive(name, time.time() - when):
                with suppress(PermissionError):  # of a folder that is only read
                    (self / name).remove()

    def remove(self) -> None:
        """Delete this file if it is there."""
        try:
            self.fs.rm_file(self.path)
        except FileNotFoundError:
            pass


def parquet_bytes(table: pa.Table, **options: Any) -> bytes:
    """A Parquet file of a table, with checksums of its pages; zstd where `options` do not say."""
    buffer = io.BytesIO()
    options = {"compression": "zstd", **options}
    pq.write_table(table, buffer, write_page_checksum=True, **options)
    return buffer.getvalue()


def read_regular(path: str, end: int = -1, start: int = 0) -> bytes:
    """The bytes of a file of this machine from `start` to `end`, or to its own.

    Raises:
        OSError: of EINVAL for what is no regular file. A pipe would be waited for without end, a
            device can be changed by reading it; whatever takes the file's place meanwhile is not
            waited for either.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", path)
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", path)
        file.seek(start)
        return file.read(max(-1, end - start))


def _tell(details: stamina.instrumentation.RetryDetails) -> None:
    """In place of stamina's own hook, which prints to standard output."""
    _log.info("again in %.1f s, after %s", details.wait_for, one_line(details.caused_by))


stamina.instrumentation.set_on_retry_hooks([_tell])


def _open(uri: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    protocol = protocol_of(uri)
    kind = fsspec.get_filesystem_class(protocol)
    options = {**kind._get_kwargs_from_urls(uri), **options}
    if protocol in ("http", "https"):
        options["get_client"] = guarded_session
    return kind(**options), kind._strip_protocol(uri)
