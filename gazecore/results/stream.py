"""All densities of a run in one pass: a shard at a time is in memory, and a few full-size ones."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from gazecore.cores import cores
from gazecore.density.codec import decode
from gazecore.density.resample import to_size
from gazecore.results.run import Run
from gazecore.results.schema import read_densities
from gazecore.shards.directory import shard_name

Found = TypeVar("Found")

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


def stored_densities(run: Run) -> Iterator[StoredDensity]:
    """The densities of all shards that are done, in the plan's order."""
    for shard in sorted(run.shards_done()):
        for batch in read_densities(run.densities / shard_name(shard)).to_batches():
            lists = batch["log_density"]
            bounds, cells = lists.offsets.to_numpy(), lists.values.to_numpy()
            names = ("image_id", "height", "width", "grid_height", "log_offset")
            rows = zip(*(batch[name].to_pylist() for name in names), strict=True)
            for i, (image_id, height, width, grid_height, offset) in enumerate(rows):
                values = cells[bounds[i] : bounds[i + 1]].reshape(grid_height, -1)
                yield StoredDensity(image_id, height, width, decode(values, offset))


def of_each_density(run: Run, work: Callable[[StoredDensity], Found]) -> Iterator[Found]:
    """What `work` finds of each density, in their order; several are worked on side by side.

    Args:
        run: finished or not.
        work: may be called in any thread.
    """
    threads = cores(_MOST_THREADS)
    waiting: deque[Future[Found]] = deque()
    # Numpy's own threads would only get in the way of ours.
    with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
        for density in stored_densities(run):
            waiting.append(pool.submit(work, density))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
