"""Reading a run directory.

run = gazecore.results.read.open("photos-run")
run.scores()                            a pyarrow table, one row per image
run.density("beach.jpg")                log density at the image's resolution, numpy
run.density("beach.jpg", grid=True)     on the stored grid
"""

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs

from gazecore.density.codec import decode
from gazecore.density.resample import to_size
from gazecore.errors import InputError
from gazecore.results.run import Run, open_run
from gazecore.results.schema import DENSITIES, PLAN, SCORES
from gazecore.storage import Location


class Results:
    """The results of a run, finished or not."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def plan(self) -> pa.Table:
        """The planned images, schema PLAN."""
        return self._dataset("plan", PLAN).to_table()

    def scores(self, columns: list[str] | None = None) -> pa.Table:
        """Scores of all shards that are done, schema SCORES, or some of its columns."""
        return self._dataset("scores", SCORES).to_table(columns=columns)

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
        rows = self._densities.to_table(filter=ds.field("image_id") == image_id).slice(0, 1)
        for _, density in _decoded(rows.to_batches(), grid):
            return density
        raise InputError(f"{self.run.location.uri} has no density of {image_id!r}")

    def densities(self, *, grid: bool = False) -> Iterator[tuple[str, np.ndarray]]:
        """All (image_id, log density) pairs, streamed; see `density`."""
        return _decoded(self._densities.to_batches(), grid)

    @cached_property
    def _densities(self) -> ds.Dataset:
        return self._dataset("densities", DENSITIES)

    def _dataset(self, name: str, schema: pa.Schema) -> ds.Dataset:
        directory: Location = self.run.location / name
        paths = [(directory / n).path for n in directory.names() if n.endswith(".parquet")]
        filesystem = pafs.PyFileSystem(pafs.FSSpecHandler(directory.fs))
        return ds.dataset(paths, schema=schema, format="parquet", filesystem=filesystem)


def open(uri: str) -> Results:
    """Open a run directory, local or on any fsspec URI. Raises InputError where there is none."""
    return Results(open_run(Location(uri)))


def _decoded(batches: list[pa.RecordBatch], grid: bool) -> Iterator[tuple[str, np.ndarray]]:
    for batch in batches:
        for row in batch.to_pylist():
            values = np.array(row["log_density"], dtype=np.int16)
            stored = decode(values.reshape(row["grid_height"], -1), row["log_offset"])
            yield (
                row["image_id"],
                stored if grid else to_size(stored, row["height"], row["width"]),
            )
