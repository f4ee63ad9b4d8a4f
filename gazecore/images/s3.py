"""Objects of S3 by obstore: a fifth of the processor's time that s3fs takes, and no interpreter
between two requests.

Only what goes well is done here. What is refused (an object that is not there, keys, a key that
obstore cannot name) is asked of s3fs at once, whose errors are told apart. After any other trouble
s3fs has the next try, too, so that a try is one request; and a bucket that only s3fs can read (of
another region, behind a certificate of one's own) is left to it.
"""

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import obstore
from botocore.exceptions import BotoCoreError
from fsspec.asyn import sync
from obstore.exceptions import BaseError, GenericError
from obstore.store import S3Store

from gazecore.errors import one_line, redact

TRIES = 16
"""Objects of a bucket in a row that s3fs may read where obstore could not, until the bucket is left
to it."""


_WHOLE = timedelta(minutes=10)
"""How long one object may take, if it keeps coming."""

_KEYS_LAST = timedelta(minutes=10)
"""How long keys count as good: obstore asks again five minutes before that is over, and botocore
renews keys ten minutes before they run out."""

log = logging.getLogger(__name__)


class Bucket:
    """A bucket, with the endpoint, region, keys and options of an `s3fs.S3FileSystem`.

    Attributes:
        failed: objects in a row that only s3fs could read.
        in_trouble: the last request of obstore met trouble, and s3fs has read nothing since.
        gives_parts: the server answers a request for a part as obstore wants it.
    """

    def __init__(self, fs: Any, name: str) -> None:
        """Connect. Raises whatever s3fs raises."""
        self.failed, self.in_trouble, self.gives_parts = 0, False, True
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
            client_options={
                "connect_timeout": timedelta(seconds=fs.connect_timeout),
                "read_timeout": timedelta(seconds=fs.read_timeout),
                "timeout": _WHOLE,
                "allow_http": True,
            },
            # `fetch` tries again, and knows for how long.
            retry_config={"max_retries": 0, "retry_timeout": timedelta(0)},
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

    def read(self, key: str, end: int, start: int | None = None) -> bytes:
        """The bytes of an object up to `end`. Raises all kinds of errors."""
        if start is not None:
            return obstore.get_range(self._store, key, start=start, end=end).to_bytes()
        found = obstore.get(self._store, key)
        if found.meta["size"] > end:
            return obstore.get_range(self._store, key, start=0, end=end).to_bytes()
        return found.bytes().to_bytes()


_lock = threading.Lock()
_buckets: dict[tuple[int, str], Bucket] = {}


def read(
    fs: Any, path: str, end: int, by_s3fs: Callable[[], bytes], start: int | None = None
) -> bytes:
    """The bytes of an object up to `end`.

    Args:
        fs: an `s3fs.S3FileSystem`.
        path: bucket and key.
        end: bytes.
        start: where a part begins; None: what is wanted is most likely all.
        by_s3fs: reads it the other way.

    Raises:
        OSError: trouble that may pass.
        What `by_s3fs` raises.
    """
    name, key, version = fs.split_path(path)
    # obstore would take a slash at an end of a key away, and read another object.
    if version or key != key.strip("/") or not _is_plain(fs):
        return by_s3fs()
    bucket = _buckets.get((id(fs), name))
    tried = False
    try:
        if bucket is None:
            made = Bucket(fs, name)  # which may take its time: others are not to wait for it
            with _lock:
                bucket = _buckets.setdefault((id(fs), name), made)
        if start is not None and not bucket.gives_parts:
            return by_s3fs()
        if bucket.failed < TRIES and not bucket.in_trouble:
            tried = True
            data = bucket.read(key, end, start)
            bucket.failed = 0
            return data
    except GenericError as error:
        if bucket and start is not None and "non-partial" in str(error):
            bucket.gives_parts = False  # it says 200 for 206, and sends what was asked for
            return by_s3fs()
        if bucket:
            bucket.in_trouble = True
        raise OSError(_in_short(error)) from None
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


def _in_short(error: Exception) -> str:
    """What happened to a request, without how obstore holds it."""
    return one_line(error).split(" Debug source:")[0].removeprefix("Generic S3 error: ")


def _is_plain(fs: Any) -> bool:
    """Whether nothing was asked of s3fs that is not passed on."""
    config = {key: value for key, value in fs.config_kwargs.items() if key != "retries"}
    return not (config or fs.client_kwargs or fs.s3_additional_kwargs) and fs.use_ssl
