"""What S3 says where it refuses a request, and what to do about it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import BotoCoreError, NoCredentialsError
from fsspec.asyn import sync

from gazecore.errors import InputError, KeysRefused, one_line

_UNKNOWN_KEYS = {"InvalidAccessKeyId", "SignatureDoesNotMatch"}
"""What S3 says of keys that it does not know, to every request."""

_ELSEWHERE = {
    "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect",
    "Redirect", "301",
}  # fmt: skip
"""What it says where a bucket is in another region, or at another endpoint; botocore has followed
by then where it could."""

_WORDLESS = {"400", "301", "403"}
"""What stands for its word where it refuses a HEAD, whose answers have no body."""


_NOT_UNDERSTOOD = {
    "NotImplemented", "InvalidArgument", "InvalidRequest", "MissingContentLength", "NotSupported",
    "MalformedTrailerError", "XAmzContentSHA256Mismatch", "400", "411", "501",
}  # fmt: skip
"""What storages that speak an older S3 say to a header or a trailer that they do not know."""

_CHECKSUMS = "AWS_REQUEST_CHECKSUM_CALCULATION"


def code_of(error: BaseException) -> str | None:
    """S3's own word for why a request was refused."""
    return _said(error).get("Code")


def keys_refused(error: BaseException, uri: str) -> KeysRefused | None:
    """The error of a request that will be refused for whatever is asked, with what to do; None
    where it is no such."""
    code = code_of(error)
    if isinstance(error, NoCredentialsError):
        words = (
            f"there are no keys for {uri}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "AWS_PROFILE, or give the machine a role; FSSPEC_S3_ANON=true for a public bucket"
        )
    elif code in _UNKNOWN_KEYS:
        words = f"the storage of {uri} refuses the keys: {one_line(error)}"
    elif code in _ELSEWHERE or (isinstance(error, RecursionError) and uri.startswith("s3")):
        # botocore asks for the region again and again where a redirect does not say it
        words = f"{uri} is in another region, or at another endpoint: {_where(error)} ({code})"
    else:
        return None
    return KeysRefused(words)


def with_words(fs: Any, path: str, error: Exception) -> Exception:
    """The error, or where it is an answer to HEAD the one that S3 has words for."""
    if code_of(error) not in _WORDLESS or not hasattr(fs, "call_s3"):
        return error
    try:
        asked = {"Bucket": fs.split_path(path)[0], "MaxKeys": 1, **fs.req_kw}
        sync(fs.loop, fs._call_s3, "list_objects_v2", **asked)
    except (OSError, BotoCoreError, RecursionError) as found:
        return found
    return error


def feature_refused(error: BaseException) -> bool:
    """Whether a storage may have refused a PUT for what it bears: a condition, or a checksum."""
    return code_of(error) in _NOT_UNDERSTOOD


@contextmanager
def putting(uri: str) -> Iterator[None]:
    """For a block that writes a file.

    Raises:
        InputError: its storage may not know S3's newer checksums, with what to do.
    """
    try:
        yield
    except OSError as error:
        if not feature_refused(error) or os.environ.get(_CHECKSUMS, "").lower() == "when_required":
            raise
        raise InputError(
            f"{uri} cannot be written, {code_of(error)}: {one_line(error)}; if its storage does "
            f"not know S3's newer checksums, set {_CHECKSUMS}=when_required"
        ) from error


@contextmanager
def asking(fs: Any, path: str, uri: str) -> Iterator[None]:
    """For a block that asks whether something is there; raises KeysRefused, or what S3 says."""
    try:
        yield
    except (OSError, BotoCoreError, RecursionError) as error:
        said = with_words(fs, path, error)
        if refused := keys_refused(said, uri):
            raise refused from error
        raise said from said.__cause__


def _said(error: BaseException) -> dict[str, str]:
    response = getattr(error.__cause__, "response", None) or {}
    said: dict[str, str] = response.get("Error", {})
    return said


def _where(error: BaseException) -> str:
    response = getattr(error.__cause__, "response", None) or {}
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = _said(error).get("Region") or headers.get("x-amz-bucket-region")
    if region:
        return f"set AWS_DEFAULT_REGION={region}"
    if endpoint := _said(error).get("Endpoint"):
        return f"the storage names {endpoint}; set AWS_DEFAULT_REGION or AWS_ENDPOINT_URL to match"
    return "set AWS_DEFAULT_REGION or AWS_ENDPOINT_URL to match"
