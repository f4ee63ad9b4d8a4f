"""A pool of actors: replaced when they die, given work once they are ready."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import ray
import structlog
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError

from cluster.actors import SHARDS_AT_ONCE, Done, Job, start_actor
from cluster.session import ActorLayout
from gazecore.errors import RunFailed, one_line
from gazecore.scoring.stages import StageTimes

MAX_START_FAILURES = 3
"""How many actors in a row may die while they start before the run ends."""

WARN_EVERY = 30.0
"""Seconds between words about actors that wait for room."""

log = structlog.get_logger()

Outcome = Done | Exception
"""What a call to an actor ended with: its answer, or why there is none."""


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
    """

    ok: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    unfinished: tuple[int, int] = (0, 0)
    shards: int = 0
    failed_shards: dict[int, str] = field(default_factory=dict)
    deaths: int = 0
    times: StageTimes = field(default_factory=StageTimes)

    @property
    def failed(self) -> int:
        """Failed images of committed shards."""
        return sum(self.errors.values())

    def add(self, done: Done) -> None:
        """Count a committed shard."""
        self.shards += 1
        self.times += done.times
        for error, count in done.images.items():
            if error is None:
                self.ok += count
            else:
                self.errors[error] = self.errors.get(error, 0) + count


class Slot:
    """A place in the pool.

    Attributes:
        actor: the one that holds the place now.
        is_ready: whether it has loaded its model.
        shards: numbers of the shards that it works on.
        counts: its last word on progress, shard to images (ok, failed).
    """

    def __init__(self, start: Callable[[], "ray.actor.ActorHandle"]) -> None:
        self._start = start
        self.shards: set[int] = set()
        self.replace()

    def replace(self) -> None:
        """Start an actor, in the place of one that died if there was one."""
        self.actor = self._start()
        self.is_ready = False
        self.counts: dict[int, tuple[int, int]] = {}
        self._ready = self.actor.ready.remote()
        self._progress: ray.ObjectRef | None = None

    def has_started(self) -> bool:
        """Whether the actor became ready just now. Raises what it died of while it started."""
        if self.is_ready or not ray.wait([self._ready], timeout=0)[0]:
            return False
        ray.get(self._ready)
        self.is_ready = True
        return True

    def poll_progress(self) -> None:
        """Pick up the last answer on progress and ask again; never waits."""
        if not self.is_ready:
            return
        if self._progress is not None:
            ready, _ = ray.wait([self._progress], timeout=0)
            if not ready:
                return
            try:
                self.counts = ray.get(ready[0])
            except RayError:
                self.counts = {}
        self._progress = self.actor.progress.remote()


class Pool:
    """Slots for as many actors as the layout says, some of which may still wait for room."""

    def __init__(
        self,
        job: Job,
        layout: ActorLayout,
        tally: Tally,
        report: Callable[[Tally], None],
    ) -> None:
        shared = ray.put(job)
        self._layout, self._tally, self._report = layout, tally, report
        self._start_failures = 0
        self._warned = time.monotonic()
        self.slots = [
            Slot(lambda: start_actor(shared, layout.gpus, layout.cpus))
            for _ in range(layout.actors)
        ]

    def tick(self) -> None:
        """See which actors have started, collect progress and report it.

        Raises:
            RunFailed: actors cannot load the model, or keep dying while they start.
        """
        for slot in self.slots:
            try:
                if slot.has_started():
                    self._start_failures = 0
            except (RayActorError, RayTaskError, OutOfMemoryError) as error:
                self._failed_to_start(slot, error)
            slot.poll_progress()
        working = [
            count for slot in self.slots for shard, count in slot.counts.items()
            if shard in slot.shards
        ]  # fmt: skip
        self._tally.unfinished = (sum(ok for ok, _ in working), sum(bad for _, bad in working))
        self._report(self._tally)
        waiting = sum(not slot.is_ready for slot in self.slots)
        if waiting and time.monotonic() - self._warned >= WARN_EVERY:
            self._warned = time.monotonic()
            available = {k: v for k, v in ray.cluster_resources().items() if k in ("CPU", "GPU")}
            log.warning(
                "waiting_for_room", actors_waiting=waiting, actors=len(self.slots),
                gpus_per_actor=self._layout.gpus, cpus_per_actor=self._layout.cpus,
                cluster=available,
            )  # fmt: skip

    def free_slot(self) -> Slot | None:
        """The ready slot with the least to do, if one can take another shard."""
        ready = [slot for slot in self.slots if slot.is_ready]
        slot = min(ready, key=lambda slot: len(slot.shards), default=None)
        return slot if slot and len(slot.shards) < SHARDS_AT_ONCE else None

    def ready_slot(self) -> Slot:
        """A slot whose actor is ready; waits until there is one."""
        while True:
            self.tick()
            for slot in self.slots:
                if slot.is_ready:
                    return slot
            time.sleep(0.2)

    def wait(self, refs: Iterable[ray.ObjectRef]) -> list[ray.ObjectRef]:
        """The calls among these that have ended; waits for at most a second."""
        refs = list(refs)
        if refs:
            ready: list[ray.ObjectRef] = ray.wait(refs, timeout=1.0)[0]
        else:
            time.sleep(0.2)
            ready = []
        self.tick()
        return ready

    def finish(self, ref: ray.ObjectRef) -> Outcome:
        """Wait for one call, reporting meanwhile."""
        while not self.wait([ref]):
            pass
        return outcome_of(ref)

    def lost(self, slot: Slot, actor: "ray.actor.ActorHandle", error: Exception) -> None:
        """An actor died: replace it, unless it has been already."""
        if slot.actor is actor:
            self._tally.deaths += 1
            log.warning("actor_died", reason=one_line(error, 160))
            slot.replace()

    def _failed_to_start(self, slot: Slot, error: Exception) -> None:
        self._start_failures += 1
        reason = str(error).strip().splitlines()[-1].strip()
        raised = isinstance(error, RayTaskError) or getattr(error, "actor_init_failed", False)
        if raised or self._start_failures >= MAX_START_FAILURES:
            raise RunFailed(f"an actor cannot start: {reason}") from error
        log.warning("actor_died_at_start", reason=reason[:160])
        slot.replace()


def outcome_of(ref: ray.ObjectRef) -> Outcome:
    """What a call that has ended ended with."""
    try:
        done: Done = ray.get(ref)
        return done
    except (RayActorError, RayTaskError, OutOfMemoryError) as error:
        failure: Exception = error
        return failure


def is_death(error: Exception) -> bool:
    """Whether an actor died, as opposed to a call that raised."""
    return isinstance(error, RayActorError | OutOfMemoryError)


def cause_of(error: Exception) -> str:
    """What a call raised, on one line."""
    cause: Exception = error.cause if isinstance(error, RayTaskError) else error
    return f"{type(cause).__name__}: {one_line(cause)}"
