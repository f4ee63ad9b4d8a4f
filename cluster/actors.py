"""The actor that works on shards. What it does there is its job's: see `cluster.work`."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import ray

SHARDS_AT_ONCE = 2
"""Shards in work in one actor: while one is computed, the other is read or written."""

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Work:
    """What an actor does.

    Attributes:
        process: `Pipeline.process`, images to outcomes and results.
        commit: publishes a shard's outcomes and results.
    """

    process: Callable[..., tuple[Rows, Rows]]
    commit: Callable[[int, Rows, Rows], None]


class Job(Protocol):
    """What an actor builds its work from. It reaches each node once, through Ray's object store."""

    def start(self) -> Work:
        """Load the network."""
        ...


class ShardActor:
    """Loads the network once, then processes shards and commits them."""

    def __init__(self, job: Job) -> None:
        threading.Thread(target=_end_with_the_node, args=[os.getppid()], daemon=True).start()
        self._work = job.start()
        self._unfinished: dict[int, list[int]] = {}

    def ready(self) -> str:
        """Return once the network is loaded: the id of the node that this runs on."""
        node: str = ray.get_runtime_context().get_node_id()
        return node

    def process(
        self, shard: int, images: pa.Table, crashed: frozenset[str], last_try: bool
    ) -> dict[str | None, int]:
        """Process and commit a shard; returns how many images ended with each error (None: ok)."""
        counts = self._unfinished[shard] = [0, 0]

        def on_image(ok: bool) -> None:
            counts[0 if ok else 1] += 1

        try:
            outcomes, results = self._work.process(
                images, crashed=crashed, last_try=last_try, on_image=on_image
            )
            self._work.commit(shard, outcomes, results)
        finally:
            del self._unfinished[shard]
        errors: dict[str | None, int] = {}
        for row in outcomes:
            errors[row.get("error")] = errors.get(row.get("error"), 0) + 1
        return errors

    def survive(self, images: pa.Table) -> dict[str | None, int]:
        """Process images and forget the result: does this process live through it?"""
        self._work.process(images)
        return {}

    def progress(self) -> dict[int, tuple[int, int]]:
        """Images (ok, failed) so far of each shard that is not committed yet."""
        return {shard: (ok, failed) for shard, (ok, failed) in list(self._unfinished.items())}


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
