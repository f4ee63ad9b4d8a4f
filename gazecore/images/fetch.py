"""URIs become bytes. What is gone for good is told apart from what may come back."""

import errno

import stamina
from fsspec import AbstractFileSystem

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

_FINAL_ERRNOS = {errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP}


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
        StorageUnavailable: transient errors went on for longer than the retries (a minute).
    """
    if size is not None and size > limits.max_bytes:
        raise _too_large(limits)
    if size == 0:
        return b""
    try:
        for attempt in stamina.retry_context(on=_is_transient, attempts=6, timeout=60):
            with attempt:
                data = _read(uri, limits)
    except ImageError:
        raise
    except Exception as error:
        raise StorageUnavailable(f"{uri}: {type(error).__name__}: {one_line(error)}") from error
    if len(data) > limits.max_bytes:
        raise _too_large(limits)
    return data


def _read(uri: str, limits: Limits) -> bytes:
    try:
        location = Location(uri)
        return _read_capped(location.fs, location.path, limits.max_bytes + 1)
    except (FileNotFoundError, InputError) as error:
        raise NotFound(one_line(error)) from error
    except PermissionError as error:
        raise AccessDenied(one_line(error)) from error
    except OSError as error:
        if error.errno in _FINAL_ERRNOS:
            raise StorageError(one_line(error)) from error
        raise


def _read_capped(fs: AbstractFileSystem, path: str, end: int) -> bytes:
    try:
        data: bytes = fs.cat_file(path, start=0, end=end)
        return data
    except OSError as error:
        # S3 refuses any range of an empty object.
        if error.errno == errno.EINVAL and fs.info(path)["size"] == 0:
            return b""
        raise


def _is_transient(error: Exception) -> bool:
    return not isinstance(error, ImageError)


def _too_large(limits: Limits) -> TooLarge:
    return TooLarge(f"the file has more than {limits.max_bytes} bytes (--limits.max-bytes)")
