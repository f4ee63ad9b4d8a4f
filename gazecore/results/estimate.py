"""What a run would take, before anything is written."""

import tempfile
from collections.abc import Container, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from gazecore.results.rate import begin_time, commit_rate, commit_times
from gazecore.results.run import Run
from gazecore.shards.plan import plan_parts, require_plan, shards
from gazecore.shards.planning import PlanSummary, update_plan
from gazecore.storage import Location

DENSITY_BYTES = {4: 2586, 2: 8400, 1: 19800}
"""Of a stored density, by `density_factor`: benchmarks/LOG.md, `benchmarks.density` and "Storing
densities", on photographs of MIT1003."""

SCORE_BYTES = 138
"""Of a row of scores: benchmarks/LOG.md, "A row of scores"."""


@dataclass(frozen=True)
class Estimate:
    """What is left to do of a run.

    Attributes:
        plan: what would be planned, with what is planned already.
        images, shards: to do.
        sized, bytes: images among them whose size is known, and their bytes in all.
        stored: bytes that their densities and scores will take.
        rate: images per second of late, if that is known.
    """

    plan: PlanSummary
    images: int
    shards: int
    sized: int
    bytes: int
    stored: int
    rate: float | None


def estimate(run: Run, listing: Iterator[pa.RecordBatch], limit: int | None) -> Estimate:
    """Plan as `update_plan` does, but in a temporary directory, and count what is not done.

    Args:
        run: one that is there, or that may never be begun: nothing is written to it.
        listing, limit: see `update_plan`.
    """
    written = commit_times(run)
    with tempfile.TemporaryDirectory(prefix="gazecore-dry-run-") as folder:
        draft = Run(Location(folder), run.settings)
        parts = plan_parts(run)
        require_plan(run, parts, written)
        for part in parts:
            name = part.location.path.rpartition("/")[2]
            (draft.plan / name).publish(part.location.read_bytes())
        plan = update_plan(draft, listing, limit, done=written)
        images, count, sized, size = _count(draft, written)
    per_image = DENSITY_BYTES[run.settings.density_factor] + SCORE_BYTES
    rate = commit_rate(parts, written, begin_time(run))
    return Estimate(plan, images, count, sized, size, images * per_image, rate)


def _count(draft: Run, done: Container[int]) -> tuple[int, int, int, int]:
    """Images and shards that are missing, images of known size, and their bytes."""
    images = count = sized = size = 0
    for shard in shards(draft, lambda number: number not in done):
        sizes = shard.images["size"]
        count += 1
        images += len(sizes)
        sized += len(sizes) - sizes.null_count
        size += pc.sum(sizes).as_py() or 0
    return images, count, sized, size
