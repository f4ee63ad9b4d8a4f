"""A pool of actors: replaced when they die, given work once they are ready.

It grows and shrinks with the cluster. Actors of a node that is about to be taken away (`ray
drain-node`, SIGTERM to `ray start --block`, an autoscaler) finish what they have begun and get
nothing new, while others start elsewhere.
"""

import time
from collections.abc import Callable

import pyarrow as pa
import ray
import structlog
from ray.exceptions import ActorDiedError, RayTaskError

from cluster.actors import actor_starter
from cluster.calls import Call, Outcome, Slot, outcome_of
from cluster.connection import draining_nodes, nodes_in_use
from cluster.layout import ActorLayout
from gazecore.errors import Interrupted, RunFailed, one_line
from gazecore.shards.blame import Task
from gazecore.shards.stage import StageConfig
from gazecore.shards.stop import Stop
from gazecore.shards.tally import Done, Tally
from gazecore.shards.worker import SHARDS_AT_ONCE

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

WAIT_SECONDS = 1.0
"""How long nothing may happen until the cluster is looked at again."""


class Pool:
    """Slots for the actors that the layout asks for, some of which may still wait for room.

    Attributes:
        slots: those that are given work.
        has_more: whether there is work that no actor has; without it, none is started or waited for
            beyond the first.
    """

    def __init__(
        self,
        config: StageConfig,
        layout: ActorLayout,
        tally: Tally,
        report: Callable[[Tally], None],
        stop: Stop,
    ) -> None:
        self._layout, self._tally, self._report = layout, tally, report
        self._stop = stop
        self._start = actor_starter(config, layout.gpus, layout.cpus)
        self._start_failures = 0
        self._calls: dict[ray.ObjectRef, Call] = {}
        self.slots: list[Slot] = []
        self._leaving: list[Slot] = []
        self._gone: set[Slot] = set()
        self.has_more = True
        self._enough = time.monotonic()
        self._warned: float | None = None
        self._reported = -REPORT_EVERY
        self._look()

    def process(self, slot: Slot, task: Task, crashed: frozenset[str] = frozenset()) -> Call:
        """Have a shard processed and committed, without the images that are known to crash."""
        call = Call(slot, slot.actor, "work", task.shard.number, task)
        ref = slot.actor.process.remote(task.shard, crashed, task.is_last_try)
        return self._called(ref, call)

    def survive(self, slot: Slot, images: pa.Table) -> Call:
        """Have images processed, to see whether that can be lived through."""
        call = Call(slot, slot.actor, "work")
        return self._called(slot.actor.survive.remote(images), call)

    def _called(self, ref: ray.ObjectRef, call: Call) -> Call:
        self._calls[ref] = call
        if call.kind == "work":
            call.slot.shards.add(call.shard)
        return call

    @property
    def in_work(self) -> int:
        """How many calls for work have not ended."""
        return sum(call.kind == "work" for call in self._calls.values())

    def wait(self) -> list[tuple[Call, Done | Exception]]:
        """The calls for work that have ended, and how; waits for at most a second.

        Raises:
            Interrupted: somebody asked for the end, and what is in work takes too long.
            RunFailed: actors cannot load the network, keep dying while they start, or have been too
                few for too long.
        """
        self._stop.check(self.in_work)
        self._tick()
        refs = list(self._calls)
        if not refs:
            time.sleep(0.2)
            return []
        ready, _ = ray.wait(refs, timeout=WAIT_SECONDS)
        if ready:  # with all others that have ended
            ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        ended = []
        for ref in ready:
            call, outcome = self._calls.pop(ref), outcome_of(ref)
            if call.kind == "work":
                assert isinstance(outcome, Done | Exception)
                call.slot.shards.discard(call.shard)
                ended.append((call, outcome))
            elif call.slot.actor is call.actor:
                self._heard(call, outcome)
        return ended

    def _heard(self, call: Call, outcome: Outcome) -> None:
        """An actor has started, or said how far it is."""
        slot = call.slot
        if call.kind == "ready":
            if isinstance(outcome, str):
                slot.node, self._start_failures = outcome, 0
            elif isinstance(outcome, Exception) and slot in self.slots:
                self._failed_to_start(slot, outcome)
            return
        slot.is_asked, slot.counts = False, outcome if isinstance(outcome, dict) else {}
        if isinstance(outcome, ActorDiedError):
            self.lost(call, outcome)

    def _tick(self) -> None:
        """Report, ask for progress, and follow the cluster, each once in a while."""
        if time.monotonic() - self._reported >= REPORT_EVERY:
            self._collect_progress()
        if time.monotonic() - self._looked >= LOOK_EVERY:
            self._look()

    def _collect_progress(self) -> None:
        self._reported = time.monotonic()
        working = []
        for slot in (*self.slots, *self._leaving):
            if slot.is_ready and not slot.is_asked:
                slot.is_asked = True
                self._called(slot.actor.progress.remote(), Call(slot, slot.actor, "progress"))
            working += [count for shard, count in slot.counts.items() if shard in slot.shards]
        self._tally.unfinished = (sum(ok for ok, _ in working), sum(bad for _, bad in working))
        self._report(self._tally)

    def _fill(self, slot: Slot | None = None) -> Slot:
        """Start an actor, in a new slot or in the place of one that died."""
        actor = self._start()
        if slot is None:
            slot = Slot(actor)
        else:
            slot.place(actor)
        self._called(actor.ready.remote(), Call(slot, actor, "ready"))
        return slot

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
            self._gone.add(slot)  # a question on its way to the actor will find it dead
        room = self._layout.room(nodes_in_use())
        wanted = max(1, room if self._layout.actors is None else self._layout.actors)
        ready = sum(slot.is_ready for slot in self.slots)
        if not self.has_more:
            wanted = min(wanted, max(1, ready))
        while len(self.slots) < wanted:
            self.slots.append(self._fill())
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
        """A slot whose actor is ready; waits until there is one, while nothing else is in work.

        Raises Interrupted where somebody asked for the end.
        """
        while True:
            self.wait()
            if self._stop.signal:
                raise Interrupted(self._stop.signal)
            if slot := next((slot for slot in self.slots if slot.is_ready), None):
                return slot

    def finish(self, call: Call) -> tuple[Call, Done | Exception]:
        """Wait for a call, the only one for work, reporting meanwhile."""
        while not (ended := self.wait()):
            pass
        [(found, outcome)] = ended
        assert found is call
        return found, outcome

    def lost(self, call: Call, error: Exception) -> bool:
        """The actor that was called died: replace it, unless it has been already.

        Returns whether its work may be to blame, and not the end of a node that had been announced.
        """
        slot = call.slot
        if slot.actor is call.actor and slot not in self._gone:
            self._tally.deaths += 1
            log.warning("actor_died", reason=one_line(error, 160))
            if slot in self._leaving:
                self._leaving.remove(slot)
                self._gone.add(slot)
            else:
                self._fill(slot)
        return not (slot in self._gone or getattr(error, "preempted", False))

    def _failed_to_start(self, slot: Slot, error: Exception) -> None:
        if "node has died" not in str(error):
            self._start_failures += 1
        reason = str(error).strip().splitlines()[-1].strip()
        raised = isinstance(error, RayTaskError) or getattr(error, "actor_init_failed", False)
        if raised or self._start_failures >= MAX_START_FAILURES:
            raise RunFailed(f"an actor cannot start: {reason}") from error
        log.warning("actor_died_at_start", reason=reason[:160])
        self._fill(slot)
