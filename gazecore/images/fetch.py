"""URIs become bytes. What is gone for good is told apart from what may come back."""

import errno
import socket
from threading import Event

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


def fetch(uri: str, size: int | None, limits: Limits, given_up: Event | None = None) -> bytes:
    """Read one object.

    What may pass is tried again for RETRY_SECONDS, after waits that double from 0.1 to 15 seconds
    and up to a second more each, by chance, so that many readers do not come back together.

    Args:
        uri: a path or URI.
        size: in bytes, if the plan knows it; spares a request for objects over the cap.
        limits: the byte cap; of a larger object, at most one byte more than the cap is read.
        given_up: is set once nobody waits for the object: it is not tried again then.

    Raises:
        NotFound, AccessDenied, StorageError, TooLarge: final for this image.
        StorageUnavailable: transient errors went on for longer than RETRY_SECONDS.
        KeysRefused: the storage does not know the keys, or there are none.
    """
    if size is not None and size > limits.max_bytes:
        raise _too_large(limits)

    def may_pass(error: Exception) -> bool:
        return not isinstance(error, ImageError | KeysRefused | MemoryError) and not (
            given_up and given_up.is_set()
        )

    try:
        for attempt in stamina.retry_context(
            on=may_pass, attempts=None, timeout=RETRY_SECONDS, wait_max=15
        ):
            with attempt:
                data = _read(uri, size, limits)
    except (ImageError, KeysRefused):
        raise
    except MemoryError as error:
        raise TooLarge("reading it needs more memory than there is") from error
    except Exception as error:
        raise StorageUnavailable(f"{uri}: {type(error).__name__}: {one_line(error)}") from error
    if len(data) > limits.max_bytes:
        raise _too_large(limits)
    return data


def _read(uri: str, size: int | None, limits: Limits) -> bytes:
    try:
        end = limits.max_bytes + 1
        place = _find(uri) or _open(uri)
        try:
            data = _read_capped(place, end)
        except NotImplementedError:
            if isinstance(place, Location):
                raise
            place = _open(uri)
            data = _read_capped(place, end)
        if size is not None and len(data) < min(size, end):
            _refuse_part(place, data)
        return data
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


def _read_capped(location: Location | Object, end: int) -> bytes:
    if isinstance(location, Object):
        return location.read(end)
    if location.is_local:
        return read_regular(location.path, end)
    if isinstance(location.fs, HTTPFileSystem):
        return read_at_most(location.fs, location.path, end)  # servers need not heed a range
    if isinstance(location.fs, S3FileSystem):
        return s3.read(location.fs, location.path, end, lambda: _read_range(location, end))
    return _read_range(location, end)


def _read_range(location: Location, end: int) -> bytes:
    try:
        data: bytes = location.fs.cat_file(location.path, start=0, end=end)
        return data
    except (OSError, aiohttp.ClientResponseError) as error:
        # S3 and HTTP refuse any range of an empty object.
        refused = getattr(error, "status", None) == 416 or (
            isinstance(error, OSError) and error.errno == errno.EINVAL
        )
        if refused and _code(error) not in _PASSING_CODES and _size_now(location) == 0:
            return b""
        raise


def _refuse_part(location: Location | Object, data: bytes) -> None:
    """Raise OSError unless `data`, which is less than was planned, is all that is there now.

    A body that was cut on its way can bear a header that says it was not.
    """
    there = _size_now(location)
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


def _too_large(limits: Limits) -> TooLarge:
    return TooLarge(f"the file has more than {limits.max_bytes} bytes (--limits.max-bytes)")
