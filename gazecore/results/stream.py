"""All densities of a run in one pass: a shard at a time is in memory, and a few full-size ones."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import pyarrow as pa
from threadpoolctl import threadpool_limits

from gazecore.cores import cores
from gazecore.density.codec import decode
from gazecore.density.resample import to_size
from gazecore.results.run import Run
from gazecore.results.schema import read_densities
from gazecore.shards.directory import shard_name
from gazecore.tasks import Tasks

Item = TypeVar("Item")
Found = TypeVar("Found")

_TASK = 1024
"""Densities of a task, about."""

_MOST_THREADS = 16  # each holds arrays of its image's size


@dataclass(frozen=True)
class StoredDensity:
    """A density as a run has it.

    Attributes:
        image_id: its image.
        height, width: of that, pixels.
        grid: float64 (grid_height, grid_width), the log density, natural, logsumexp 0.
    """

    image_id: str
    height: int
    width: int
    grid: np.ndarray

    def probabilities(self) -> np.ndarray:
        """float64 (height, width), the density of the image's pixels, sum 1."""
        full = to_size(self.grid, self.height, self.width)
        return np.asarray(np.exp(full, dtype=np.float64))


def stored_densities(run: Run, shards: Iterable[int] | None = None) -> Iterator[StoredDensity]:
    """The densities of shards, in order; None: of all that are done."""
    for shard in sorted(run.shards_done()) if shards is None else shards:
        yield from densities_in(read_densities(run.densities / shard_name(shard)))


def densities_in(table: pa.Table) -> Iterator[StoredDensity]:
    """The rows of a table of DENSITIES."""
    for batch in table.to_batches():
        lists = batch["log_density"]
        bounds, cells = lists.offsets.to_numpy(), lists.values.to_numpy()
        names = ("image_id", "height", "width", "grid_height", "log_offset")
        rows = zip(*(batch[name].to_pylist() for name in names), strict=True)
        for i, (image_id, height, width, grid_height, offset) in enumerate(rows):
            values = cells[bounds[i] : bounds[i + 1]].reshape(grid_height, -1)
            yield StoredDensity(image_id, height, width, decode(values, offset))


@dataclass(frozen=True)
class _Pass(Generic[Found]):
    """What `work` finds of each density of some shards."""

    run: Run
    work: Callable[[StoredDensity], Found]

    def __call__(self, shards: Sequence[int]) -> list[Found]:
        with threadpool_limits(1):
            return [*map(self.work, stored_densities(self.run, shards))]


def of_each_density(
    run: Run, work: Callable[[StoredDensity], Found], tasks: Tasks | None = None
) -> Iterator[Found]:
    """What `work` finds of each density of the shards that are done, in the plan's order.

    Args:
        run: whose.
        work: may be called in any thread, and where `tasks` does.
        tasks: does some shards at a time; None: threads of this process.
    """
    if tasks is None:
        yield from of_each(stored_densities(run), work)
        return
    numbers, some = iter(sorted(run.shards_done())), max(1, _TASK // run.shard_size)
    groups = iter(lambda: [*itertools.islice(numbers, some)], [])
    for found in tasks(_Pass(run, work), groups):
        yield from found


def of_each(items: Iterable[Item], work: Callable[[Item], Found]) -> Iterator[Found]:
    """What `work` finds of each item, in their order; several are worked on side by side.

    Args:
        items: densities and the like, of which few are in memory at a time.
        work: may be called in any thread.
    """
    threads = cores(_MOST_THREADS)
    waiting: deque[Future[Found]] = deque()
    # Numpy's own threads would only get in the way of ours.
    with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
