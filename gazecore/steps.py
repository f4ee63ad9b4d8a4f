"""How long work tells somebody that a step is done, who may show a bar of it, or nobody."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TypeVar

Item = TypeVar("Item")

Steps = Callable[[str, int], AbstractContextManager[Callable[[], None]]]
"""Gives, for a title and a number of steps, what is to be called after each of them."""


def uncounted(title: str, total: int) -> AbstractContextManager[Callable[[], None]]:
    """The `Steps` of those who are not to be told."""
    return contextlib.nullcontext(lambda: None)


def told(items: Iterable[Item], on_step: Callable[[], None]) -> Iterator[Item]:
    """The items; `on_step` is called once each has been worked on."""
    for item in items:
        yield item
        on_step()
