"""What trains one member on a cluster: Ray Train's controller and its workers."""

import json
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.fs
import ray
import ray.train
import torch
import torch.distributed
from ray.train.torch import TorchConfig, TorchTrainer

from gazecore.errors import RunFailed, UserError
from gazecore.storage import Location
from gazecore.threads import side_by_side
from gazecore.training.examples import open_caches
from gazecore.training.members import Member, run
from gazecore.training.optimise import Epoch, Peers

_WORKER_LIVES = 10
"""How often a member's workers may die before it is given up."""


@dataclass(frozen=True)
class Task:
    """What the workers of a member are told.

    Attributes:
        caches: URIs of the feature caches.
        member: what to train.
        workers: how many train it together.
        cpus: cores of each.
        checkpoint_steps: steps between checkpoints.
        storage: URI of the directory for checkpoints.
        reports: handle of the actor that collects news.
    """

    caches: tuple[str, ...]
    member: Member
    workers: int
    cpus: int
    checkpoint_steps: int
    storage: str
    reports: Any


def fit(task: Task) -> dict[str, torch.Tensor]:
    """Train one member, from its last checkpoint if there is one; returns its last state."""
    # A report waits until Ray's controller looks again, by default two seconds.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    storage = Location(task.storage)
    _mend(storage / f"member-{task.member.number}")
    trainer = TorchTrainer(
        _work,
        train_loop_config={"task": task},
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=task.workers,
            resources_per_worker={"CPU": task.cpus},
        ),
        run_config=ray.train.RunConfig(
            name=f"member-{task.member.number}",
            storage_path=storage.path,
            storage_filesystem=pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(storage.fs)),
            failure_config=ray.train.FailureConfig(max_failures=_WORKER_LIVES),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
        ),
    )
    result = trainer.fit()
    state: dict[str, torch.Tensor] = _load(result.checkpoint)["readout"]
    return state


def _mend(folder: Location) -> None:
    """Begin a member anew where a driver died over the file that names its last checkpoint, which
    Ray Train does not write as a whole."""
    named = folder / "checkpoint_manager_snapshot.json"
    try:
        json.loads(named.read_bytes())
    except FileNotFoundError:
        pass
    except ValueError:
        named.remove()


def _work(config: Mapping[str, Any]) -> None:
    """What each worker of a member does; what another try cannot mend, the driver is told."""
    task: Task = config["task"]
    try:
        _train(task)
    except (RunFailed, UserError) as error:
        ray.get(task.reports.add.remote(task.member.number, RunFailed(str(error))))
        raise


def _train(task: Task) -> None:
    context = ray.train.get_context()
    peers = Peers(context.get_world_rank(), context.get_world_size(), _sum_over_ranks)
    data = open_caches(task.caches)
    member = task.member
    with side_by_side(task.cpus) as pool:
        trainer = member.trainer(pool, peers)
        checkpoint = ray.train.get_checkpoint()
        if checkpoint:
            trainer.restore(_load(checkpoint))
        told = _Told(task)
        for epoch in trainer.history if not peers.rank else []:
            told.news(epoch)  # it may have been lost with the driver that waited for it

        def save() -> None:
            if peers.rank:
                ray.train.report({})
                return
            with tempfile.TemporaryDirectory() as folder:
                torch.save(trainer.state(), Path(folder) / "state.pt")
                ray.train.report({}, checkpoint=ray.train.Checkpoint.from_directory(folder))

        def on_step(images: int) -> None:
            if not peers.rank:
                told.images(images)
            if trainer.steps % task.checkpoint_steps == 0:
                save()

        def on_epoch(epoch: Epoch) -> None:
            if not peers.rank:
                told.news(epoch)
            save()

        run(trainer, data, member.held_out, on_epoch, on_step)


class _Told:
    """What a worker tells the driver: every epoch, and once a second how far it is."""

    def __init__(self, task: Task) -> None:
        self._add, self._number = task.reports.add.remote, task.member.number
        self._images, self._since = 0, time.monotonic()

    def images(self, count: int) -> None:
        self._images += count
        if time.monotonic() - self._since >= 1:
            self._flush()

    def news(self, epoch: Epoch) -> None:
        self._flush()
        self._add(self._number, epoch)

    def _flush(self) -> None:
        if self._images:
            self._add(self._number, self._images)
        self._images, self._since = 0, time.monotonic()


def _sum_over_ranks(tensors: list[torch.Tensor]) -> None:
    flat = torch.cat([tensor.flatten().double() for tensor in tensors])
    torch.distributed.all_reduce(flat)
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


def _load(checkpoint: ray.train.Checkpoint) -> dict[str, Any]:
    with checkpoint.as_directory() as folder:
        state: dict[str, Any] = torch.load(Path(folder) / "state.pt", weights_only=True)
    return state
