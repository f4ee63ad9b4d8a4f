"""The actor that works on shards. What it does there is its job's: see `cluster.work`."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa
import ray
import structlog

from cluster.logs import configure_logging
from cluster.metrics import Figures
from gazecore.scoring.stages import StageClock, StageTimes

SHARDS_AT_ONCE = 2
"""Shards in work in one actor: while one is computed, the other is read or written."""

Rows = list[dict[str, Any]]

log = structlog.get_logger()


@dataclass(frozen=True)
class Work:
    """What an actor does.

    Attributes:
        process: `Pipeline.process`, images to outcomes and results.
        commit: publishes a shard's outcomes and results.
        clock: where the time of `process` goes.
        mend: publishes those of images of a shard that is done, if such are ever tried again.
    """

    process: Callable[..., tuple[Rows, Rows]]
    commit: Callable[[int, Rows, Rows], None]
    clock: StageClock
    mend: Callable[[int, Rows, Rows], None] | None = None


@dataclass(frozen=True)
class Done:
    """What an actor says of a call that ended well.

    Attributes:
        images: how many ended with each error (None: ok).
        times: of this actor, since it said so last.
    """

    images: dict[str | None, int] = field(default_factory=dict)
    times: StageTimes = field(default_factory=StageTimes)


class Job(Protocol):
    """What an actor builds its work from. It reaches each node once, through Ray's object store."""

    @property
    def where(self) -> str:
        """URI of the run directory or feature cache."""
        ...

    def start(self) -> Work:
        """Load the network."""
        ...


class ShardActor:
    """Loads the network once, then processes shards and commits them."""

    def __init__(self, job: Job) -> None:
        threading.Thread(target=_end_with_the_node, args=[os.getppid()], daemon=True).start()
        configure_logging(job.where)
        self._work = job.start()
        self._work.clock.set_lanes(write=SHARDS_AT_ONCE)
        self._unfinished: dict[int, list[int]] = {}
        self._figures = Figures(job.where)
        self._telling = threading.Lock()
        self._told = {"driver": StageTimes(), "prometheus": StageTimes()}

    def ready(self) -> str:
        """Return once the network is loaded: the id of the node that this runs on."""
        node: str = ray.get_runtime_context().get_node_id()
        return node

    def process(
        self,
        shard: int,
        images: pa.Table,
        crashed: frozenset[str],
        last_try: bool,
        is_part: bool,
    ) -> Done:
        """Process and commit a shard, or those images of one that is done which failed."""
        counts = self._unfinished[shard] = [0, 0]

        def on_image(ok: bool) -> None:
            counts[0 if ok else 1] += 1
            self._figures.add("gazecore_images", 1, status="ok" if ok else "failed")

        try:
            with structlog.contextvars.bound_contextvars(shard=shard):
                outcomes = self._process(shard, images, crashed, last_try, is_part, on_image)
        finally:
            del self._unfinished[shard]
            self._export()
        errors: dict[str | None, int] = {}
        for row in outcomes:
            errors[row.get("error")] = errors.get(row.get("error"), 0) + 1
        for error, count in errors.items():
            if error is not None:
                self._figures.add("gazecore_failed_images", count, error=error)
        self._figures.add("gazecore_shards", 1)
        return Done(errors, self._since_told("driver"))

    def _process(
        self,
        shard: int,
        images: pa.Table,
        crashed: frozenset[str],
        last_try: bool,
        is_part: bool,
        on_image: Callable[[bool], None],
    ) -> Rows:
        started, clock = time.monotonic(), self._work.clock
        commit = self._work.mend if is_part else self._work.commit
        assert commit is not None, "only jobs that can mend are given parts"
        with clock.shard():
            outcomes, results = self._work.process(
                images, crashed=crashed, last_try=last_try, on_image=on_image
            )
            with clock.stage("write"):
                commit(shard, outcomes, results)
        seconds = round(time.monotonic() - started, 3)
        failed = len(outcomes) - len(results)
        log.info("shard_done", ok=len(results), failed=failed, seconds=seconds)
        return outcomes

    def survive(self, images: pa.Table) -> Done:
        """Process images and forget the result: does this process live through it?"""
        self._work.process(images)
        return Done()

    def progress(self) -> dict[int, tuple[int, int]]:
        """Images (ok, failed) so far of each shard that is not committed yet."""
        self._export()
        return {shard: (ok, failed) for shard, (ok, failed) in list(self._unfinished.items())}

    def _export(self) -> None:
        """Bring Prometheus' figures up to date."""
        self._figures.add_times(self._since_told("prometheus"))
        self._figures.set("gazecore_images_ready", max(0, self._work.clock.ready))
        self._figures.set("gazecore_shards_in_work", len(self._unfinished))

    def _since_told(self, whom: str) -> StageTimes:
        """The times since this was asked last for the same listener."""
        with self._telling:
            now, before = self._work.clock.times(), self._told[whom]
            self._told[whom] = now
        return now - before


def _end_with_the_node(raylet: int) -> None:
    """End this process soon after Ray's on this node.

    Where a node was frozen and given up, Ray ends its own process when it wakes, but not (2.60) the
    actors: they would hold their GPUs, and work on shards that others do again, for good.
    """
    while os.getppid() == raylet:
        time.sleep(1)
    os._exit(1)


def start_actor(job: ray.ObjectRef, gpus: float, cpus: int) -> "ray.actor.ActorHandle":
    """Start an actor where there is room. It is not restarted by Ray: its owner replaces it."""
    remote = ray.remote(
        num_gpus=gpus,
        num_cpus=cpus,
        scheduling_strategy="SPREAD",
        max_restarts=0,
        max_task_retries=0,
        max_concurrency=SHARDS_AT_ONCE + 1,  # and one thread that answers `progress`
    )
    return remote(ShardActor).remote(job)
