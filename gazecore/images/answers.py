"""What storages' answers mean: what is gone for good is told apart from what may come back."""

import errno
import socket
from collections.abc import Callable
from typing import TypeVar

import aiohttp
from botocore.exceptions import NoCredentialsError, ParamValidationError

from gazecore import courtesy
from gazecore.errors import (
    AccessDenied,
    Archived,
    AskedToWait,
    ImageError,
    InputError,
    KeysRefused,
    NotFound,
    StorageError,
    StorageUnavailable,
    one_line,
)
from gazecore.images.objects import PASSING_STATUS
from gazecore.refusals import code_of, keys_refused

_PASSING_ERRNOS = {
    None, errno.EAGAIN, errno.EBUSY, errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET,
    errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EINTR, errno.EIO, errno.EMFILE, errno.ENETDOWN,
    errno.ENETRESET, errno.ENETUNREACH, errno.ENFILE, errno.ENOBUFS, errno.ENOLCK, errno.ENOMEM,
    errno.ENOTCONN, errno.EPIPE, errno.EPROTO, errno.EREMOTEIO, errno.ESHUTDOWN, errno.ESTALE,
    errno.ETIMEDOUT, socket.EAI_AGAIN, socket.EAI_FAIL, socket.EAI_MEMORY, socket.EAI_SYSTEM,
}  # fmt: skip
"""What connections, file servers and machines that are short of something say, and libraries that
say nothing; every other word of a system is about the file, and stays."""

PASSING_CODES = {
    "ExpiredToken", "ExpiredTokenException", "InvalidToken", "RequestTimeTooSkewed",
    "TokenRefreshRequired", "IncompleteBody", "400",
}  # fmt: skip
"""What S3 says of credentials that are renewed and of clocks, and nothing of the object:
who comes with valid keys may find it. s3fs takes some of them for a refusal of access and some for
a bad argument."""

_ON_THE_WEB = (aiohttp.ClientError, TimeoutError, ImageError, StorageUnavailable)

Read = TypeVar("Read")


def telling_apart(uri: str, read: Callable[[], Read]) -> Read:
    """Do it; what is gone for good is an ImageError, and what may come back another error."""
    try:
        return read()
    except InputError as error:
        cause = error.__cause__
        if isinstance(cause, ConnectionError | TimeoutError):
            raise cause from None  # some storages connect as soon as they are named
        raise NotFound(one_line(error)) from error
    except FileNotFoundError as error:
        if isinstance(cause := error.__cause__, _ON_THE_WEB):  # to fsspec all is not found there
            raise _meaning(uri, cause) from error
        raise NotFound(one_line(error)) from error
    except aiohttp.TooManyRedirects as error:
        raise StorageError("it redirects in circles") from error
    except aiohttp.ClientResponseError as error:
        raise _answered(error) from error
    except aiohttp.RedirectClientError as error:
        raise StorageError(f"it redirects to what is no web page: {one_line(error)}") from error
    except (NoCredentialsError, RecursionError) as error:
        if refused := keys_refused(error, uri):
            raise refused from error
        raise
    except (ValueError, TypeError, ParamValidationError) as error:
        raise StorageError(f"not a usable URI: {one_line(error)}") from error
    except OSError as error:
        code = code_of(error)
        if code in PASSING_CODES:
            raise
        if refused := keys_refused(error, uri):
            raise refused from error
        if code == "InvalidObjectState":
            raise Archived(f"{one_line(error)} (restore it, then use --retry-failed)") from error
        if isinstance(error, PermissionError):
            raise AccessDenied(one_line(error)) from error
        if error.errno in (socket.EAI_NONAME, socket.EAI_NODATA):
            host = getattr(error, "host", None) or uri
            raise NotFound(f"there is no host {host}: is its name right?") from error
        if error.errno not in _PASSING_ERRNOS:
            raise StorageError(one_line(error)) from error
        raise


def _meaning(uri: str, error: Exception) -> Exception:
    def again() -> None:
        raise error

    try:
        telling_apart(uri, again)
    except Exception as meant:
        return meant
    raise AssertionError


def _answered(error: aiohttp.ClientResponseError) -> Exception:
    """What a status of the web means."""
    is_proxy = isinstance(error, aiohttp.ClientHttpProxyError)
    who = "proxy" if is_proxy else "server"
    words = f"the {who} answers {error.status} {error.message}".rstrip()
    if error.status == 407:
        words += ": name the proxy with who asks, HTTP_PROXY=http://USER:PASSWORD@HOST:PORT"
        return KeysRefused(words) if is_proxy else OSError(words)
    if error.status in (404, 410):
        return NotFound(f"there is no such page: {words}")
    if error.status in (401, 403):
        return AccessDenied(words)
    if error.status in (429, 503) and (seconds := courtesy.asked_pause(error.headers)):
        host = error.request_info.url.host or ""
        asked = AskedToWait(f"{words}, and {host} asks to be left alone for {seconds:,.0f} s")
        asked.host, asked.seconds = host, seconds
        return asked
    if 400 <= error.status < 500 and error.status not in PASSING_STATUS:
        return StorageError(words)
    return OSError(words)
