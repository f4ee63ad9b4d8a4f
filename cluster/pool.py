"""A pool of actors: replaced when they die, given work once they are ready.

It grows and shrinks with the cluster. Actors of a node that is about to be taken away (`ray
drain-node`, SIGTERM to `ray start --block`, an autoscaler) finish what they have begun and get
nothing new, while others start elsewhere.
"""

import time
from collections.abc import Callable, Iterable

import ray
import structlog
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayActorError, RayError, RayTaskError

from cluster.actors import SHARDS_AT_ONCE, Done, Job, start_actor
from cluster.layout import ActorLayout
from cluster.session import draining_nodes, nodes_in_use
from cluster.stop import Stop
from cluster.tally import Tally
from gazecore.errors import Interrupted, RunFailed, one_line

MAX_START_FAILURES = 3
"""How many actors in a row may die while they start before the run ends."""

WARN_EVERY = 30.0
"""Seconds between words about actors that wait for room."""

REPORT_EVERY = 1.0
"""Seconds between questions to all actors on their progress: asked at each shard's end, many actors
would keep the driver busy with nothing else."""

LOOK_EVERY = 2.0
"""Seconds between looks at the cluster's nodes."""

MAX_TOO_FEW = 3600.0
"""Seconds that a run goes on with fewer actors than it was told to."""

log = structlog.get_logger()

Outcome = Done | Exception
"""What a call to an actor ended with: its answer, or why there is none."""


class Slot:
    """A place in the pool.

    Attributes:
        actor: the one that holds the place now.
        is_ready: whether it has loaded its model.
        node: id of the node that it is on, once it is ready.
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
        self.is_ready, self.node = False, ""
        self.counts: dict[int, tuple[int, int]] = {}
        self._ready = self.actor.ready.remote()
        self._progress: ray.ObjectRef | None = None

    def has_started(self) -> bool:
        """Whether the actor became ready just now. Raises what it died of while it started."""
        if self.is_ready or not ray.wait([self._ready], timeout=0)[0]:
            return False
        self.node = ray.get(self._ready)
        self.is_ready = True
        return True

    def poll_progress(self) -> None:
        """Pick up the last answer on progress and ask again; never waits. Raises ActorDiedError."""
        if not self.is_ready:
            return
        if self._progress is not None:
            ready, _ = ray.wait([self._progress], timeout=0)
            if not ready:
                return
            try:
                self.counts = ray.get(ready[0])
            except ActorDiedError:
                raise
            except RayError:
                self.counts = {}
        self._progress = self.actor.progress.remote()


class Pool:
    """Slots for the actors that the layout asks for, some of which may still wait for room.

    Attributes:
        slots: those that are given work.
        has_more: whether there is work that no actor has; without it, none is started or waited for
            beyond the first.
    """

    def __init__(
        self,
        job: Job,
        layout: ActorLayout,
        tally: Tally,
        report: Callable[[Tally], None],
        stop: Stop,
    ) -> None:
        # Put once: the object store brings it to each node once, for all actors there.
        shared = ray.put(job)
        self._layout, self._tally, self._report = layout, tally, report
        self._stop = stop
        self._start = lambda: start_actor(shared, layout.gpus, layout.cpus)
        self._start_failures = 0
        self.slots: list[Slot] = []
        self._leaving: list[Slot] = []
        self._gone: set[Slot] = set()
        self.has_more = True
        self._enough = time.monotonic()
        self._warned: float | None = None
        self._reported = -REPORT_EVERY
        self._look()

    def tick(self) -> None:
        """See which actors have started, which must leave, collect progress and report it.

        Raises:
            RunFailed: actors cannot load the model, keep dying while they start, or have been too
                few for too long.
        """
        for slot in self.slots:
            try:
                if slot.has_started():
                    self._start_failures = 0
            except (RayActorError, RayTaskError, OutOfMemoryError) as error:
                self._failed_to_start(slot, error)
        if time.monotonic() - self._reported >= REPORT_EVERY:
            self._collect_progress()
        if time.monotonic() - self._looked >= LOOK_EVERY:
            self._look()

    def _collect_progress(self) -> None:
        self._reported = time.monotonic()
        working = []
        for slot in (*self.slots, *self._leaving):
            try:
                slot.poll_progress()
            except ActorDiedError as error:
                self.lost(slot, slot.actor, error)
            working += [count for shard, count in slot.counts.items() if shard in slot.shards]
        self._tally.unfinished = (sum(ok for ok, _ in working), sum(bad for _, bad in working))
        self._report(self._tally)

    def _look(self) -> None:
        """Follow the cluster: let go of nodes that leave, and have as many actors as it may."""
        self._looked = time.monotonic()
        leaving = draining_nodes()
        for slot in [slot for slot in self.slots if slot.node in leaving]:
            log.warning("node_drains", node=slot.node, shards_to_finish=sorted(slot.shards))
            self.slots.remove(slot)
            self._leaving.append(slot)
        for slot in [slot for slot in self._leaving if not slot.shards]:
            ray.kill(slot.actor)  # the node waits for it
            self._leaving.remove(slot)
        room = self._layout.room(nodes_in_use())
        wanted = max(1, room if self._layout.actors is None else self._layout.actors)
        ready = sum(slot.is_ready for slot in self.slots)
        if not self.has_more:
            wanted = min(wanted, max(1, ready))
        while len(self.slots) < wanted:
            self.slots.append(Slot(self._start))
        unneeded = [slot for slot in self.slots if not slot.is_ready][wanted - len(self.slots) :]
        for slot in unneeded if wanted < len(self.slots) else ():
            ray.kill(slot.actor)
            self.slots.remove(slot)
        self._check_enough(ready, room)

    def _check_enough(self, ready: int, room: int) -> None:
        """Say so where actors wait for room; end the run where they were too few for too long."""
        now, least = time.monotonic(), self._layout.least
        if ready >= least or not self.has_more:
            self._enough = now
        if now - self._enough >= MAX_TOO_FEW:
            raise RunFailed(
                f"only {ready} of at least {least} actors have been at work for "
                f"{MAX_TOO_FEW / 60:.0f} minutes: the same command continues, once there are nodes"
            )
        if ready >= (least or len(self.slots)):
            self._warned = now
        elif self._warned is None:
            # Actors need time to start; but where no node can take one, people know at once.
            self._warned = now - WARN_EVERY if not room else now
        if now - (self._warned or now) >= WARN_EVERY:
            self._warned = now
            log.warning(
                "waiting_for_room", actors_waiting=len(self.slots) - ready, actors=len(self.slots),
                gpus_per_actor=self._layout.gpus, cpus_per_actor=self._layout.cpus,
                cluster={k: v for k, v in ray.cluster_resources().items() if k in ("CPU", "GPU")},
            )  # fmt: skip

    def free_slot(self) -> Slot | None:
        """The ready slot with the least to do, if one can take another shard."""
        ready = [slot for slot in self.slots if slot.is_ready]
        slot = min(ready, key=lambda slot: len(slot.shards), default=None)
        return slot if slot and len(slot.shards) < SHARDS_AT_ONCE else None

    def ready_slot(self) -> Slot:
        """A slot whose actor is ready; waits until there is one.

        Raises Interrupted where somebody asked for the end.
        """
        while True:
            self.tick()
            if self._stop.signal:
                raise Interrupted(self._stop.signal)
            for slot in self.slots:
                if slot.is_ready:
                    return slot
            time.sleep(0.2)

    def wait(self, refs: Iterable[ray.ObjectRef]) -> list[ray.ObjectRef]:
        """The calls among these that have ended; waits for at most a second.

        Raises Interrupted where somebody asked for the end, and what is in work takes too long.
        """
        self._stop.check(sum(len(slot.shards) for slot in (*self.slots, *self._leaving)))
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

    def lost(self, slot: Slot, actor: "ray.actor.ActorHandle", error: Exception) -> bool:
        """An actor died: replace it, unless it has been already.

        Returns whether its work may be to blame, and not the end of a node that had been announced.
        """
        if slot.actor is actor and slot not in self._gone:
            self._tally.deaths += 1
            log.warning("actor_died", reason=one_line(error, 160))
            if slot in self._leaving:
                self._leaving.remove(slot)
                self._gone.add(slot)
            else:
                slot.replace()
        return not (slot in self._gone or getattr(error, "preempted", False))

    def _failed_to_start(self, slot: Slot, error: Exception) -> None:
        if "node has died" not in str(error):
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


def raised_by(error: Exception) -> Exception:
    """What a call raised, without Ray's wrapping."""
    cause: Exception = error.cause if isinstance(error, RayTaskError) else error
    return cause


def cause_of(error: Exception) -> str:
    """What a call raised, on one line."""
    cause = raised_by(error)
    return f"{type(cause).__name__}: {one_line(cause)}"
