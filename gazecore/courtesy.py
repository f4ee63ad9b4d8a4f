"""How the servers of the web are treated: who asks, with which headers, how often, and when again.

What a process was told by `use` holds for all of its requests to the web.
"""

import math
import random
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from yarl import URL

from gazecore import __version__
from gazecore.errors import InputError, hide, one_line

USER_AGENT = f"gazecore/{__version__}"

_HEADER = re.compile(r"(?:(\S+)\s+)?([\w!#$%&'*+.^`|~-]+):[ \t]*([^\x00-\x1f\x7f]*)", re.ASCII)
_OURS = {
    "accept-encoding", "connection", "content-length", "expect", "host", "proxy-authorization",
    "range", "transfer-encoding", "upgrade",
}  # fmt: skip
"""Headers without which an image would not come as it is asked for."""

_MANY = 10_000


@dataclass(frozen=True)
class Header:
    """A header of requests.

    Attributes:
        host: that alone it is for; empty: whatever a list names.
        name, value: the value is a secret.
    """

    host: str
    name: str
    value: str = field(repr=False)


@dataclass(frozen=True)
class WebOptions:
    """What requests to the web bear, and how many there are.

    Attributes:
        headers: of every request.
        rate: requests a second to one host, of one process; None: as they come.
    """

    headers: tuple[Header, ...] = ()
    rate: float | None = None

    def __post_init__(self) -> None:
        if self.rate is not None and not 0 < self.rate < math.inf:
            raise InputError(f"--rate-per-host must be more than 0, not {self.rate:g}")


def parse_headers(texts: Iterable[str]) -> tuple[Header, ...]:
    """Headers as people write them: `Name: value`, `HOST Name: value`, or `@FILE` with one a line.

    Raises:
        InputError: one is of another form, or one that requests have anyway; without its value.
    """
    return tuple(header for number, text in enumerate(texts, 1) for header in _parsed(number, text))


def _parsed(number: int, text: str) -> Iterator[Header]:
    where, lines = f"--header {number}", [text]
    if text.startswith("@"):
        where = text[1:]
        try:
            lines = Path(where).read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read the headers in {where}: {one_line(error)}") from error
    for line in filter(None, map(str.strip, lines)):
        found = _HEADER.fullmatch(line)
        if not found:
            raise InputError(f"{where} holds what is not of the form 'Name: value'")
        host, name, value = found.groups()
        if name.lower() in _OURS:
            raise InputError(f"{where}: {name} cannot be chosen, requests have their own")
        yield Header((host or "").lower(), name, value.strip())


_options = WebOptions()


def use(options: WebOptions) -> None:
    """Have all requests to the web of this process be like that, from now on."""
    global _options
    _options = options
    for header in options.headers:
        # Of `Bearer KEY` the key alone, too.
        hide([header.value, *header.value.split()[1:]])


def headers_for(url: URL, asked: URL | None) -> Iterator[tuple[str, str]]:
    """Names and values of the headers of a request.

    Args:
        url: where it goes.
        asked: the URL that was asked for, before any redirect. On the way to another host, to
            another port, or from https to http only the User-Agent is kept.
    """
    same = asked is not None and url.host == asked.host
    if same and asked is not None and url.origin() != asked.origin():
        same = (asked.scheme, url.scheme) == ("http", "https")
        same = same and asked.is_default_port() and url.is_default_port()
    for header in _options.headers:
        is_meant = not header.host or header.host == url.host
        if is_meant and (same or header.name.lower() == "user-agent"):
            yield header.name, header.value


class Turns:
    """When this process may ask which host next."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next: dict[str, float] = {}
        self._held: dict[str, float] = {}

    def take(self, host: str) -> float:
        """Take the next turn at a host: seconds until it comes."""
        now = time.monotonic()
        with self._lock:
            if _options.rate is None:
                return self._hold_ends(host, now)
            if len(self._next) > _MANY:
                self._next = {h: when for h, when in self._next.items() if when > now}
            turn = max(now, self._next.get(host, 0.0), now + self._hold_ends(host, now))
            self._next[host] = turn + 1 / _options.rate
            return turn - now

    def wait(self, host: str, given_up: threading.Event | None = None) -> None:
        """Take the next turn, and wait for it and for what hosts ask meanwhile; not for nobody."""
        given_up = given_up or threading.Event()
        seconds = self.take(host)
        while seconds > 0 and not given_up.wait(seconds):
            with self._lock:
                seconds = self._hold_ends(host, time.monotonic())

    def hold(self, host: str, seconds: float) -> None:
        """Leave a host alone for so long; it asks for that."""
        now = time.monotonic()
        with self._lock:
            if len(self._held) > _MANY:
                self._held = {h: when for h, when in self._held.items() if when > now}
            self._held[host] = max(self._held.get(host, 0.0), now + seconds)

    def _hold_ends(self, host: str, now: float) -> float:
        """In how many seconds; up to one more by chance, so that not all come back together."""
        left = self._held.get(host, 0.0) - now
        return left + random.random() if left > 0 else 0.0


turns = Turns()


def asked_pause(headers: Mapping[str, str] | None) -> float:
    """Seconds that a Retry-After asks for, by the server's own clock; 0 where there is none."""
    text = (headers or {}).get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        until = _date(text)
    except ValueError:
        return 0.0
    try:
        now = _date((headers or {}).get("Date", ""))
    except ValueError:
        now = datetime.now(UTC)
    return max(0.0, (until - now).total_seconds())


def _date(text: str) -> datetime:
    found = parsedate_to_datetime(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
