"""Pieces of work that do not need each other: done here, or by whoever is given to do them."""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Found = TypeVar("Found")


class Tasks(Protocol):
    """Does the same to many items, of which some may be worked on side by side, elsewhere."""

    def __call__(self, work: Callable[[Item], Found], items: Iterable[Item]) -> Iterator[Found]:
        """What `work` finds of each item, in their order; what it raises is raised.

        Args:
            work: what it holds, takes and finds may be sent to other machines.
            items: few are taken ahead.
        """
        ...


def here(work: Callable[[Item], Found], items: Iterable[Item]) -> Iterator[Found]:
    """One after the other, in this process."""
    return map(work, items)
