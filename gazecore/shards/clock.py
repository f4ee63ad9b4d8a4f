"""Where the time goes: seconds that threads spend in each phase of the work on a shard."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

PHASES = ("fetch", "decode", "compute", "finish", "write")
"""Reading from the storage; bytes to what the network sees; the network; what is made of its
output; publishing the shard. Time spent waiting for a turn belongs to none of them."""

BUSY = 0.8
"""A network that is busy for this share of the time is what limits the rate."""

WAITED_FOR = 0.5
"""A phase that is less busy than this is not what others wait for."""


@dataclass
class Times:
    """What one or several actors did; can be added up and subtracted.

    Attributes:
        seconds: each phase's, summed over the threads that were in it at the same time.
        working: seconds with a shard in work, summed over actors.
        room: `working` times how many threads may be in a phase at once; what `seconds` could be.
        bytes_read: from the storage.
    """

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    working: float = 0.0
    room: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    bytes_read: int = 0

    def busy(self, phase: str) -> float:
        """The share of its room that a phase used, 0 to 1."""
        return min(1.0, self.seconds[phase] / self.room[phase]) if self.room[phase] else 0.0

    def __add__(self, other: "Times") -> "Times":
        return self._with(other, 1)

    def __sub__(self, other: "Times") -> "Times":
        return self._with(other, -1)

    def _with(self, other: "Times", sign: int) -> "Times":
        return Times(
            {phase: self.seconds[phase] + sign * other.seconds[phase] for phase in PHASES},
            self.working + sign * other.working,
            {phase: self.room[phase] + sign * other.room[phase] for phase in PHASES},
            self.bytes_read + sign * other.bytes_read,
        )


def verdict(times: Times) -> str:
    """What limits the rate, in words."""
    if times.busy("compute") >= BUSY:
        return "compute-bound"
    slowest = max(PHASES, key=times.busy)
    if times.busy(slowest) < WAITED_FOR:
        return "no stage is busy throughout; short runs and single slow images look like this"
    return {
        "fetch": "it waits for the storage",
        "decode": "it waits for decoding",
        "compute": "it waits, but for nothing in particular",
        "finish": "it waits for the statistics of its output",
        "write": "it waits for results to be written",
    }[slowest]


class Clock:
    """Adds up an actor's times, from all of its threads.

    Attributes:
        ready: images that are read and wait for the network.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lanes = dict.fromkeys(PHASES, 1)
        self._times = Times()
        self._shards = 0
        self._since = 0.0
        self._told: dict[str, Times] = {}
        self.ready = 0

    def set_lanes(self, **lanes: int) -> None:
        """Say how many threads may be in a phase at once."""
        self._lanes |= lanes

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time of the block."""
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - started
            with self._lock:
                self._times.seconds[name] += seconds

    @contextmanager
    def shard(self) -> Iterator[None]:
        """Count the time of the block as working; blocks of several threads may overlap."""
        with self._lock:
            self._count_working()
            self._shards += 1
        try:
            yield
        finally:
            with self._lock:
                self._count_working()
                self._shards -= 1

    def count_bytes(self, count: int) -> None:
        """Count bytes read."""
        with self._lock:
            self._times.bytes_read += count

    def count_ready(self, change: int) -> None:
        """Count an image that is ready for the network, or (-1) that it took."""
        with self._lock:
            self.ready += change

    def times(self) -> Times:
        """All times until now, a copy."""
        with self._lock:
            self._count_working()
            return self._times + Times()

    def news(self, whom: str) -> Times:
        """The times since this was asked last for the same listener."""
        with self._lock:
            self._count_working()
            now, before = self._times + Times(), self._told.get(whom, Times())
            self._told[whom] = now
            return now - before

    def _count_working(self) -> None:
        now = time.perf_counter()
        if self._shards:
            self._times.working += now - self._since
            for phase, lanes in self._lanes.items():
                self._times.room[phase] += lanes * (now - self._since)
        self._since = now
