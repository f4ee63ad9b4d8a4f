"""Pieces of work that need no network, as tasks of a cluster: passes over a run's tables."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from cluster.calls import raised_by
from cluster.connection import connected, nodes_in_use
from gazecore.errors import RunFailed, one_line
from gazecore.tasks import Tasks

Item = TypeVar("Item")
Found = TypeVar("Found")

RETRIES = 3
"""How often a task whose process or machine was lost is begun again."""


@contextmanager
def tasks_on(address: str | None) -> Iterator[Tasks]:
    """Connect to a cluster, for tasks on all of its cores.

    Args:
        address: see `connected`.

    Raises:
        InputError: there is no cluster at that address.
    """
    with connected(address):
        yield _each


def _each(work: Callable[[Item], Found], items: Iterable[Item]) -> Iterator[Found]:
    # Put once: the object store brings it to each node once.
    shared = ray.put(work)
    call = ray.remote(num_cpus=1, max_retries=RETRIES, scheduling_strategy="SPREAD")(_call)
    waiting: deque[ray.ObjectRef] = deque()
    try:
        for item in items:
            waiting.append(call.remote(shared, item))
            if len(waiting) > 2 * sum(node.cpus for node in nodes_in_use()):
                yield _answer(waiting.popleft())
        while waiting:
            yield _answer(waiting.popleft())
    finally:
        for ref in waiting:
            # With their processes: what was importing a module could never import it again.
            ray.cancel(ref, force=True)


def _call(work: Callable[[Any], Any], item: Any) -> Any:
    return work(item)


def _answer(ref: ray.ObjectRef) -> Any:
    try:
        return ray.get(ref)
    except RayTaskError as error:
        raise raised_by(error).with_traceback(None) from None
    except RayError as error:
        raise RunFailed(
            f"a task was lost {RETRIES + 1} times: {one_line(error)}; the same command begins again"
        ) from None
