"""Connecting to Ray, and what the cluster offers."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import ray
from ray._private import ray_constants

from gazecore.errors import InputError, one_line


@dataclass(frozen=True)
class ClusterConfig:
    """Which cluster computes, and on how much of it."""

    actors: int | None = None
    """How many actors hold a model. By default one per GPU, or without GPUs one per machine."""
    gpus_per_actor: float | None = None
    """GPUs of each actor; 0.5 puts two on a GPU, 0 computes on CPUs. By default 1 where the cluster
    has GPUs."""
    address: str | None = None
    """A Ray cluster. By default the one that this runs in (`ray job submit`), else a local one."""

    def __post_init__(self) -> None:
        if self.actors is not None and self.actors < 1:
            raise InputError(f"--actors must be positive, not {self.actors}")
        if self.gpus_per_actor is not None and self.gpus_per_actor < 0:
            raise InputError(f"--gpus-per-actor must not be negative, not {self.gpus_per_actor:g}")


@dataclass(frozen=True)
class ActorLayout:
    """How many actors hold a model, and what each one occupies.

    Attributes:
        actors: how many.
        gpus: of each actor, 0 for CPU actors; a fraction puts several on one GPU.
        cpus: of each actor, reserved and used.
    """

    actors: int
    gpus: float
    cpus: int


@contextlib.contextmanager
def connected(address: str | None, spare_cpus: int = 0) -> Iterator[bool]:
    """Connect to a cluster, and let go of it at the end.

    Yields whether it is one that others started, which may grow.

    Args:
        address: of a cluster, as `ray.init` takes it; None: the cluster that this process runs in
            (`ray job submit`, or RAY_ADDRESS), else a new one on this machine alone.
        spare_cpus: cores that a new one has on paper beyond this machine's, for actors that need
            one to be placed and none to run.

    Raises:
        InputError: there is no cluster at that address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = address or os.environ.get("RAY_ADDRESS")
    try:
        if address in (None, "", "local"):
            # Without a dashboard; Ray's token authentication is on. Without this switch Ray takes
            # 127.0.0.1 for the machine's outer address, and listens on all of them.
            ray_constants.ENABLE_RAY_CLUSTER = False
            ray.init(
                address="local",
                _node_ip_address="127.0.0.1",
                include_dashboard=False,
                object_store_memory=512 * 2**20,
                num_cpus=len(os.sched_getaffinity(0)) + spare_cpus,
                log_to_driver=False,
                logging_level="ERROR",
            )
        else:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(f"cannot reach a Ray cluster at {address}: {one_line(error)}") from error
    try:
        yield address not in (None, "", "local")
    finally:
        ray.shutdown()


def plan_layout(config: ClusterConfig, can_grow: bool = False) -> ActorLayout:
    """Choose what was not asked for from what the cluster has now.

    By default one actor per GPU, or, where there is no GPU, one per machine with all its cores.

    Args:
        config: what was asked for.
        can_grow: whether nodes may join, so that what is not there may yet come.

    Raises:
        InputError: there is nothing to compute on.
    """
    actors, gpus_per_actor = config.actors, config.gpus_per_actor
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpu_nodes = [node for node in nodes if node.get("GPU")]
    gpus = gpus_per_actor if gpus_per_actor is not None else float(bool(gpu_nodes))
    if gpus and not gpu_nodes and not can_grow:
        raise InputError("--gpus-per-actor asks for GPUs, and this machine has none")
    if gpus:
        if not gpu_nodes and actors is None:
            raise InputError("the cluster has no GPU node yet: say how many with --actors")
        slots = sum(int(node["GPU"] / gpus) for node in gpu_nodes)
        # Cores are shared out among the actors that a node's GPUs take.
        share = min((node.get("CPU", 1) * gpus / node["GPU"] for node in gpu_nodes), default=1)
        return ActorLayout(actors or max(1, slots), gpus, max(1, int(share)))
    cpu_nodes = [node for node in nodes if node.get("CPU")]
    if not cpu_nodes and (actors is None or gpus_per_actor is None):
        raise InputError(
            "the cluster has no node to compute on yet: "
            "say what should come with --actors and --gpus-per-actor"
        )
    count = actors or max(1, len(cpu_nodes))
    per_node = -(-count // max(1, len(cpu_nodes)))
    smallest = min((node["CPU"] for node in cpu_nodes), default=1)
    return ActorLayout(count, 0, max(1, int(smallest / per_node)))
