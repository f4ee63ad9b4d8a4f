"""The actor that works on shards."""

import os
import threading
import time
from collections.abc import Callable

import pyarrow as pa
import ray
import structlog

from cluster.layout import actors_on_gpus
from cluster.logs import configure_logging
from cluster.telemetry import Telemetry
from gazecore.shards.plan import Shard
from gazecore.shards.stage import StageConfig
from gazecore.shards.tally import OK, Done
from gazecore.shards.worker import SHARDS_AT_ONCE, Worker

log = structlog.get_logger()


class ShardActor:
    """A worker with its telemetry and its log."""

    def __init__(self, config: StageConfig, cpus: int, gpus: float) -> None:
        threading.Thread(target=_end_with_the_node, args=[os.getppid()], daemon=True).start()
        configure_logging(config.where)
        self._worker = Worker(config, cores_beside(gpus) if gpus else cpus, gpus > 0)
        self._telemetry = Telemetry(config.where)

    def ready(self) -> str:
        """Return once the network is loaded: the id of the node that this runs on."""
        node: str = ray.get_runtime_context().get_node_id()
        return node

    def process(self, shard: Shard, crashed: frozenset[str], last_try: bool) -> Done:
        """See `Worker.process`."""
        started = time.monotonic()
        try:
            with structlog.contextvars.bound_contextvars(shard=shard.number):
                done = self._worker.process(shard, crashed, last_try, self._count)
                ok, seconds = done.images[OK], round(time.monotonic() - started, 3)
                log.info("shard_done", ok=ok, failed=done.images.total() - ok, seconds=seconds)
        finally:
            self._export()
        for error, count in done.images.items():
            if error != OK:
                self._telemetry.add("gazecore_failed_images", count, error=error)
        self._telemetry.add("gazecore_shards", 1)
        return done

    def survive(self, images: pa.Table) -> Done:
        """See `Worker.survive`."""
        self._worker.survive(images)
        return Done()

    def progress(self) -> dict[int, tuple[int, int]]:
        """Images (ok, failed) so far of each shard that is not committed yet."""
        self._export()
        return dict(self._worker.in_work)

    def _count(self, ok: bool) -> None:
        self._telemetry.add("gazecore_images", 1, status="ok" if ok else "failed")

    def _export(self) -> None:
        """Bring Prometheus' figures up to date."""
        self._telemetry.add_times(self._worker.clock.news("prometheus"))
        self._telemetry.set("gazecore_images_ready", max(0, self._worker.clock.ready))
        self._telemetry.set("gazecore_shards_in_work", len(self._worker.in_work))


def cores_beside(gpus: float) -> int:
    """An actor's share of its node's cores: as large as its share of the node's GPUs, of which it
    holds `gpus`. What Ray reserves for it is less where nodes may join that are not known yet."""
    here = ray.get_runtime_context().get_node_id()
    node = next(node["Resources"] for node in ray.nodes() if node["NodeID"] == here)
    return max(1, int(node.get("CPU", 0) // max(1, actors_on_gpus(node.get("GPU", 0), gpus))))


def _end_with_the_node(raylet: int) -> None:
    """End this process soon after Ray's on this node.

    Where a node was frozen and given up, Ray ends its own process when it wakes, but not (2.60) the
    actors: they would hold their GPUs, and work on shards that others do again, for good.
    """
    while os.getppid() == raylet:
        time.sleep(1)
    os._exit(1)


def actor_starter(
    config: StageConfig, gpus: float, cpus: int
) -> Callable[[], "ray.actor.ActorHandle"]:
    """What starts an actor where there is room. Ray does not restart it: its owner replaces it."""
    # Put once: the object store brings it to each node once, for all actors there.
    shared = ray.put(config)
    remote = ray.remote(
        num_gpus=gpus,
        num_cpus=cpus,
        scheduling_strategy="SPREAD",
        max_restarts=0,
        max_task_retries=0,
        max_concurrency=SHARDS_AT_ONCE + 1,  # and one thread that answers `progress`
    )(ShardActor)
    return lambda: remote.remote(shared, cpus, gpus)
