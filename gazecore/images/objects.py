"""Objects of storages by obstore: one GET each, and what an answer means.

`gcs` and `azure` make a `Bucket` each from the environment. `s3` shares the requests alone: beside
it is s3fs, which tells S3's answers apart.
"""

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import obstore
from obstore.exceptions import BaseError

from gazecore.errors import AccessDenied, Archived, KeysRefused, NotFound, StorageError, one_line

CONNECT, READ = 5.0, 15.0
"""Seconds that a connection, and an answer's next bytes, are waited for; s3fs's numbers."""

_WHOLE = timedelta(minutes=10)
"""How long one object may take, if it keeps coming."""

_RENEW = timedelta(minutes=3, seconds=45)
"""How long before its end a token is renewed. Metadata servers give the same one until four minutes
before."""

_KEYS_LAST = timedelta(minutes=6)
"""How long obstore takes a token for good: it asks again five minutes before that is over."""

PASSING_STATUS = {408, 425, 429}
"""Among HTTP's 4xx, those that a later request need not meet."""

_ANSWER = re.compile(r"status code: (\d{3}) ?([^:]*)(?:: (.*))?", re.DOTALL)
_WORD = re.compile(r"<(Code|Message|Details)>([^<]*)")
_KIND = re.compile(r"HttpError \{\s+kind: (\w+)")
_TOOK = re.compile(r" in [\d.]+[a-zµ]+(?= - )")

_KEYS_UNKNOWN = {"AuthenticationFailed"}
"""What Azure says of a key or a shared access signature that is not good, to every request."""

_KEYS_OLD = {"InvalidAuthenticationInfo"}
"""What Azure says of a token that is not good, sometimes with another status than 401."""

_ARCHIVED = {"BlobArchived", "BlobBeingRehydrated", "InvalidObjectState"}
"""What Azure, and S3, say of an object that must be restored before it can be read."""

_NOT_PUBLIC = {"PublicAccessNotPermitted"}

Found = TypeVar("Found")


def client(connect: float = CONNECT, read: float = READ) -> Any:
    """Options of a store's HTTP client; the arguments are seconds, see CONNECT and READ."""
    return {
        "connect_timeout": timedelta(seconds=connect),
        "read_timeout": timedelta(seconds=read),
        "timeout": _WHOLE,
        "allow_http": True,
    }


ONE_TRY: Any = {"max_retries": 0, "retry_timeout": timedelta(0)}
"""`fetch` tries again, and knows for how long."""


def is_plain(key: str) -> bool:
    """Whether obstore names a key as it is; it would take a slash at an end away."""
    return bool(key) and key == key.strip("/")


def read(store: Any, key: str, end: int) -> bytes:
    """The first `end` bytes of an object. Raises all of obstore's errors."""
    found = obstore.get(store, key)
    if found.meta["size"] > end:
        return obstore.get_range(store, key, start=0, end=end).to_bytes()
    return found.bytes().to_bytes()


def in_short(error: Exception) -> str:
    """What happened to a request: without how obstore holds it, and how long it took."""
    words = one_line(error).split(" Debug source:")[0]
    kind = _KIND.search(str(error))  # Connect, Timeout, ...: which it keeps to itself
    words = _TOOK.sub("", re.sub(r"^Generic \w+ error: ", "", words))
    return f"{words} ({kind[1]})" if kind else words


class Keys:
    """What requests are signed with, renewed before it ends; obstore calls it, too."""

    def __init__(self, renew: Callable[[], tuple[dict[str, Any], datetime | None]]) -> None:
        """Args: renew: gives new ones, in obstore's words, and their end if they have one."""
        self._renew, self._lock = renew, threading.Lock()
        self._found: dict[str, Any] = {}
        self._end: datetime | None = None

    def __call__(self) -> dict[str, Any]:
        """The current ones. Raises KeysRefused, or OSError for what may pass."""
        with self._lock:
            now = datetime.now(UTC)
            if not self._found or (self._end and now > self._end - _RENEW):
                self._found, self._end = self._renew()
            return {**self._found, "expires_at": self._end and now + _KEYS_LAST}

    def forget(self) -> None:
        """Have new ones made for the next request."""
        with self._lock:
            self._found = {}


class Bucket:
    """A bucket or container."""

    def __init__(self, connect: Callable[[], Any], keys: Keys | None, advice: str | None) -> None:
        """Connect at the first request.

        Args:
            connect: makes obstore's store.
            keys: that the store uses; None: anonymous.
            advice: how to give keys, where anonymous was not asked for.
        """
        self._connect, self._keys, self._advice = connect, keys, advice
        self._store: Any = None
        self._lock = threading.Lock()

    def ask(self, uri: str, request: Callable[[Any], Found]) -> Found:
        """Make one request.

        Raises:
            NotFound, AccessDenied, Archived, StorageError: final for this object.
            KeysRefused: the storage does not know the keys, or there are none.
            OSError: trouble that may pass.
            NotImplementedError: obstore can neither name nor measure it.
        """
        if self._keys:
            self._keys()  # whose errors obstore would make its own
        with self._lock:
            if self._store is None:
                self._store = self._connect()
            store = self._store
        try:
            return request(store)
        except (BaseError, FileNotFoundError, ValueError) as error:
            raise self._meaning(error, uri, store) from None

    def _meaning(self, error: Exception, uri: str, store: Any) -> Exception:
        answer = _ANSWER.search(str(error).split("\n\nDebug source:")[0])
        if not answer:
            if isinstance(error, FileNotFoundError):
                return NotFound(f"there is no {uri}")
            if isinstance(error, ValueError) or "Header missing" in str(error):
                return NotImplementedError(in_short(error))
            return OSError(in_short(error))
        status, body = int(answer[1]), dict(_WORD.findall(answer[3] or ""))
        code = body.get("Code", "")
        # Lines after the first say when it was, and would make equal rows differ.
        said = [part.strip().split("\n")[0] for part in (code, *list(body.values())[1:]) if part]
        words = f"the storage answers {status} {': '.join(said) or answer[2]}".rstrip()
        if code in _ARCHIVED:
            return Archived(f"{words} (restore it, then use --retry-failed)")
        if status in (404, 410):
            return NotFound(f"there is no {uri}: {words}")
        refused = status in (401, 403) or code in _NOT_PUBLIC
        if self._keys is None and refused and self._advice:
            return KeysRefused(f"there are no keys for {uri}: {self._advice} ({words})")
        if self._keys and code in _KEYS_UNKNOWN:
            return KeysRefused(f"the storage of {uri} refuses the keys: {words}")
        if self._keys and (status == 401 or code in _KEYS_OLD):
            with self._lock:
                if self._store is store:  # and of many that meet it, one has new ones made
                    self._store = None
                    self._keys.forget()
            return OSError(words)
        if refused:
            return AccessDenied(words)
        if 400 <= status < 500 and status not in {*PASSING_STATUS, 416}:
            return StorageError(words)
        return OSError(words)


@dataclass(frozen=True)
class Object:
    """An object in a bucket, and its URI. The methods raise what `Bucket.ask` raises."""

    uri: str
    bucket: Bucket
    key: str

    def read(self, end: int) -> bytes:
        """The first `end` bytes."""
        return self.bucket.ask(self.uri, lambda store: read(store, self.key, end))

    def read_range(self, start: int, end: int) -> bytes:
        """The bytes from `start` to before `end`."""
        return self.bucket.ask(
            self.uri,
            lambda store: obstore.get_range(store, self.key, start=start, end=end).to_bytes(),
        )

    def size(self) -> int:
        """How many bytes there are now."""
        size: int = self.bucket.ask(self.uri, lambda store: obstore.head(store, self.key))["size"]
        return size
