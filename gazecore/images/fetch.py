"""URIs become bytes. What is gone for good is told apart from what may come back."""

import errno
import functools
import socket
from collections.abc import Callable
from threading import Event
from typing import TypeVar

import aiohttp
import stamina
from botocore.exceptions import NoCredentialsError, ParamValidationError
from fsspec.implementations.http import HTTPFileSystem
from s3fs import S3FileSystem

from gazecore.errors import (
    AccessDenied,
    ImageError,
    InputError,
    KeysRefused,
    NotFound,
    StorageError,
    StorageUnavailable,
    TooLarge,
    one_line,
)
from gazecore.images import azure, gcs, s3
from gazecore.images.formats import Limits
from gazecore.images.objects import PASSING_STATUS, Object
from gazecore.storage import Location, protocol_of, read_regular
from gazecore.web import read_at_most

RETRY_SECONDS = 60
"""How long transient errors of the storage are waited out, per image."""

_PASSING_ERRNOS = {
    None, errno.EAGAIN, errno.EBUSY, errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET,
    errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EINTR, errno.EIO, errno.EMFILE, errno.ENETDOWN,
    errno.ENETRESET, errno.ENETUNREACH, errno.ENFILE, errno.ENOBUFS, errno.ENOLCK, errno.ENOMEM,
    errno.ENOTCONN, errno.EPIPE, errno.EPROTO, errno.EREMOTEIO, errno.ESHUTDOWN, errno.ESTALE,
    errno.ETIMEDOUT, socket.EAI_AGAIN, socket.EAI_FAIL, socket.EAI_MEMORY, socket.EAI_SYSTEM,
}  # fmt: skip
"""What connections, file servers and machines that are short of something say, and libraries that
say nothing; every other word of a system is about the file, and stays."""

_PASSING_CODES = {
    "ExpiredToken", "ExpiredTokenException", "InvalidToken", "RequestTimeTooSkewed",
    "TokenRefreshRequired", "AuthorizationHeaderMalformed", "IncompleteBody", "400",
}  # fmt: skip
"""What S3 says of credentials that are renewed, of clocks and regions, and nothing of the object:
who comes with valid keys may find it. s3fs takes some of them for a refusal of access and some for
a bad argument."""

_REFUSED_CODES = {"InvalidAccessKeyId", "SignatureDoesNotMatch"}
"""What S3 says of keys that it does not know, to every request."""

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
    more each, by chance, so that many readers do not come back together. Raises as `fetch`.

    Args:
        uri: what is read.
        read: reads it, once.
        given_up: see `fetch`.
    """

    def may_pass(error: Exception) -> bool:
        return not isinstance(error, ImageError | KeysRefused | MemoryError) and not (
            given_up and given_up.is_set()
        )

    try:
        for attempt in stamina.retry_context(
            on=may_pass, attempts=None, timeout=RETRY_SECONDS, wait_max=15
        ):
            with attempt:
                return _telling_apart(uri, read)
    except (ImageError, KeysRefused):
        raise
    except MemoryError as error:
        raise TooLarge("reading it needs more memory than there is") from error
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


def _telling_apart(uri: str, read: Callable[[], Read]) -> Read:
    """Do it; what is gone for good is an ImageError, and what may come back another error."""
    try:
        return read()
    except InputError as error:
        cause = error.__cause__
        if isinstance(cause, ConnectionError | TimeoutError):
            raise cause from None  # some storages connect as soon as they are named
        raise NotFound(one_line(error)) from error
    except FileNotFoundError as error:
        # On the web, the message is the URL alone.
        words = one_line(error)
        raise NotFound("there is no such page (404)" if words == uri else words) from error
    except aiohttp.TooManyRedirects as error:
        raise StorageError("it redirects in circles") from error
    except aiohttp.ClientResponseError as error:
        words = f"the server answers {error.status} {error.message}".rstrip()
        if error.status in (404, 410):
            raise NotFound(words) from error
        if error.status in (401, 403):
            raise AccessDenied(words) from error
        if 400 <= error.status < 500 and error.status not in PASSING_STATUS:
            raise StorageError(words) from error
        raise
    except aiohttp.RedirectClientError as error:
        raise StorageError(f"it redirects to what is no web page: {one_line(error)}") from error
    except NoCredentialsError as error:
        raise KeysRefused(
            f"there are no keys for {uri}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "AWS_PROFILE, or give the machine a role"
        ) from error
    except (ValueError, TypeError, ParamValidationError) as error:
        raise StorageError(f"not a usable URI: {one_line(error)}") from error
    except OSError as error:
        code = _code(error)
        if code in _PASSING_CODES:
            raise
        if code in _REFUSED_CODES:
            words = f"the storage of {uri} refuses the keys: {one_line(error)}"
            raise KeysRefused(words) from error
        if isinstance(error, PermissionError):
            raise AccessDenied(one_line(error)) from error
        if error.errno in (socket.EAI_NONAME, socket.EAI_NODATA):
            host = getattr(error, "host", None) or uri
            raise NotFound(f"there is no host {host}: is its name right?") from error
        if error.errno not in _PASSING_ERRNOS:
            raise StorageError(one_line(error)) from error
        raise


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


def _code(error: Exception) -> str | None:
    """S3's own word for why a request was refused."""
    response = getattr(error.__cause__, "response", None)
    return response["Error"].get("Code") if response and "Error" in response else None


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
        if refused and _code(error) not in _PASSING_CODES and _size_now(location) <= start:
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
