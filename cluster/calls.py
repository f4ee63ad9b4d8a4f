"""Calls to actors: whom they are to, and what they end with."""

from dataclasses import dataclass
from typing import Literal

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError

from gazecore.errors import one_line
from gazecore.shards.blame import Task
from gazecore.shards.tally import Done

Outcome = Done | str | dict[int, tuple[int, int]] | Exception
"""What a call to an actor ended with: its answer, or why there is none."""


_ALONE = -1
"""Stands for a shard's number while images are tried alone."""


class Slot:
    """A place in the pool.

    Attributes:
        actor: the one that holds the place now.
        node: id of the node that it is on, once it has loaded its network; empty before.
        shards: numbers of the shards that it works on.
        counts: its last word on progress, shard to images (ok, failed).
        is_asked: it was asked for progress, and has not answered yet.
    """

    def __init__(self, actor: "ray.actor.ActorHandle") -> None:
        self.shards: set[int] = set()
        self.place(actor)

    def place(self, actor: "ray.actor.ActorHandle") -> None:
        """Give the place to an actor."""
        self.actor = actor
        self.node, self.is_asked = "", False
        self.counts: dict[int, tuple[int, int]] = {}

    @property
    def is_ready(self) -> bool:
        """Whether the actor has loaded its network."""
        return bool(self.node)


@dataclass(frozen=True)
class Call:
    """A call to an actor that has not ended, as far as is known.

    Attributes:
        slot, actor: whom it is to; the slot may have another actor by now.
        kind: what is asked for.
        shard: what is in work by it.
        task: the same, where it is to be committed.
    """

    slot: Slot
    actor: "ray.actor.ActorHandle"
    kind: Literal["ready", "progress", "work"]
    shard: int = _ALONE
    task: Task | None = None


def outcome_of(ref: ray.ObjectRef) -> Outcome:
    """What a call that has ended ended with."""
    try:
        answer: Done | str | dict[int, tuple[int, int]] = ray.get(ref)
        return answer
    except RayError as error:
        # Its traceback would hold whoever called this, and so the pool with its actors, until
        # Python happens to look for cycles: the cluster's cores would stay taken after the run.
        failure: Exception = error.with_traceback(None)
        return failure


def is_death(error: Exception) -> bool:
    """Whether an actor died, as opposed to a call that raised."""
    return isinstance(error, RayActorError | OutOfMemoryError)


def raised_by(error: Exception) -> Exception:
    """What a call raised, without Ray's wrapping."""
    cause: Exception = error.cause if isinstance(error, RayTaskError) else error
    return cause


def cause_of(error: Exception) -> str:
    """What a call raised, on one line."""
    cause = raised_by(error)
    return f"{type(cause).__name__}: {one_line(cause)}"
