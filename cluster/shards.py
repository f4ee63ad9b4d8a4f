"""The driver: hands the missing shards of a directory to a pool of actors.

The driver keeps nothing per image. A shard whose actor died goes back to the queue; a shard that
lost two actors is put aside and taken up alone at the end, where the images that end the process
are found by halving. A shard that fails with an error of its own is tried again after the others.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa
import ray
import structlog

from cluster.actors import Done, Job
from cluster.layout import ActorLayout
from cluster.pool import Outcome, Pool, Slot, Tally, cause_of, is_death, outcome_of
from gazecore.errors import RunFailed
from gazecore.results.directory import ShardedDirectory
from gazecore.results.plan import Shard, shards

MAX_ERRORS = 3
"""How often a shard may fail with an error of its own before the run goes on without it."""

MAX_IN_A_ROW = 20
"""How many new shards, for each actor, may fail one after the other; more than that is a storage
that is gone or full."""

MAX_DEATHS = 2
"""How many actors a shard may lose before it is taken up alone."""

MAX_ROUNDS = 4
"""How often a shard is taken up alone before the run goes on without it."""

MAX_SUSPECTS = 100
"""How many shards may wait to be taken up alone; more than that is a broken machine."""

SINGLE_TRIES = 3
"""How often a single image must end its process, alone, before it is called crashed."""

_ALONE = -1
"""Stands for a shard's number while images are tried alone."""

log = structlog.get_logger()


@dataclass
class _Task:
    shard: Shard
    deaths: int = 0
    errors: int = 0


def work_off(
    planned: ShardedDirectory,
    job: Job,
    layout: ActorLayout,
    report: Callable[[Tally], None],
    again: Iterable[Shard] = (),
) -> Tally:
    """Process every shard of the plan that is not done.

    Args:
        planned: the directory, with its plan.
        job: what actors do.
        layout: how many actors, and how large.
        report: is called about once a second.
        again: parts of shards that are done, to be tried again after that.

    Raises:
        RunFailed: actors cannot load the network, or die faster than they work; or one shard after
            the other fails.
    """
    done, tally = planned.shards_done(), Tally()
    queue = _Queue(chain(shards(planned, lambda number: number not in done), again))
    if queue.is_empty():
        return tally
    pool = Pool(job, layout, tally, report)
    for task in _drain(pool, queue, tally):
        _process_alone(pool, task, tally)
    tally.unfinished = (0, 0)
    report(tally)
    if tally.deaths:
        planned.remove_temporaries()  # of actors that were killed while they wrote
    return tally


class _Queue:
    """Shards to do: those that lost an actor first, then new ones, then those that failed."""

    def __init__(self, new: Iterator[Shard]) -> None:
        self._new = new
        self.again: deque[_Task] = deque()
        self.later: deque[_Task] = deque()

    def pop(self) -> _Task | None:
        if self.again:
            return self.again.popleft()
        shard = next(self._new, None)
        if shard is not None:
            return _Task(shard)
        return self.later.popleft() if self.later else None

    def is_empty(self) -> bool:
        task = self.pop()
        if task is not None:
            self.again.appendleft(task)
        return task is None


def _drain(pool: Pool, queue: _Queue, tally: Tally) -> list[_Task]:
    """Process shards on all actors; returns those that kept losing theirs."""
    suspects: list[_Task] = []
    flying: dict[ray.ObjectRef, tuple[Slot, ray.actor.ActorHandle, _Task]] = {}
    in_a_row = 0
    while flying or not queue.is_empty():
        while (slot := pool.free_slot()) and (task := queue.pop()):
            slot.shards.add(task.shard.number)
            flying[_call(slot, task, frozenset())] = (slot, slot.actor, task)
        pool.has_more = not queue.is_empty()
        for ref in pool.wait(flying):
            slot, actor, task = flying.pop(ref)
            slot.shards.discard(task.shard.number)
            outcome = outcome_of(ref)
            if isinstance(outcome, Done):
                tally.add(outcome, task.shard.is_part)
                in_a_row = 0
            elif is_death(outcome):
                task.deaths += pool.lost(slot, actor, outcome)
                (queue.again if task.deaths < MAX_DEATHS else suspects).append(task)
                if len(suspects) > MAX_SUSPECTS:
                    raise RunFailed(
                        f"{len(suspects)} shards lost {MAX_DEATHS} actors each: look for a broken "
                        "machine or too little memory; the same command continues"
                    )
            else:
                in_a_row += task.errors == 0
                if in_a_row > MAX_IN_A_ROW * max(1, len(pool.slots)):
                    raise RunFailed(
                        f"{in_a_row} shards failed one after the other, the last with "
                        f"{cause_of(outcome)}; the same command continues, once that is mended"
                    )
                if not _give_up(task, outcome, tally):
                    queue.later.append(task)
    return suspects


def _call(slot: Slot, task: _Task, crashed: frozenset[str]) -> ray.ObjectRef:
    shard, last_try = task.shard, task.errors == MAX_ERRORS - 1
    return slot.actor.process.remote(shard.number, shard.images, crashed, last_try, shard.is_part)


def _process_alone(pool: Pool, task: _Task, tally: Tally) -> None:
    """Process a shard that kept losing its actor, after finding the images that are to blame."""
    crashed: frozenset[str] = frozenset()
    log.warning("shard_alone", shard=task.shard.number, images=task.shard.images.num_rows)
    for _ in range(MAX_ROUNDS):
        slot = pool.ready_slot()
        actor = slot.actor
        slot.shards.add(task.shard.number)
        outcome: Outcome = pool.finish(_call(slot, task, crashed))
        slot.shards.discard(task.shard.number)
        if isinstance(outcome, Done):
            tally.add(outcome, task.shard.is_part)
            return
        if is_death(outcome):
            if pool.lost(slot, actor, outcome):
                crashed |= _find_killers(pool, task.shard.images, crashed)
        elif _give_up(task, outcome, tally):
            return
    tally.failed_shards[task.shard.number] = "it keeps losing its actor, though no image does alone"


def _find_killers(pool: Pool, images: pa.Table, known: frozenset[str]) -> frozenset[str]:
    """The images that end the process that works on them, by halving."""
    ids = images["image_id"].to_pylist()
    images = images.filter(pa.array([image_id not in known for image_id in ids]))
    for _ in range(SINGLE_TRIES if images.num_rows == 1 else 1):
        if images.num_rows == 0 or _survives(pool, images):
            return frozenset()
    if images.num_rows == 1:
        image_id = images["image_id"][0].as_py()
        log.warning("image_crashed", image_id=image_id)
        return frozenset([image_id])
    middle = images.num_rows // 2
    halves = (images.slice(0, middle), images.slice(middle))
    return frozenset().union(*(_find_killers(pool, half, known) for half in halves))


def _survives(pool: Pool, images: pa.Table) -> bool:
    while True:
        slot = pool.ready_slot()
        actor = slot.actor
        slot.shards.add(_ALONE)
        outcome = pool.finish(actor.survive.remote(images))
        slot.shards.discard(_ALONE)
        if not (isinstance(outcome, Exception) and is_death(outcome)):
            return True
        if pool.lost(slot, actor, outcome):
            return False


def _give_up(task: _Task, error: Exception, tally: Tally) -> bool:
    """Count an error that a shard ended with; True once it is not tried again."""
    message = cause_of(error)
    task.errors += 1
    log.warning("shard_error", shard=task.shard.number, error=message, attempt=task.errors)
    if task.errors >= MAX_ERRORS:
        tally.failed_shards[task.shard.number] = message
        return True
    return False
