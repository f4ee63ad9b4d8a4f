"""Objects of S3 by obstore: a fifth of the processor's time that s3fs takes, and no interpreter
between two requests.

Only what goes well is done here. What is refused (an object that is not there, keys, a key that
obstore cannot name) is asked of s3fs at once, whose errors are told apart. After any other trouble
s3fs has the next try, too, so that a try is one request; and a bucket that only s3fs can read (of
another region, behind a certificate of one's own) is left to it.
"""

import logging
import re
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import obstore
from botocore.exceptions import BotoCoreError
from fsspec.asyn import sync
from obstore.exceptions import BaseError, GenericError
from obstore.store import S3Store

from gazecore.errors import redact
from gazecore.images import objects

TRIES = 16
"""Objects of a bucket in a row that s3fs may read where obstore could not, until the bucket is left
to it."""

_KEYS_LAST = timedelta(minutes=10)
"""How long keys count as good: obstore asks again five minutes before that is over, and botocore
renews keys ten minutes before they run out."""

_NAMED_ALIKE = re.compile(r"([\w.=@+,-]+/)+[\w.=@+,-]*", re.ASCII)
"""Keys that obstore does not write otherwise: under another name it would list another folder."""

_NO_RANGE = "non-partial response"

log = logging.getLogger(__name__)


class Bucket:
    """A bucket, with the endpoint, region, keys and options of an `s3fs.S3FileSystem`.

    Attributes:
        failed: objects in a row that only s3fs could read.
        in_trouble: the last request of obstore met trouble, and s3fs has read nothing since.
        has_ranges: obstore understands the server's answers to requests for a range.
    """

    def __init__(self, fs: Any, name: str) -> None:
        """Connect. Raises whatever s3fs raises."""
        self.failed, self.in_trouble, self.has_ranges = 0, False, True
        self._fs = fs
        client = fs.connect()
        config: Any = {
            "bucket": name,
            "region": client.meta.region_name or "us-east-1",
            # With the bucket in the path: so any endpoint and any bucket's name will do.
            "endpoint": client.meta.endpoint_url,
            "virtual_hosted_style_request": False,
        }
        if fs.anon:
            config["skip_signature"] = True
        if fs.req_kw:
            config["request_payer"] = True
        self._keys = None if fs.anon else sync(fs.loop, fs.session.get_credentials)
        self._store = S3Store(
            config=config,
            client_options=objects.client(fs.connect_timeout, fs.read_timeout),
            retry_config=objects.ONE_TRY,
            credential_provider=None if fs.anon else self._current_keys,  # type: ignore[arg-type]
        )

    def _current_keys(self) -> dict[str, Any]:
        fs, expires = self._fs, datetime.now(UTC) + _KEYS_LAST
        if fs.key and fs.secret:
            found = (fs.key, fs.secret, fs.token)
        elif self._keys is None:
            raise PermissionError("there are no keys")
        else:
            frozen = sync(fs.loop, self._keys.get_frozen_credentials)
            found = (frozen.access_key, frozen.secret_key, frozen.token)
        names = ("access_key_id", "secret_access_key", "token")
        return {**dict(zip(names, found, strict=True)), "expires_at": expires}

    def read(self, key: str, end: int) -> bytes:
        """The first `end` bytes of an object. Raises all kinds of errors."""
        return objects.read(self._store, key, end)

    def read_range(self, key: str, start: int, end: int) -> bytes:
        """The bytes from `start` to before `end` of an object that has them. Raises as `read`."""
        return obstore.get_range(self._store, key, start=start, end=end).to_bytes()

    def pages(self, prefix: str, after: str) -> Iterator[Sequence[Any]]:
        """What lies under a prefix after a key, a thousand at a time. Raises as `read`."""
        return iter(obstore.list(self._store, prefix, offset=after or None, chunk_size=1000))


_lock = threading.Lock()
_buckets: dict[tuple[int, str], Bucket] = {}


def read(
    fs: Any, path: str, end: int, by_s3fs: Callable[[], bytes], start: int | None = None
) -> bytes:
    """An object's bytes before `end`.

    Args:
        fs: an `s3fs.S3FileSystem`.
        path: bucket and key.
        end: the one after the last that is wanted.
        by_s3fs: reads it the other way.
        start: the first byte that is wanted, of an object that has all up to `end`; None for all
            before `end` that there are.

    Raises:
        OSError: trouble that may pass.
        What `by_s3fs` raises.
    """
    name, key, version = fs.split_path(path)
    if version or not objects.is_plain(key) or not _is_plain(fs):
        return by_s3fs()
    bucket = _buckets.get((id(fs), name))
    tried = False
    try:
        bucket = bucket or _connected(fs, name)
        if start is not None and not bucket.has_ranges:
            return by_s3fs()
        if bucket.failed < TRIES and not bucket.in_trouble:
            tried = True
            data = bucket.read(key, end) if start is None else bucket.read_range(key, start, end)
            bucket.failed = 0
            return data
    except GenericError as error:
        if bucket and start is not None and _NO_RANGE in str(error):
            bucket.has_ranges = False  # rclone answers with the range, and with 200 instead of 206
            return by_s3fs()
        if bucket:
            bucket.in_trouble = True
        raise OSError(objects.in_short(error)) from None
    except (BaseError, BotoCoreError, OSError, ValueError, RuntimeError) as error:
        log.debug("obstore could not read %s: %s", redact(path), error)
    data = by_s3fs()
    with _lock:
        # Of the many that s3fs reads while there is trouble, the first ends it, and counts.
        if bucket and (tried or bucket.in_trouble) and bucket.failed < TRIES:
            bucket.in_trouble = False
            bucket.failed += 1
            if bucket.failed == TRIES:
                log.warning("bucket %s is read by s3fs, slower: obstore cannot", name)
    return data


def pages(fs: Any, path: str, after: str = "") -> Generator[Sequence[Any], None, None]:
    """What lies in a folder, a thousand objects at a time, by name.

    Args:
        fs: an `s3fs.S3FileSystem`.
        path: bucket and key of the folder.
        after: the name that the first one comes after.

    Yields:
        `obstore.ObjectMeta` of each: path, size, e_tag, last_modified.

    Raises:
        OSError: obstore cannot, whatever the reason.
    """
    name, key, _ = fs.split_path(path)
    if not (_NAMED_ALIKE.fullmatch(f"{key}/{after}") and _is_plain(fs)):
        raise OSError(f"{path} is for s3fs to list")
    try:
        bucket = _buckets.get((id(fs), name)) or _connected(fs, name)
        yield from bucket.pages(key, f"{key}/{after}" if after else "")
    except (BaseError, BotoCoreError, ValueError, RuntimeError) as error:
        raise OSError(objects.in_short(error)) from None


def _connected(fs: Any, name: str) -> Bucket:
    made = Bucket(fs, name)  # which may take its time: others are not to wait for it
    with _lock:
        return _buckets.setdefault((id(fs), name), made)


def _is_plain(fs: Any) -> bool:
    """Whether nothing was asked of s3fs that is not passed on."""
    config = {key: value for key, value in fs.config_kwargs.items() if key != "retries"}
    return not (config or fs.client_kwargs or fs.s3_additional_kwargs) and fs.use_ssl
