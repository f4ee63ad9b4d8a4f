"""What has been done so far, in numbers."""

from collections import Counter
from dataclasses import dataclass, field

from gazecore.shards.clock import Times

OK = "ok"
"""What an image that ended well is counted by; others by their error's code."""


@dataclass(frozen=True)
class Done:
    """What became of a shard that was committed.

    Attributes:
        images: how many ended `ok`, and with each error.
        times: of the worker, since it said so last.
    """

    images: Counter[str] = field(default_factory=Counter)
    times: Times = field(default_factory=Times)


@dataclass
class Tally:
    """What has happened so far in this run of a command; updated in place.

    Attributes:
        images: of committed shards, how many ended `ok`, and with each error.
        unfinished: images (ok, failed) of shards that are in work.
        shards: shards committed.
        failed_shards: shard number to the reason that it could not be done.
        deaths: actors lost.
        times: where the time of committed shards went, summed over workers.
        retried: images (ok, failed) among all of these that had failed in a run before.
        interrupted: something was left when somebody ended this run of the command.
    """

    images: Counter[str] = field(default_factory=Counter)
    unfinished: tuple[int, int] = (0, 0)
    shards: int = 0
    failed_shards: dict[int, str] = field(default_factory=dict)
    deaths: int = 0
    times: Times = field(default_factory=Times)
    retried: tuple[int, int] = (0, 0)
    interrupted: bool = False

    @property
    def ok(self) -> int:
        """Images that ended well."""
        return self.images[OK]

    @property
    def errors(self) -> dict[str, int]:
        """Failed images by error, the most frequent first."""
        return {error: count for error, count in self.images.most_common() if error != OK}

    @property
    def failed(self) -> int:
        """Failed images of committed shards."""
        return self.images.total() - self.ok

    @property
    def committed(self) -> int:
        """Images that had no row before."""
        return self.images.total() - sum(self.retried)

    def add(self, done: Done, is_part: bool) -> None:
        """Count a committed shard, or a part of one that was tried again."""
        self.shards += 1
        self.times += done.times
        self.images.update(done.images)
        if is_part:
            ok = done.images[OK]
            failed = done.images.total() - ok
            self.retried = (self.retried[0] + ok, self.retried[1] + failed)
