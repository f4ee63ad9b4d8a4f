"""Training on a cluster: members side by side, each by Ray Train on any number of workers.

A member's checkpoints hold all that its next step depends on, so workers that replace one that died
go on from the last one and end where undisturbed ones end. A member that is done is kept, and not
trained again by the same command.

    STORAGE/training.json             what is trained
    STORAGE/member-3/                 Ray Train's checkpoints of a member
    STORAGE/member-3.safetensors      a member that is done
"""

import contextlib
from collections.abc import Sequence
from types import TracebackType

import ray
import safetensors.torch
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.connection import connected, nodes_in_use
from cluster.layout import WorkersConfig
from cluster.training_worker import Task, fit
from gazecore.errors import InputError, RunFailed, one_line
from gazecore.model.readout import Readout
from gazecore.storage import Location
from gazecore.training.examples import TrainingSet
from gazecore.training.members import Member, Report, TrainMembers, train_here
from gazecore.training.optimise import Epoch
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

    def members(self, caches: Sequence[str], storage: Location) -> TrainMembers:
        """What trains members; `caches` and `storage` as `train_members` takes them. Without
        workers, this process does."""
        if not self._config.workers:
            return train_here

        def train(data: TrainingSet, members: list[Member], report: Report) -> list[Readout]:
            if found := finished(members, storage):
                return found
            if self._can_grow is None:
                cluster = connected(self._config.address, spare_cpus=1)
                self._can_grow = self._stack.enter_context(cluster)
            return train_members(
                data,
                members,
                report,
                caches=caches,
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
    caches: Sequence[str],
    storage: Location,
    config: WorkersConfig,
    can_grow: bool = False,
) -> list[Readout]:
    """Train members on the cluster that this process is connected to.

    Args:
        data: opened from `caches`.
        members: what to train.
        report: is called with each member's news.
        caches: what the workers open; every node can read it.
        storage: directory for checkpoints, which every node can write.
        config: how it is spread.
        can_grow: nodes may join, so that what has no room yet is waited for.

    Returns:
        The members' readouts.

    Raises:
        InputError: the cluster has no room for a member, and does not grow.
        RunFailed: a member cannot be trained.
    """
    if not can_grow and _slots(config.cpus_per_worker) < config.workers:
        raise InputError(
            f"the cluster has no room for {counted(config.workers, 'workers')} of "
            f"{counted(config.cpus_per_worker, 'cores')} each"
        )
    # On this node, with Ray Train's controllers: of the others any may be lost.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    reports = ray.remote(num_cpus=0, scheduling_strategy=here)(_Reports).remote()
    train = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=here)(fit)
    found: dict[int, Readout] = {}
    waiting: list[Member] = []
    flying: dict[ray.ObjectRef, Member] = {}
    for member in members:
        if (done := _kept(member, storage)) is not None:
            found[member.number] = done
        else:
            waiting.append(member)
    try:
        while waiting or flying:
            room = _room(config) if waiting else 0
            while waiting and len(flying) < room:
                member = waiting.pop(0)
                task = Task(
                    tuple(Location(uri).uri for uri in caches),  # workers start elsewhere
                    member,
                    config.workers,
                    config.cpus_per_worker,
                    config.checkpoint_steps,
                    storage.uri,
                    reports,
                )
                flying[train.remote(task)] = member
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


def finished(members: list[Member], storage: Location) -> list[Readout] | None:
    """The members' readouts where all of them are done already: that needs no cluster."""
    kept = [_kept(member, storage) for member in members]
    return [readout for readout in kept if readout is not None] if None not in kept else None


def _kept(member: Member, storage: Location) -> Readout | None:
    """What a member that is done was kept as."""
    done = storage / f"member-{member.number}.safetensors"
    if not done.exists():
        return None
    return _readout(member, safetensors.torch.load(done.read_bytes()))


def _slots(cpus: int) -> int:
    """How many workers that take so many cores the cluster's nodes hold."""
    return sum(int(node.cpus // cpus) for node in nodes_in_use())


def _room(config: WorkersConfig) -> int:
    """How many members are trained side by side; one at least, which may wait for nodes."""
    cores = sum(int(node.cpus) for node in nodes_in_use())
    # Ray Train's own actors want a core to be placed: without one they wait a minute.
    most = (cores - 1) // (config.workers * config.cpus_per_worker)
    return max(1, min(most, _slots(config.cpus_per_worker) // config.workers))


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
