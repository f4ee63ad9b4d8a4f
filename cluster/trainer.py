"""Training on a cluster: members side by side, each by Ray Train on any number of workers.

A member's checkpoints hold all that its next step depends on, so workers that replace one that died
go on from the last one and end where undisturbed ones end. A member that is done is kept, and not
trained again by the same command.

    STORAGE/training.json             what is trained
    STORAGE/member-3/                 Ray Train's checkpoints of a member
    STORAGE/member-3.safetensors      a member that is done
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import ray
import safetensors.torch
import torch

from cluster.session import connected
from cluster.training_worker import Job, fit
from gazecore.errors import InputError, RunFailed, one_line
from gazecore.model.readout import Readout
from gazecore.results.directory import claim
from gazecore.storage import Location
from gazecore.training.examples import TrainingSet, TrainingSources
from gazecore.training.loop import Member, Report, TrainMembers, train_here
from gazecore.training.trainer import Epoch


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
    resources: dict[str, float] = {"CPU": config.cpus_per_worker}
    if gpus := _gpus(sources):
        room = max(1, min(room, int(gpus) // config.workers))
        resources["GPU"] = 1
    if needed > cores:
        raise InputError(
            f"{config.workers} workers of {config.cpus_per_worker} cores do not fit the cluster"
        )
    known = sources.known(data)
    reports = ray.remote(num_cpus=0)(_Reports).remote()
    train = ray.remote(num_cpus=0, max_retries=0)(fit)
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
            job = Job(
                known,
                member,
                config.workers,
                resources,
                config.checkpoint_steps,
                storage.uri,
                reports,
            )
            flying[train.remote(job)] = member
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


def _gpus(sources: TrainingSources) -> float:
    """The cluster's GPUs, if training has a use for them: where the backbone is in the loop."""
    on_the_fly = sources.sources[0].on_the_fly
    return float(ray.cluster_resources().get("GPU", 0)) if on_the_fly else 0.0


class _Reports:
    """Collects the news of all members until the driver asks."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Epoch | int]] = []

    def add(self, number: int, news: Epoch | int) -> None:
        self._waiting.append((number, news))

    def take(self) -> list[tuple[int, Epoch | int]]:
        taken, self._waiting = self._waiting, []
        return taken


def _readout(member: Member, state: dict[str, torch.Tensor]) -> Readout:
    readout = Readout(member.start.config)
    readout.load_state_dict(state)
    return readout.eval().requires_grad_(False)
