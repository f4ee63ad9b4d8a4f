"""Training on clusters of several nodes: one that is lost changes nothing."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import ray
import torch

from cluster.layout import WorkersConfig
from cluster.training_driver import train_members
from gazecore.model.tiny import TinyBackbone
from gazecore.storage import Location
from gazecore.training.examples import open_caches
from gazecore.training.members import train_here
from gazecore.training.optimise import Epoch
from tests.cluster.test_trainer import CONFIG, densities, members
from tests.features import make_cache
from tests.gazecore.test_training import make_corpus
from tests.nodes.conftest import Nodes
from tests.processes import training_workers

pytestmark = pytest.mark.filterwarnings(
    # Ray leaves sockets of nodes that it started to the garbage collector.
    "ignore:.*socket.socket:pytest.PytestUnraisableExceptionWarning"
)


def workers_on(node: ray._private.node.Node) -> list[int]:
    return training_workers(node.all_processes["raylet"][0].process.pid)


def test_a_training_waits_for_nodes_and_outlives_the_one_that_it_is_on(
    nodes: Nodes, tmp_path: Path
) -> None:
    make_cache(make_corpus(tmp_path), TinyBackbone(), str(tmp_path / "cache"))
    caches = [str(tmp_path / "cache")]
    data = open_caches(caches)
    config = replace(CONFIG, epochs=6)
    (alone,) = train_here(data, members(data, 1, config), lambda number, news: None)
    second_epoch = threading.Event()

    def report(number: int, news: Epoch | int) -> None:
        if isinstance(news, Epoch) and news.number == 2:
            second_epoch.set()

    with ThreadPoolExecutor(1) as driver:
        training = driver.submit(
            train_members, data, members(data, 1, config), report, caches=caches,
            storage=Location(str(tmp_path / "training")),
            config=WorkersConfig(workers=2, checkpoint_steps=3), can_grow=True,
        )  # fmt: skip
        first = nodes.add(cpus=2)
        assert second_epoch.wait(90), training.exception(0)
        assert len(workers_on(first)) == 2
        nodes.add(cpus=2)
        nodes.kill(first)
        (found,) = training.result(120)
    torch.testing.assert_close(densities(found, data), densities(alone, data), rtol=0, atol=1e-3)
