from collections.abc import Iterator

import pytest
import ray
from ray._private.authentication.authentication_token_setup import (
    enable_token_auth_by_default,
    ensure_token_if_auth_enabled,
)
from ray.cluster_utils import Cluster

from cluster.connection import nodes_in_use

# Not 127.0.0.1: of that, Ray takes the machine's outward address when a driver connects.
ADDRESS = "127.0.0.2"
HEALTH = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 5,
}


class Nodes:
    """A cluster of several raylets on this machine; those that a test adds end with it."""

    def __init__(self) -> None:
        # Each node's actors have 2 cores on paper at least; they sleep.
        self.cluster = Cluster(initialize_head=True, head_node_args={
            "node_ip_address": ADDRESS, "num_cpus": 0, "include_dashboard": False,
            "object_store_memory": 80 * 2**20, "_system_config": HEALTH,
        })  # fmt: skip
        self._added: list[ray._private.node.Node] = []

    def add(self, gpus: int = 0, cpus: int = 8) -> ray._private.node.Node:
        node = self.cluster.add_node(
            node_ip_address=ADDRESS, num_cpus=cpus, num_gpus=gpus,
            object_store_memory=80 * 2**20,
        )  # fmt: skip
        self._added.append(node)
        return node

    def kill(self, node: ray._private.node.Node) -> None:
        """SIGKILL a node's raylet, as when its machine goes."""
        self._added.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)

    def clear(self) -> None:
        for node in list(self._added):
            self.kill(node)


@pytest.fixture(scope="package")
def head() -> Iterator[Nodes]:
    """A head without cores, and this process connected to it. Token authentication is on."""
    enable_token_auth_by_default()  # as `ray.init` does for a cluster of its own
    ensure_token_if_auth_enabled()
    nodes = Nodes()
    try:
        ray.init(address=nodes.cluster.address, log_to_driver=False, logging_level="ERROR")
        yield nodes
    finally:
        ray.shutdown()
        nodes.cluster.shutdown()


@pytest.fixture
def nodes(head: Nodes) -> Iterator[Nodes]:
    """The cluster, with no node that takes work yet."""
    yield head
    head.clear()
    while [node for node in nodes_in_use() if node.cpus]:
        pass
