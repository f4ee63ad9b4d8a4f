"""The driver: hands the missing shards of a directory to a pool of actors.

The driver keeps nothing per image. A shard whose actor died goes back to the queue; a shard that
lost two actors is put aside and taken up alone at the end, where the images that end the process
are found by halving. A shard that fails with an error of its own is tried again, in turn with new
ones. What is decided of those is in `cluster.blame`.
"""

from collections.abc import Callable, Iterable

import pyarrow as pa
import ray
import structlog

from cluster.actors import Done, Job
from cluster.blame import MAX_DEATHS, MAX_ERRORS, Queue, Streak, Task, find_killers
from cluster.layout import ActorLayout
from cluster.pool import Outcome, Pool, Slot, cause_of, is_death, outcome_of, raised_by
from cluster.stop import Stop
from cluster.tally import Tally
from gazecore.errors import KeysRefused, RunFailed
from gazecore.results.directory import ShardedDirectory
from gazecore.results.plan import Shard, shards

MAX_ROUNDS = 4
"""How often a shard is taken up alone before the run goes on without it."""

MAX_SUSPECTS = 100
"""How many shards may wait to be taken up alone; more than that is a broken machine."""

_ALONE = -1
"""Stands for a shard's number while images are tried alone."""

log = structlog.get_logger()


def work_off(
    planned: ShardedDirectory,
    job: Job,
    layout: ActorLayout,
    report: Callable[[Tally], None],
    again: Iterable[Shard] = (),
    stop: Stop | None = None,
) -> Tally:
    """Process every shard of the plan that is not done.

    Args:
        planned: the directory, with its plan.
        job: what actors do.
        layout: how many actors, and how large.
        report: is called about once a second.
        again: parts of shards that are done, to be tried again after that.
        stop: where it is signalled, nothing new is begun, and what is begun is finished if that
            can be soon; `Tally.interrupted` says whether something was left.

    Raises:
        RunFailed: actors cannot load the network, or die faster than they work; or one shard after
            the other fails.
        KeysRefused: the storage of the images does not know the keys.
    """
    done, tally, stop = planned.shards_done(), Tally(), stop or Stop()

    def missing(number: int) -> bool:
        return number not in done

    front, back = shards(planned, missing), shards(planned, missing, backwards=True)
    queue = Queue(front, back, iter(again))
    if queue.is_empty():
        return tally
    pool = Pool(job, layout, tally, report, stop)
    try:
        for task in _drain(pool, queue, tally, stop):
            _process_alone(pool, task, tally)
    except KeyboardInterrupt:
        if not stop.signal:
            raise
        tally.interrupted = True
    tally.interrupted |= bool(stop.signal) and not queue.is_empty()
    tally.unfinished = (0, 0)
    report(tally)
    if tally.deaths and not tally.interrupted:
        planned.remove_temporaries()  # of actors that were killed while they wrote
    return tally


def _drain(pool: Pool, queue: Queue, tally: Tally, stop: Stop) -> list[Task]:
    """Process shards on all actors; returns those that kept losing theirs."""
    suspects: list[Task] = []
    flying: dict[ray.ObjectRef, tuple[Slot, ray.actor.ActorHandle, Task]] = {}
    streak = Streak()
    while flying or not (stop.signal or queue.is_empty()):
        elsewhere = streak.is_long(len(pool.slots))
        while not stop.signal and (slot := pool.free_slot()) and (task := queue.pop(elsewhere)):
            slot.shards.add(task.shard.number)
            flying[_call(slot, task, frozenset())] = (slot, slot.actor, task)
        pool.has_more = not (stop.signal or queue.is_empty())
        for ref in pool.wait(flying):
            slot, actor, task = flying.pop(ref)
            slot.shards.discard(task.shard.number)
            outcome = outcome_of(ref)
            if isinstance(outcome, Done):
                tally.add(outcome, task.shard.is_part)
                streak.broken()
            elif is_death(outcome):
                task.deaths += pool.lost(slot, actor, outcome)
                if task.deaths < MAX_DEATHS:
                    queue.put_first(task)
                else:
                    suspects.append(task)
                if len(suspects) > MAX_SUSPECTS:
                    raise RunFailed(
                        f"{len(suspects)} shards lost {MAX_DEATHS} actors each: look for a broken "
                        "machine or too little memory; the same command continues"
                    )
            else:
                if isinstance(cause := raised_by(outcome), KeysRefused):
                    raise KeysRefused(str(cause))
                if streak.grows(task, getattr(cause, "answered", 0), len(pool.slots)):
                    raise RunFailed(
                        f"{streak.length} shards failed one after the other, the last with "
                        f"{cause_of(outcome)}; the same command continues, once that is mended"
                    )
                if not _give_up(task, outcome, tally):
                    queue.put_failed(task)
    return suspects


def _call(slot: Slot, task: Task, crashed: frozenset[str]) -> ray.ObjectRef:
    shard = task.shard
    return slot.actor.process.remote(
        shard.number, shard.images, crashed, task.is_last_try, shard.is_part
    )


def _process_alone(pool: Pool, task: Task, tally: Tally) -> None:
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
                images = task.shard.images
                killers = find_killers(images, crashed, lambda some: _survives(pool, some))
                for image_id in killers:
                    log.warning("image_crashed", image_id=image_id)
                crashed |= killers
        elif _give_up(task, outcome, tally):
            return
    tally.failed_shards[task.shard.number] = "it keeps losing its actor, though no image does alone"


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


def _give_up(task: Task, error: Exception, tally: Tally) -> bool:
    """Count an error that a shard ended with; True once it is not tried again."""
    message = cause_of(error)
    task.errors += 1
    log.warning("shard_error", shard=task.shard.number, error=message, attempt=task.errors)
    if task.errors >= MAX_ERRORS:
        tally.failed_shards[task.shard.number] = message
        return True
    return False
