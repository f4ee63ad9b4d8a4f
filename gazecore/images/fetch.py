"""URIs become bytes. What is gone for good is told apart from what may come back."""

import errno
import functools
from collections.abc import Callable
from contextlib import suppress
from threading import Event
from typing import TypeVar

import aiohttp
import stamina
from fsspec.implementations.http import HTTPFileSystem
from s3fs import S3FileSystem
from yarl import URL

from gazecore import courtesy
from gazecore.errors import (
    AccessDenied,
    AskedToWait,
    ImageError,
    KeysRefused,
    StorageError,
    StorageUnavailable,
    TooLarge,
    one_line,
)
from gazecore.images import azure, gcs, s3
from gazecore.images.answers import PASSING_CODES, telling_apart
from gazecore.images.formats import Limits
from gazecore.images.objects import Object
from gazecore.refusals import code_of, keys_refused
from gazecore.storage import Location, protocol_of, read_regular
from gazecore.web import read_at_most

RETRY_SECONDS = 60
"""How long transient errors of the storage are waited out, per image."""

PAUSE_SECONDS = 120
"""How long an image waits, beside that, where a server of the web asks for it."""

_FINAL = (ImageError, KeysRefused, AskedToWait, MemoryError)

Read = TypeVar("Read")


def fetch(uri: str, size: int | None, limits: Limits, given_up: Event | None = None) -> bytes:
    """Read one object.

    Args:
        uri: a path or URI; for a member of a container, see `gazecore.images.read`.
        size: in bytes, if the plan knows it; spares a request for objects over the cap.
        limits: the byte cap; of a larger object, at most one byte more than the cap is read.
        given_up: is set once nobody waits for the object: it is not tried again then.

    Raises:
        NotFound, AccessDenied, StorageError, TooLarge: final for this image.
        StorageUnavailable: transient errors went on for longer than RETRY_SECONDS.
        KeysRefused: the storage does not know the keys, or there are none.
    """
    if size is not None and size > limits.max_bytes:
        raise too_large(limits)
    data = patiently(uri, lambda: _read(uri, size, limits), given_up)
    if len(data) > limits.max_bytes:
        raise too_large(limits)
    return data


def fetch_part(uri: str, start: int, end: int, given_up: Event | None = None) -> bytes:
    """Bytes of an object from `start` to `end`, fewer where it ends before; raises as `fetch`."""
    return patiently(uri, lambda: _read_part(uri, start, end), given_up)


def object_size(uri: str) -> int:
    """Bytes of an object; raises as `fetch`, StorageError also where nobody says how many."""

    def ask(place: Location | Object) -> int:
        if isinstance(place, Object):
            return place.size()
        place.fs.invalidate_cache(place.path)
        info = place.fs.info(place.path)
        if info["type"] != "file" or info.get("size") is None:
            raise StorageError("it is no file, or its storage does not say how long it is")
        return int(info["size"])

    return patiently(uri, lambda: _read_there(uri, ask)[0])


def patiently(uri: str, read: Callable[[], Read], given_up: Event | None = None) -> Read:
    """Do what reads of a storage, again and again while its errors are such as may pass.

    That is for RETRY_SECONDS, after waits that double from 0.1 to 15 seconds and up to a second
    more each, by chance, so that many readers do not come back together. Waits for a turn at a
    server of the web, and those that it asks for, come on top. Raises as `fetch`.

    Args:
        uri: what is read.
        read: reads it, once.
        given_up: see `fetch`.
    """

    host, paused = _host(uri), 0.0
    while True:
        if host:
            courtesy.turns.wait(host, given_up)
        try:
            return _until_it_stays(uri, host, read, given_up)
        except AskedToWait as error:
            paused += error.seconds
            if paused > PAUSE_SECONDS or (given_up and given_up.is_set()):
                raise StorageUnavailable(f"{uri}: {error}") from error
            courtesy.turns.hold(error.host, error.seconds)


def _until_it_stays(uri: str, host: str, read: Callable[[], Read], given_up: Event | None) -> Read:
    """`patiently`, up to where a server asks for a pause. Raises AskedToWait, too."""

    def may_pass(error: Exception) -> bool:
        return not isinstance(error, _FINAL) and not (given_up and given_up.is_set())

    try:
        for attempt in stamina.retry_context(
            on=may_pass, attempts=None, timeout=RETRY_SECONDS, wait_max=15
        ):
            with attempt:
                if host and attempt.num > 1:
                    courtesy.turns.wait(host, given_up)
                return telling_apart(uri, read)
    except MemoryError as error:
        raise TooLarge("reading it needs more memory than there is") from error
    except _FINAL:
        raise
    except Exception as error:
        raise StorageUnavailable(f"{uri}: {type(error).__name__}: {one_line(error)}") from error
    raise AssertionError


def _read(uri: str, size: int | None, limits: Limits) -> bytes:
    end = limits.max_bytes + 1
    data, place = _read_there(uri, lambda place: _read_capped(place, end))
    if size is not None and len(data) < min(size, end):
        _refuse_part(place, data)
    return data


def _read_part(uri: str, start: int, end: int) -> bytes:
    data, place = _read_there(uri, lambda place: _read_capped(place, end, start))
    if len(data) < end - start:
        _refuse_part(place, data, start)
    return data


def _read_there(
    uri: str, read: Callable[[Location | Object], Read]
) -> tuple[Read, Location | Object]:
    """What is read of an object, and from where: by obstore alone where that can."""
    place = _find(uri) or _open(uri)
    try:
        return read(place), place
    except NotImplementedError:
        if isinstance(place, Location):
            raise
        place = _open(uri)
        return read(place), place


def _host(uri: str) -> str:
    """The web server that a URI names; empty where it is none."""
    if protocol_of(uri) in ("http", "https"):
        with suppress(ValueError):
            return URL(uri).host or ""
    return ""


def _find(uri: str) -> Object | None:
    """The object, where obstore alone reads it."""
    protocol = protocol_of(uri)
    if protocol in ("gs", "gcs"):
        return gcs.find(uri)
    if protocol in ("az", "abfs", "abfss"):
        return azure.find(uri)
    return None


def _open(uri: str) -> Location:
    """The object, on a storage that leaves it to `fetch` to try again.

    On S3 two layers of clients would each do so on their own: minutes for a single attempt.
    """
    if not uri.startswith(("s3://", "s3a://")):
        return Location(uri)
    # A new dictionary each time: botocore writes into it, and fsspec knows a client by it.
    location = Location(uri, config_kwargs={"retries": {"total_max_attempts": 1}})
    location.fs.retries = 1
    return location


def _read_capped(location: Location | Object, end: int, start: int | None = None) -> bytes:
    if isinstance(location, Object):
        return location.read(end) if start is None else location.read_range(start, end)
    if location.is_local:
        return read_regular(location.path, end, start or 0)
    if isinstance(location.fs, HTTPFileSystem):
        # Servers need not heed a range.
        return read_at_most(location.fs, location.path, end, start or 0)
    if isinstance(location.fs, S3FileSystem):
        by_s3fs = functools.partial(_read_range, location, end, start or 0)
        return s3.read(location.fs, location.path, end, by_s3fs, start)
    return _read_range(location, end, start or 0)


def _read_range(location: Location, end: int, start: int) -> bytes:
    try:
        data: bytes = location.fs.cat_file(location.path, start=start, end=end)
        return data
    except (OSError, aiohttp.ClientResponseError) as error:
        # S3 and HTTP refuse any range of an empty object, and one that begins beyond the end.
        refused = getattr(error, "status", None) == 416 or (
            isinstance(error, OSError) and error.errno == errno.EINVAL
        )
        is_of_keys = code_of(error) in PASSING_CODES or keys_refused(error, location.path)
        if refused and not is_of_keys and _size_now(location) <= start:
            return b""
        raise


def _refuse_part(location: Location | Object, data: bytes, start: int = 0) -> None:
    """Raise OSError unless `data`, which is less than was planned, is all that is there now.

    A body that was cut on its way can bear a header that says it was not.
    """
    there = max(0, _size_now(location) - start)
    if len(data) != there:
        raise OSError(f"{len(data)} bytes came of {there}")


def _size_now(location: Location | Object) -> int:
    try:
        if isinstance(location, Object):
            return location.size()
        location.fs.invalidate_cache(location.path)
        size: int = location.fs.info(location.path)["size"]
        return size
    except (PermissionError, AccessDenied, KeysRefused) as error:
        # Why, only the answer to the next GET can say.
        raise OSError(f"its size is refused: {one_line(error)}") from None


def too_large(limits: Limits) -> TooLarge:
    """The error of a file over the byte cap."""
    return TooLarge(f"the file has more than {limits.max_bytes} bytes (--limits.max-bytes)")
