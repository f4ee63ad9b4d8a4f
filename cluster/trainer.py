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
from types import TracebackType
from typing import Any

import ray
import safetensors.torch
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.layout import WorkersConfig
from cluster.session import connected, nodes_in_use
from cluster.training_worker import Job, fit
from gazecore.errors import InputError, RunFailed, one_line
from gazecore.model.readout import Readout
from gazecore.results.directory import claim
from gazecore.storage import Location
from gazecore.training.examples import TrainingSet, TrainingSources
from gazecore.training.loop import Member, Report, TrainMembers, train_here
from gazecore.training.trainer import Epoch
from gazecore.wording import counted


class RayTraining:
    """Trains members on Ray, which is connected to once the first ones are there: what is wrong
    with the data is said before. Use as a context manager."""

    def __init__(self, config: WorkersConfig) -> None:
        self._config = config
        self._stack = contextlib.ExitStack()
        self._can_grow: bool | None = None

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
        """What trains members; see `train_members`. Without workers, this process does.

        Args:
            sources, storage: as `train_members` takes them.
            identity: what decides the result.

        Raises:
            RunMismatch: `storage` belongs to another training.
        """
        claim(storage / "training.json", identity, what=storage.uri)
        if not self._config.workers:
            return train_here

        def train(data: TrainingSet, members: list[Member], report: Report) -> list[Readout]:
            if self._can_grow is None:
                cluster = connected(self._config.address, spare_cpus=1)
                self._can_grow = self._stack.enter_context(cluster)
            return train_members(
                data,
                members,
                report,
                sources=sources,
                storage=storage,
                config=self._config,
                can_grow=self._can_grow,
            )

        return train


def train_members(
    data: TrainingSet,
    members: list[Member],
    report: Report,
    *,
    sources: TrainingSources,
    storage: Location,
    config: WorkersConfig,
    can_grow: bool = False,
) -> list[Readout]:
    """Train members on the cluster that this process is connected to.

    Args:
        data: opened from `sources`.
        members: what to train.
        report: is called with each member's news.
        sources: what the workers open; every node can read it.
        storage: directory for checkpoints, which every node can write.
        config: how it is spread.
        can_grow: nodes may join, so that what has no room yet is waited for.

    Returns:
        The readouts of the members' best epochs.

    Raises:
        InputError: the cluster has no room for a member, and does not grow.
        RunFailed: a member cannot be trained.
    """
    resources: dict[str, float] = {"CPU": config.cpus_per_worker}
    if sources.sources[0].on_the_fly and ray.cluster_resources().get("GPU"):
        resources["GPU"] = 1  # training has a use for it where the backbone is in the loop
    if not can_grow and _slots(resources) < config.workers:
        raise InputError(
            f"the cluster has no room for {counted(config.workers, 'workers')} of "
            f"{counted(config.cpus_per_worker, 'cores')} each"
        )
    known = sources.known(data)
    # On this node, with Ray Train's controllers: of the others any may be lost.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    reports = ray.remote(num_cpus=0, scheduling_strategy=here)(_Reports).remote()
    train = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=here)(fit)
    found: dict[int, Readout] = {}
    waiting: list[Member] = []
    flying: dict[ray.ObjectRef, Member] = {}
    for member in members:
        done = storage / f"member-{member.number}.safetensors"
        if done.exists():
            found[member.number] = _readout(member, safetensors.torch.load(done.read_bytes()))
        else:
            waiting.append(member)
    try:
        while waiting or flying:
            room = _room(config, resources) if waiting else 0
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
            _pass_on(reports, report)
            for ref in ended:
                member = flying.pop(ref)
                try:
                    state = ray.get(ref)
                except ray.exceptions.RayError as error:
                    _pass_on(reports, report)
                    raise RunFailed(
                        f"member {member.number} failed: {_last_line(error)}; "
                        "the same command continues"
                    ) from error
                found[member.number] = _readout(member, state)
                (storage / f"member-{member.number}.safetensors").publish(
                    safetensors.torch.save(state)
                )
    finally:
        for ref in flying:
            ray.cancel(ref, force=True)
    _pass_on(reports, report)
    return [found[member.number] for member in members]


def _slots(resources: Mapping[str, float]) -> int:
    """How many workers that take so much the cluster's nodes hold."""
    return sum(
        int(min({"CPU": node.cpus, "GPU": node.gpus}[name] // of for name, of in resources.items()))
        for node in nodes_in_use()
    )


def _room(config: WorkersConfig, resources: Mapping[str, float]) -> int:
    """How many members are trained side by side; one at least, which may wait for nodes."""
    cores = sum(int(node.cpus) for node in nodes_in_use())
    # Ray Train's own actors want a core to be placed: without one they wait a minute.
    most = (cores - 1) // (config.workers * config.cpus_per_worker)
    return max(1, min(most, _slots(resources) // config.workers))


class _Reports:
    """Collects the news of all members until the driver asks."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Epoch | int | RunFailed]] = []

    def add(self, number: int, news: Epoch | int | RunFailed) -> None:
        self._waiting.append((number, news))

    def take(self) -> list[tuple[int, Epoch | int | RunFailed]]:
        taken, self._waiting = self._waiting, []
        return taken


def _pass_on(reports: ray.actor.ActorHandle, report: Report) -> None:
    """Report what came in since the last time; raises RunFailed if a member's workers did."""
    for number, news in ray.get(reports.take.remote()):
        if isinstance(news, RunFailed):
            raise RunFailed(f"member {number}: {news}")
        report(number, news)


def _last_line(error: BaseException) -> str:
    """Of what went wrong in a worker: a traceback's last line says it."""
    cause = getattr(error, "cause", None) or error
    worker = next(iter(getattr(cause, "worker_failures", {}).values()), cause)
    lines = str(worker).strip().splitlines() or [type(worker).__name__]
    return one_line(RuntimeError(lines[-1]))


def _readout(member: Member, state: dict[str, torch.Tensor]) -> Readout:
    readout = Readout(member.start.config)
    readout.load_state_dict(state)
    return readout.eval().requires_grad_(False)
