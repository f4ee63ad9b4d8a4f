"""Training on a cluster: members side by side, each by Ray Train on any number of workers.

A member's checkpoints hold all that its next step depends on, so workers that replace one that died
go on from the last one and end where undisturbed ones end. A member that is done is kept, and not
trained again by the same command.

    STORAGE/training.json             what is trained
    STORAGE/member-3/                 Ray Train's checkpoints of a member
    STORAGE/member-3.safetensors      a member that is done
"""

import contextlib
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow.fs
import ray
import ray.train
import safetensors.torch
import torch
import torch.distributed
from ray.train.torch import TorchConfig, TorchTrainer

from cluster.session import connected
from gazecore.errors import InputError, RunFailed, one_line
from gazecore.model.readout import Readout
from gazecore.results.directory import claim
from gazecore.storage import Location
from gazecore.training.examples import TrainingSet, TrainingSources
from gazecore.training.loop import Member, Report, TrainMembers, run, train_here
from gazecore.training.trainer import Epoch, Peers, Trainer, side_by_side

_WORKER_LIVES = 10
"""How often a member's workers may die before it is given up."""


@dataclass(frozen=True)
class WorkersConfig:
    """How training is spread."""

    workers: int = 1
    """Processes that train one member together. 0 trains in this process, without checkpoints."""
    cpus_per_worker: int = 1
    """Cores of each; as many members train side by side as fit."""
    checkpoint_steps: int = 500
    """Steps between checkpoints, besides one after each epoch; a worker's death costs at most so
    many."""
    address: str | None = None
    """A Ray cluster. By default the one that this runs in (`ray job submit`), else a local one."""

    def __post_init__(self) -> None:
        for name in ("cpus_per_worker", "checkpoint_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be positive, not {getattr(self, name)}")
        if self.workers < 0:
            raise InputError(f"workers must not be negative, not {self.workers}")


class RayTraining:
    """Trains members on Ray, which is connected to once the first ones are there: what is wrong
    with the data is said before. Use as a context manager."""

    def __init__(self, config: WorkersConfig) -> None:
        self._config = config
        self._stack = contextlib.ExitStack()
        self._is_connected = False

    def __enter__(self) -> "RayTraining":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def members(
        self, sources: TrainingSources, storage: Location, identity: Mapping[str, Any]
    ) -> TrainMembers:
        """What trains members; see `train_members`. Without workers, this process does."""
        if not self._config.workers:
            return train_here

        def train(data: TrainingSet, members: list[Member], report: Report) -> list[Readout]:
            if not self._is_connected:
                self._stack.enter_context(connected(self._config.address, spare_cpus=1))
                self._is_connected = True
            return train_members(
                data,
                members,
                report,
                sources=sources,
                storage=storage,
                identity=identity,
                config=self._config,
            )

        return train


@dataclass(frozen=True)
class _Job:
    """What the workers of a member are told."""

    sources: TrainingSources
    member: Member
    config: WorkersConfig
    storage: str
    reports: Any

    @property
    def resources(self) -> dict[str, float]:
        """Of each worker. A backbone in the loop wants a GPU, if there are any."""
        wanted: dict[str, float] = {"CPU": self.config.cpus_per_worker}
        if self.sources.sources[0].on_the_fly and ray.cluster_resources().get("GPU"):
            wanted["GPU"] = 1
        return wanted


def train_members(
    data: TrainingSet,
    members: list[Member],
    report: Report,
    *,
    sources: TrainingSources,
    storage: Location,
    identity: Mapping[str, Any],
    config: WorkersConfig,
) -> list[Readout]:
    """Train members on the cluster that this process is connected to.

    Args:
        data: opened from `sources`.
        members: what to train.
        report: is called with each member's news.
        sources: what the workers open; every node can read it.
        storage: directory for checkpoints, which every node can write.
        identity: what decides the result; a directory with another one is refused.
        config: how it is spread.

    Returns:
        The readouts of the members' best epochs.

    Raises:
        RunMismatch: `storage` belongs to another training.
        RunFailed: a member cannot be trained.
    """
    claim(storage / "training.json", identity, what=storage.uri)
    needed = config.workers * config.cpus_per_worker
    cores = int(ray.cluster_resources().get("CPU", 1))
    # Ray Train's own actors want a core to be placed: without one they wait a minute.
    room = max(1, (cores - 1) // needed)
    if needed > cores:
        raise InputError(
            f"{config.workers} workers of {config.cpus_per_worker} cores do not fit the cluster"
        )
    known = sources.known(data)
    reports = ray.remote(num_cpus=0)(_Reports).remote()
    fit = ray.remote(num_cpus=0, max_retries=0)(_fit)
    found: dict[int, Readout] = {}
    waiting: list[Member] = []
    flying: dict[ray.ObjectRef, Member] = {}
    for member in members:
        done = storage / f"member-{member.number}.safetensors"
        if done.exists():
            found[member.number] = _readout(member, safetensors.torch.load(done.read_bytes()))
        else:
            waiting.append(member)
    while waiting or flying:
        while waiting and len(flying) < room:
            member = waiting.pop(0)
            job = _Job(known, member, config, storage.uri, reports)
            flying[fit.remote(job)] = member
        ended, _ = ray.wait(list(flying), timeout=1.0)
        for number, news in ray.get(reports.take.remote()):
            report(number, news)
        for ref in ended:
            member = flying.pop(ref)
            try:
                state = ray.get(ref)
            except ray.exceptions.RayError as error:
                raise RunFailed(
                    f"member {member.number} failed: {one_line(error)}; the same command continues"
                ) from error
            found[member.number] = _readout(member, state)
            (storage / f"member-{member.number}.safetensors").publish(safetensors.torch.save(state))
    for number, news in ray.get(reports.take.remote()):
        report(number, news)
    return [found[member.number] for member in members]


class _Reports:
    """Collects the news of all members until the driver asks."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Epoch | int]] = []

    def add(self, number: int, news: Epoch | int) -> None:
        self._waiting.append((number, news))

    def take(self) -> list[tuple[int, Epoch | int]]:
        taken, self._waiting = self._waiting, []
        return taken


class _Told:
    """What a worker tells the driver: every epoch, and once a second how far it is."""

    def __init__(self, job: _Job) -> None:
        self._add, self._number = job.reports.add.remote, job.member.number
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


def _fit(job: _Job) -> dict[str, torch.Tensor]:
    """Train one member, from its last checkpoint if there is one; returns its best state."""
    # A report waits until Ray's controller looks again, by default two seconds.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    storage = Location(job.storage)
    trainer = TorchTrainer(
        _work,
        train_loop_config={"job": job},
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=job.config.workers,
            resources_per_worker=job.resources,
            use_gpu="GPU" in job.resources,
        ),
        run_config=ray.train.RunConfig(
            name=f"member-{job.member.number}",
            storage_path=storage.path,
            storage_filesystem=pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(storage.fs)),
            failure_config=ray.train.FailureConfig(max_failures=_WORKER_LIVES),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
        ),
    )
    result = trainer.fit()
    state: dict[str, torch.Tensor] = _load(result.checkpoint)["best_readout"]
    return state


def _work(config: Mapping[str, Any]) -> None:
    """What each worker of a member does."""
    job: _Job = config["job"]
    context = ray.train.get_context()
    peers = Peers(context.get_world_rank(), context.get_world_size(), _sum_over_ranks)
    data = job.sources.open()
    member = job.member
    with side_by_side() as pool:
        trainer = Trainer(
            member.start,
            member.train,
            member.centerbias,
            member.config,
            pool,
            peers,
            data.flipped,
        )
        checkpoint = ray.train.get_checkpoint()
        if checkpoint:
            trainer.restore(_load(checkpoint))
        told = _Told(job)
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
            if trainer.steps % job.config.checkpoint_steps == 0:
                save()

        def on_epoch(epoch: Epoch) -> None:
            if not peers.rank:
                told.news(epoch)
            save()

        run(trainer, data, member.held_out, on_epoch, on_step)


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


def _readout(member: Member, state: dict[str, torch.Tensor]) -> Readout:
    readout = Readout(member.start.config)
    readout.load_state_dict(state)
    return readout.eval().requires_grad_(False)
