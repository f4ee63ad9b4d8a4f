"""How work is spread over a cluster, and what that asks of it. Needs no Ray."""

from dataclasses import dataclass

from gazecore.errors import InputError

MAX_ACTORS, MAX_GPUS = 10_000, 1_000
"""In all, and of one actor; more is a slip of the finger."""


@dataclass(frozen=True)
class ClusterConfig:
    """Which cluster computes, and on how much of it."""

    actors: str | None = None
    """How many actors hold a model: 8, or 2:16 for 16 at most and an end of the run once fewer than
    2 have been at work for an hour. Work begins with the first; a cluster that grows on demand
    brings the nodes. By default one per GPU, or without GPUs one per machine, as machines come and
    go. 0 computes in this process, without Ray, which starts seven seconds sooner; so does, by
    default, a command that no cluster is named to, where at most 256 images of this machine's disks
    are to do and there is no second GPU. An image that ends the process then ends the command; the
    same command goes on with Ray, which finds it."""
    gpus_per_actor: float | None = None
    """GPUs of each actor; 0.5 puts two on a GPU, 0 computes on CPUs. By default 1 where the cluster
    has GPUs."""
    address: str | None = None
    """A Ray cluster. By default the one that this runs in (`ray job submit`), else a local one."""

    def __post_init__(self) -> None:
        self.bounds()
        if self.is_here and (self.gpus_per_actor is not None or self.address is not None):
            raise InputError("--actors 0 computes in this process, on no cluster: give it alone")
        gpus = self.gpus_per_actor
        # Written so that what is no number fails too.
        if gpus is not None and not (0 <= gpus <= 1 or (1 < gpus <= MAX_GPUS and gpus % 1 == 0)):
            raise InputError(
                f"--gpus-per-actor must be a part of 1 or a whole number up to {MAX_GPUS}, "
                f"not {gpus:g}"
            )

    @property
    def is_here(self) -> bool:
        """Whether this process is to compute."""
        return self.actors == "0"

    def bounds(self) -> tuple[int, int | None]:
        """The fewest actors that a run goes on with, and the most; None: what there is room for."""
        if self.actors is None:
            return 0, None
        if self.is_here:
            return 0, 1
        least, _, most = self.actors.rpartition(":")
        try:
            bounds = int(least or 0), int(most)
        except ValueError:
            bounds = -1, 0
        if not 0 <= bounds[0] <= bounds[1] <= MAX_ACTORS or not bounds[1]:
            raise InputError(
                f"--actors must be 0 to {MAX_ACTORS:,}, or a range like 2:16, not {self.actors}"
            )
        return bounds


@dataclass(frozen=True)
class WorkersConfig:
    """How training is spread."""

    workers: int = 1
    """Processes that train one member together: they share the images of each step. Members need
    none to go side by side; more help where there are more cores than members. 0 trains in this
    process, without checkpoints."""
    cpus_per_worker: int = 1
    """Cores of each, by which it takes as many images at a time; as many members train side by
    side as fit."""
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


@dataclass(frozen=True)
class Node:
    """A machine of the cluster: its id, its cores and its GPUs."""

    node_id: str
    cpus: float
    gpus: float


def actors_on_gpus(gpus: float, per_actor: float) -> int:
    """How many actors fit on GPUs of one machine; an actor of less than one lies on one."""
    if per_actor < 1:
        return int(gpus) * int(1 / per_actor + 1e-9)
    return int(gpus // per_actor)


@dataclass(frozen=True)
class ActorLayout:
    """How many actors hold a model, and what each one occupies.

    Attributes:
        actors: how many at most; None: what the cluster has room for, as it grows and shrinks.
        gpus: of each actor, 0 for CPU actors; a fraction puts several on one GPU.
        cpus: of each actor, reserved and used.
        least: how few are too few to go on with for long.
    """

    actors: int | None
    gpus: float
    cpus: int
    least: int = 0

    def room(self, nodes: list["Node"]) -> int:
        """How many such actors these nodes hold: on CPUs one on each, on GPUs as many as fit."""
        if not self.gpus:
            return sum(node.cpus >= self.cpus for node in nodes)
        return sum(
            min(actors_on_gpus(node.gpus, self.gpus), int(node.cpus // self.cpus)) for node in nodes
        )
