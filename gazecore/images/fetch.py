"""URIs become bytes. What is gone for good is told apart from what may come back."""

import errno

import aiohttp
import stamina
from botocore.exceptions import ParamValidationError
from fsspec import AbstractFileSystem
from fsspec.implementations.http import HTTPFileSystem

from gazecore.errors import (
    AccessDenied,
    GazecoreError,
    ImageError,
    InputError,
    NotFound,
    StorageError,
    TooLarge,
    one_line,
)
from gazecore.images.decode import Limits
from gazecore.storage import Location
from gazecore.web import read_at_most

RETRY_SECONDS = 60
"""How long transient errors of the storage are waited out, per image."""

_FINAL_ERRNOS = {errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP}


_CREDENTIAL_CODES = {
    "ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidToken",
    "RequestTimeTooSkewed", "SignatureDoesNotMatch", "TokenRefreshRequired",
}  # fmt: skip


class StorageUnavailable(GazecoreError):
    """The storage did not answer within the retries; nothing is known about the image itself."""


def fetch(uri: str, size: int | None, limits: Limits) -> bytes:
    """Read one object.

    Args:
        uri: a path or URI.
        size: in bytes, if the plan knows it; spares a request for objects over the cap.
        limits: the byte cap; of a larger object, at most one byte more than the cap is read.

    Raises:
        NotFound, AccessDenied, StorageError, TooLarge: final for this image.
        StorageUnavailable: transient errors went on for longer than RETRY_SECONDS.
    """
    if size is not None and size > limits.max_bytes:
        raise _too_large(limits)
    if size == 0:
        return b""
    try:
        for attempt in stamina.retry_context(
            on=_is_transient, attempts=None, timeout=RETRY_SECONDS, wait_max=15
        ):
            with attempt:
                data = _read(uri, size, limits)
    except ImageError:
        raise
    except Exception as error:
        raise StorageUnavailable(f"{uri}: {type(error).__name__}: {one_line(error)}") from error
    if len(data) > limits.max_bytes:
        raise _too_large(limits)
    return data


def _read(uri: str, size: int | None, limits: Limits) -> bytes:
    try:
        location = Location(uri)
        data = _read_capped(location.fs, location.path, limits.max_bytes + 1)
        if size is not None and len(data) < min(size, limits.max_bytes + 1):
            _refuse_part(location, data)
        return data
    except (FileNotFoundError, InputError) as error:
        raise NotFound(one_line(error)) from error
    except PermissionError as error:
        if _code(error) in _CREDENTIAL_CODES:
            raise  # the object may well be there for who comes with valid keys
        raise AccessDenied(one_line(error)) from error
    except aiohttp.ClientResponseError as error:
        if error.status in (404, 410):
            raise NotFound(one_line(error)) from error
        if error.status in (401, 403):
            raise AccessDenied(one_line(error)) from error
        raise
    except (ValueError, TypeError, ParamValidationError) as error:
        raise StorageError(f"not a usable URI: {one_line(error)}") from error
    except OSError as error:
        if error.errno in _FINAL_ERRNOS:
            raise StorageError(one_line(error)) from error
        raise


def _code(error: PermissionError) -> str | None:
    """S3's own word for why access was refused."""
    response = getattr(error.__cause__, "response", None)
    return response["Error"].get("Code") if response and "Error" in response else None


def _read_capped(fs: AbstractFileSystem, path: str, end: int) -> bytes:
    if isinstance(fs, HTTPFileSystem):
        return read_at_most(fs, path, end)  # servers need not heed a range
    try:
        data: bytes = fs.cat_file(path, start=0, end=end)
        return data
    except OSError as error:
        # S3 refuses any range of an empty object.
        if error.errno == errno.EINVAL and fs.info(path)["size"] == 0:
            return b""
        raise


def _refuse_part(location: Location, data: bytes) -> None:
    """Raise OSError unless `data`, which is less than was planned, is all that is there now.

    A body that was cut on its way can bear a header that says it was not.
    """
    location.fs.invalidate_cache(location.path)
    there = location.fs.info(location.path)["size"]
    if len(data) != there:
        raise OSError(f"{len(data)} bytes came of {there}")


def _is_transient(error: Exception) -> bool:
    return not isinstance(error, ImageError)


def _too_large(limits: Limits) -> TooLarge:
    return TooLarge(f"the file has more than {limits.max_bytes} bytes (--limits.max-bytes)")
