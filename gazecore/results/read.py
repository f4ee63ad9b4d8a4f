"""Reading a run directory.

run = gazecore.results.read.open("photos-run")
run.scores()                            a pyarrow table, one row per image
run.density("beach.jpg")                log density at the image's resolution, numpy
run.density("beach.jpg", grid=True)     on the stored grid
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gazecore.density.codec import decode
from gazecore.density.resample import to_size
from gazecore.errors import InputError
from gazecore.results.plan import plan_parts
from gazecore.results.run import Run, open_run
from gazecore.results.schema import DENSITIES, PLAN, SCORES, read_table, shard_name
from gazecore.storage import Location


class Results:
    """The results of a run, finished or not."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def plan(self) -> pa.Table:
        """The planned images, schema PLAN."""
        tables = [read_table(part.location, PLAN) for part in plan_parts(self.run)]
        return pa.concat_tables([PLAN.empty_table(), *tables])

    def scores(self, columns: list[str] | None = None) -> pa.Table:
        """Scores of all shards that are done, schema SCORES, or some of its columns."""
        tables = [
            read_table(self.run.scores / shard_name(shard), SCORES, columns)
            for shard in sorted(self.run.shards_done())
        ]
        empty = SCORES.empty_table()
        return pa.concat_tables([empty.select(columns) if columns else empty, *tables])

    def density(self, image_id: str, *, grid: bool = False) -> np.ndarray:
        """The log density of one image.

        Args:
            image_id: as in the scores.
            grid: as stored, instead of interpolated to the image's resolution.

        Returns:
            (height, width), natural logarithm, logsumexp 0 over the array.

        Raises:
            InputError: no image of that id has a density.
        """
        is_wanted = pc.field("image_id") == image_id
        for part in plan_parts(self.run):
            planned = read_table(part.location, PLAN, ["image_id", "shard"])
            for row in planned.filter(is_wanted).to_pylist():
                location = self.run.densities / shard_name(row["shard"])
                if location.exists():
                    table = read_table(location, DENSITIES)
                    for density in table.filter(is_wanted).to_pylist():
                        return _decoded(density, grid)
        raise InputError(f"{self.run.location.uri} has no density of {image_id!r}")

    def densities(self, *, grid: bool = False) -> Iterator[tuple[str, np.ndarray]]:
        """All (image_id, log density) pairs, a shard at a time; see `density`."""
        for shard in sorted(self.run.shards_done()):
            table = read_table(self.run.densities / shard_name(shard), DENSITIES)
            # Row by row: as Python numbers, a shard's cells would take twenty times their size.
            for batch in table.to_batches(max_chunksize=1):
                for row in batch.to_pylist():
                    yield row["image_id"], _decoded(row, grid)


def open(uri: str) -> Results:
    """Open a run directory, local or on any fsspec URI. Raises InputError where there is none."""
    return Results(open_run(Location(uri)))


def _decoded(row: dict[str, Any], grid: bool) -> np.ndarray:
    values = np.array(row["log_density"], dtype=np.int16)
    stored = decode(values.reshape(row["grid_height"], -1), row["log_offset"])
    return stored if grid else to_size(stored, row["height"], row["width"])
