"""Threads that compute images side by side, each on its own."""

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager

import torch

from gazecore.cores import cores
from gazecore.memory import share_arenas


@contextmanager
def side_by_side(at_most: int | None = None) -> Iterator[Executor]:
    """A pool with as many threads as there are `cores`, each of which computes on its own.

    Images then go side by side. Torch's way, to cut each of an image's small operations among its
    threads, makes them wait for each other: on a machine with other work by many times what it
    saves. And so a result does not depend on the number of threads.

    Args: at_most: threads, where there is only a part of the cores to use.
    """
    share_arenas()  # else each epoch's reader may keep an arena of features of its own
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(cores(at_most)) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)
