"""The executor in this process: works off the shards of a directory without Ray.

An image that ends the process ends the run: only another process, as Ray's actors are, can find it.
"""

import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Protocol

from gazecore.errors import Interrupted, one_line
from gazecore.shards.blame import Dispatcher, Task
from gazecore.shards.directory import ShardedDirectory
from gazecore.shards.plan import Shard
from gazecore.shards.stage import StageConfig
from gazecore.shards.stop import Stop
from gazecore.shards.tally import Done, Tally
from gazecore.shards.worker import SHARDS_AT_ONCE, Worker

REPORT_EVERY = 0.5


class Executor(Protocol):
    """What works a plan off: `run` in this process, `cluster.driver.at(ADDRESS)` on Ray."""

    def __call__(
        self,
        planned: ShardedDirectory,
        config: StageConfig,
        report: Callable[[Tally], None] = ...,
        again: Iterable[Shard] = ...,
        stop: Stop | None = ...,
        /,
    ) -> Tally:
        """See `run`."""


log = logging.getLogger(__name__)


def run(
    planned: ShardedDirectory,
    config: StageConfig,
    report: Callable[[Tally], None] = lambda tally: None,
    again: Iterable[Shard] = (),
    stop: Stop | None = None,
) -> Tally:
    """Process every shard of the plan that is not done.

    Args:
        planned: the directory, with its plan.
        config: what is computed.
        report: is called about twice a second.
        again: parts of shards that are done, to be tried again after that.
        stop: where it is signalled, nothing new is begun, and what is begun is finished if that
            can be soon; `Tally.interrupted` says whether something was left.

    Raises:
        RunFailed: one shard after the other fails.
        KeysRefused: the storage of the images does not know the keys.
    """
    stop = stop or Stop()
    dispatcher = Dispatcher(planned, again)
    if dispatcher.is_empty():
        return dispatcher.tally
    worker = Worker(config)
    threads = ThreadPoolExecutor(SHARDS_AT_ONCE, "gazecore-shard")
    try:
        _drain(worker, threads, dispatcher, report, stop)
    except Interrupted:
        # What is in work is left to itself: the process is about to end.
        dispatcher.tally.interrupted = True
    except BaseException:
        threads.shutdown(wait=False, cancel_futures=True)
        raise
    else:
        threads.shutdown()
        worker.close()
    tally = dispatcher.tally
    tally.interrupted |= bool(stop.signal) and not dispatcher.is_empty()
    tally.unfinished = (0, 0)
    report(tally)
    return tally


def _drain(
    worker: Worker,
    threads: ThreadPoolExecutor,
    dispatcher: Dispatcher,
    report: Callable[[Tally], None],
    stop: Stop,
) -> None:
    calls: dict[Future[Done], Task] = {}
    reported = time.monotonic()
    while True:
        while not stop.signal and len(calls) < SHARDS_AT_ONCE and (task := dispatcher.next(1)):
            call = threads.submit(worker.process, task.shard, last_try=task.is_last_try)
            calls[call] = task
        if not calls:
            return
        stop.check(len(calls))
        for call in wait(calls, REPORT_EVERY, FIRST_COMPLETED).done:
            task = calls.pop(call)
            if error := call.exception():
                if not isinstance(error, Exception):
                    raise error
                words = f"{type(error).__name__}: {one_line(error)}"
                log.warning("shard_error shard=%d error=%s", task.shard.number, words)
                dispatcher.failed(task, error, 1)
            else:
                dispatcher.done(task, call.result())
        if time.monotonic() - reported >= REPORT_EVERY:
            reported = time.monotonic()
            counts = list(worker.in_work.values())
            dispatcher.tally.unfinished = (sum(c[0] for c in counts), sum(c[1] for c in counts))
            report(dispatcher.tally)
