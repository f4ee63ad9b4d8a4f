"""What a run of a command has done so far."""

from dataclasses import dataclass, field

from cluster.actors import Done
from gazecore.scoring.stages import StageTimes


@dataclass
class Tally:
    """What has happened so far; updated in place.

    Attributes:
        ok: images that ended well in this run of the command.
        errors: failed images by error class.
        unfinished: images (ok, failed) of shards that are in work.
        shards: shards committed.
        failed_shards: shard number to the reason that it could not be done.
        deaths: actors lost.
        times: where the time of committed shards went, summed over actors.
        retried: images (ok, failed) among all of these that had failed in a run before.
        interrupted: something was left when somebody ended this run of the command.
    """

    ok: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    unfinished: tuple[int, int] = (0, 0)
    shards: int = 0
    failed_shards: dict[int, str] = field(default_factory=dict)
    deaths: int = 0
    times: StageTimes = field(default_factory=StageTimes)
    retried: tuple[int, int] = (0, 0)
    interrupted: bool = False

    @property
    def failed(self) -> int:
        """Failed images of committed shards."""
        return sum(self.errors.values())

    @property
    def committed(self) -> int:
        """Images that had no row before."""
        return self.ok + self.failed - sum(self.retried)

    def add(self, done: Done, is_part: bool) -> None:
        """Count a committed shard, or a part of one that was tried again."""
        self.shards += 1
        self.times += done.times
        for error, count in done.images.items():
            if error is None:
                self.ok += count
            else:
                self.errors[error] = self.errors.get(error, 0) + count
        if is_part:
            ok = done.images.get(None, 0)
            failed = sum(done.images.values()) - ok
            self.retried = (self.retried[0] + ok, self.retried[1] + failed)
