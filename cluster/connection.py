"""Connecting to Ray, and what the cluster offers."""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator

import ray
from ray._private import ray_constants
from ray._private.services import find_bootstrap_address
from ray._private.state import state as ray_state  # draining nodes are told nowhere else

from cluster.layout import ActorLayout, ClusterConfig, Node, actors_on_gpus
from gazecore.cores import cores
from gazecore.errors import InputError, one_line

ANSWER_SECONDS = 10.0
"""How long a cluster's head may take to answer."""


def nodes_in_use() -> list[Node]:
    """The machines of the cluster that take work: alive, and not about to be taken away."""
    draining = draining_nodes()
    return [
        Node(node["NodeID"], node["Resources"].get("CPU", 0), node["Resources"].get("GPU", 0))
        for node in ray.nodes()
        if node["Alive"] and node["NodeID"] not in draining
    ]


def draining_nodes() -> set[str]:
    """Ids of the nodes that were told to end, such as spot machines that were given notice."""
    return set(ray_state.get_draining_nodes())


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
        InputError: there is no cluster at that address, or none can be started here.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # SIGTERM is the command's: Ray would print stacks, and end the process without a word.
    ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER = True
    on_sigterm = signal.getsignal(signal.SIGTERM)
    address = address or os.environ.get("RAY_ADDRESS")
    is_local = address in (None, "", "local")
    try:
        if is_local:
            # Without a dashboard; Ray's token authentication is on. Without this switch Ray takes
            # 127.0.0.1 for the machine's outer address, and listens on all of them.
            ray_constants.ENABLE_RAY_CLUSTER = False
            ray.init(
                address="local",
                _node_ip_address="127.0.0.1",
                include_dashboard=False,
                object_store_memory=512 * 2**20,
                num_cpus=cores() + spare_cpus,
                log_to_driver=False,
                logging_level="ERROR",
            )
        else:
            require_cluster(str(address))
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, ValueError, RuntimeError) as error:
        if is_local:
            raise _cannot_start(error) from error
        raise InputError(f"cannot reach a Ray cluster at {address}: {one_line(error)}") from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)
    try:
        yield not is_local
    finally:
        ray.shutdown()


def require_cluster(address: str) -> None:
    """Look whether the head of a cluster answers at an address; Ray itself would try for minutes.

    Raises:
        InputError: it does not, or the address is of another kind.
    """
    if address.startswith(("http://", "https://")):
        raise InputError(
            f"{address} is a dashboard, to which `ray job submit` sends jobs: for a command give "
            "the head's HOST:6379 (--address or RAY_ADDRESS), or unset RAY_ADDRESS"
        )
    if address.startswith("ray://"):
        raise InputError(
            f"{address} is for Ray's client, which is not used here: give the head's HOST:6379, or "
            "send the command to the cluster by `ray job submit`"
        )
    if address == "auto":
        address = find_bootstrap_address(None) or ""
        if not address:
            raise InputError(
                "no Ray runs on this machine (address `auto`): start one, or give HOST:6379"
            )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise InputError(
            f"a Ray cluster's address is HOST:PORT, such as 10.0.0.1:6379, not {address}"
        )
    advice = "start it, or give another --address (or RAY_ADDRESS)"
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS) as head:
            if not os.environ.get("RAY_USE_TLS", "0").strip("0"):
                # What begins every gRPC connection (RFC 9113, 3.4): both sides send their settings.
                head.sendall(
                    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
                )
                if head.recv(9, socket.MSG_WAITALL)[3:4] != b"\x04":
                    raise InputError(f"what answers at {address} is no Ray cluster: {advice}")
    except OSError as error:
        raise InputError(
            f"no Ray cluster answers at {address} ({one_line(error)}): {advice}"
        ) from error


def _cannot_start(error: Exception) -> InputError:
    """Why no Ray can be started on this machine, and what helps."""
    words = one_line(error)
    place = os.path.expanduser("~/.ray")
    if place in words:
        return InputError(
            f"Ray cannot keep its token in {place} ({words}): set RAY_AUTH_TOKEN to 64 hexadecimal "
            "digits, or HOME to a folder that can be written"
        )
    return InputError(
        f"Ray cannot start on this machine: {words}; set RAY_TMPDIR to a folder of yours with a "
        "short path and room, such as /var/tmp/ray-$USER"
    )


def plan_layout(config: ClusterConfig, can_grow: bool = False) -> ActorLayout:
    """Choose what was not asked for from what the cluster has now.

    By default one actor per GPU, or, where there is no GPU, one per machine with all its cores.

    Args:
        config: what was asked for.
        can_grow: whether nodes may join, so that what is not there may yet come.

    Raises:
        InputError: there is nothing to compute on.
    """
    (least, most), gpus_per_actor = config.bounds(), config.gpus_per_actor
    nodes = nodes_in_use()
    gpu_nodes = [node for node in nodes if node.gpus]
    gpus = gpus_per_actor if gpus_per_actor is not None else float(bool(gpu_nodes))
    if gpus and not gpu_nodes and not can_grow:
        raise InputError("--gpus-per-actor asks for GPUs, and this machine has none")
    if gpus:
        # Cores are shared out among the actors that a node's GPUs take. Of machines that join later
        # it is not known how many cores they have, so that an actor must do with one.
        shares = [int(node.cpus // max(1, actors_on_gpus(node.gpus, gpus))) for node in gpu_nodes]
        return ActorLayout(most, gpus, max(1, min(shares)) if not can_grow else 1, least)
    cpu_nodes = [node for node in nodes if node.cpus]
    if not cpu_nodes and (most is None or gpus_per_actor is None):
        raise InputError(
            "the cluster has no node to compute on yet: say what will come with --gpus-per-actor "
            "(and, for nodes without GPUs, --actors)"
        )
    per_node = -(-most // max(1, len(cpu_nodes))) if most else 1
    smallest = min((node.cpus for node in cpu_nodes), default=1)
    return ActorLayout(most, 0, max(1, int(smallest / per_node)), least)
