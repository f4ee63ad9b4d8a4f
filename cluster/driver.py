"""The executor on Ray: hands the missing shards of a directory to a pool of actors.

The driver keeps nothing per image. A shard whose actor died goes back to the queue; a shard that
lost two actors is put aside and taken up alone at the end, where the images that end the process
are found by halving. A shard that fails with an error of its own is tried again, in turn with new
ones. What is decided of those is in `gazecore.shards.blame`.
"""

from collections.abc import Callable, Iterable

import pyarrow as pa
import structlog

from cluster.calls import cause_of, is_death, raised_by
from cluster.connection import connected, plan_layout
from cluster.layout import ActorLayout, ClusterConfig
from cluster.pool import Pool
from gazecore.shards.blame import Dispatcher, Task, find_killers
from gazecore.shards.directory import ShardedDirectory
from gazecore.shards.local import Executor
from gazecore.shards.plan import Shard
from gazecore.shards.stage import StageConfig
from gazecore.shards.stop import Stop
from gazecore.shards.tally import Done, Tally

MAX_ROUNDS = 4
"""How often a shard is taken up alone before the run goes on without it."""

log = structlog.get_logger()


def run(
    planned: ShardedDirectory,
    config: StageConfig,
    report: Callable[[Tally], None] = lambda tally: None,
    again: Iterable[Shard] = (),
    stop: Stop | None = None,
    *,
    layout: ActorLayout,
) -> Tally:
    """Process every shard of the plan that is not done, on the cluster that this is connected to.

    Args:
        planned, config, report, again, stop: as `gazecore.shards.local.run` takes them.
        layout: how many actors, and how large.

    Raises:
        RunFailed: actors cannot load the network, or die faster than they work; or one shard after
            the other fails.
        KeysRefused: the storage of the images does not know the keys.
    """
    stop = stop or Stop()
    dispatcher = Dispatcher(planned, again)
    tally = dispatcher.tally
    if dispatcher.is_empty():
        return tally
    pool = Pool(config, layout, tally, report, stop)
    try:
        _drain(pool, dispatcher, stop)
        for task in dispatcher.suspects:
            _process_alone(pool, dispatcher, task)
    except KeyboardInterrupt:
        if not stop.signal:
            raise
        tally.interrupted = True
    tally.interrupted |= bool(stop.signal) and not dispatcher.is_empty()
    tally.unfinished = (0, 0)
    report(tally)
    if tally.deaths and not tally.interrupted:
        planned.remove_temporaries()  # of actors that were killed while they wrote
    return tally


def at(address: str, config: ClusterConfig = ClusterConfig()) -> Executor:
    """An executor that connects to a cluster, works there, and lets go of it: for `gazecore.score`.

    Args:
        address: HOST:PORT, `auto`, or `local` for a new one on this machine.
        config: how many actors, and how large; its own address is not looked at.
    """

    def run_there(
        planned: ShardedDirectory,
        stage: StageConfig,
        report: Callable[[Tally], None] = lambda tally: None,
        again: Iterable[Shard] = (),
        stop: Stop | None = None,
    ) -> Tally:
        with connected(address) as can_grow:
            layout = plan_layout(config, can_grow)
            return run(planned, stage, report, again, stop, layout=layout)

    return run_there


def _drain(pool: Pool, dispatcher: Dispatcher, stop: Stop) -> None:
    """Process shards on all actors."""
    while pool.in_work or not (stop.signal or dispatcher.is_empty()):
        while (
            not stop.signal
            and (slot := pool.free_slot())
            and (task := dispatcher.next(len(pool.slots)))
        ):
            pool.process(slot, task)
        pool.has_more = not (stop.signal or dispatcher.is_empty())
        for call, outcome in pool.wait():
            assert call.task is not None
            if isinstance(outcome, Done):
                dispatcher.done(call.task, outcome)
            elif is_death(outcome):
                dispatcher.lost(call.task, pool.lost(call, outcome))
            else:
                _log_error(call.task, outcome)
                dispatcher.failed(call.task, raised_by(outcome), len(pool.slots))


def _process_alone(pool: Pool, dispatcher: Dispatcher, task: Task) -> None:
    """Process a shard that kept losing its actor, after finding the images that are to blame."""
    crashed: frozenset[str] = frozenset()
    log.warning("shard_alone", shard=task.shard.number, images=task.shard.images.num_rows)
    for _ in range(MAX_ROUNDS):
        call, outcome = pool.finish(pool.process(pool.ready_slot(), task, crashed))
        if isinstance(outcome, Done):
            dispatcher.done(task, outcome)
            return
        if is_death(outcome):
            if pool.lost(call, outcome):
                images = task.shard.images
                killers = find_killers(images, crashed, lambda some: _survives(pool, some))
                for image_id in killers:
                    log.warning("image_crashed", image_id=image_id)
                crashed |= killers
        else:
            _log_error(task, outcome)
            if dispatcher.give_up(task, cause_of(outcome)):
                return
    reason = "it keeps losing its actor, though no image does alone"
    dispatcher.tally.failed_shards[task.shard.number] = reason


def _survives(pool: Pool, images: pa.Table) -> bool:
    while True:
        call, outcome = pool.finish(pool.survive(pool.ready_slot(), images))
        if isinstance(outcome, Done) or not is_death(outcome):
            return True
        if pool.lost(call, outcome):
            return False


def _log_error(task: Task, error: Exception) -> None:
    log.warning(
        "shard_error",
        shard=task.shard.number,
        error=cause_of(error),
        attempt=task.errors + 1,
    )
