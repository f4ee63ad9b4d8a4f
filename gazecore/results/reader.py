"""Reading a run directory.

run = gazecore.open_run("photos-run")
run.scores                              a pyarrow table, one row per image
run.query("SELECT ... FROM scores")     likewise
run.density("beach.jpg")                log density at the image's resolution, numpy
run.density("beach.jpg", grid=True)     on the stored grid
"""

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gazecore.density.codec import decode
from gazecore.density.resample import to_size
from gazecore.errors import InputError
from gazecore.results.run import Run, open_run
from gazecore.results.schema import SCORES, read_densities
from gazecore.shards.directory import shard_name
from gazecore.shards.plan import PLAN, plan_parts
from gazecore.storage import Location
from gazecore.tables import read_table


class Results:
    """The results of a run, finished or not."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def __repr__(self) -> str:
        return f"<gazecore.Results of {self.run.location.uri}>"

    def plan(self) -> pa.Table:
        """The planned images, schema PLAN."""
        tables = [read_table(part.location, PLAN) for part in plan_parts(self.run)]
        return pa.concat_tables([PLAN.empty_table(), *tables])

    @property
    def scores(self) -> pa.Table:
        """Scores of all shards that are done, a row per image, schema SCORES."""
        return self.read_scores()

    def query(self, sql: str, joined: Mapping[str, str] = {}) -> pa.Table:
        """The answer to a question in SQL; see `results.query.query`."""
        from gazecore.results.query import query

        return query(self.run, sql, joined)

    def read_scores(self, columns: list[str] | None = None) -> pa.Table:
        """Scores of all shards that are done, or some of their columns."""
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
                    table = read_densities(location)
                    for density in table.filter(is_wanted).to_pylist():
                        return _decoded(density, grid)
        raise InputError(f"{self.run.location.uri} has no density of {image_id!r}")

    def densities(self, *, grid: bool = False) -> Iterator[tuple[str, np.ndarray]]:
        """All (image_id, log density) pairs, a shard at a time; see `density`."""
        for shard in sorted(self.run.shards_done()):
            table = read_densities(self.run.densities / shard_name(shard))
            # Row by row: as Python numbers, a shard's cells would take twenty times their size.
            for batch in table.to_batches(max_chunksize=1):
                for row in batch.to_pylist():
                    yield row["image_id"], _decoded(row, grid)


def open_results(uri: str) -> Results:
    """Open a run directory, local or on any fsspec URI. Raises InputError where there is none."""
    return Results(open_run(Location(uri)))


_SHARDS_HELD = 4


class DensityLookup:
    """Where each image's density is; whole shards are read, and the last few are kept."""

    def __init__(self, results: Results) -> None:
        """Read which images are in which shard."""
        self._folder = results.run.densities
        self._shard: dict[str, int] = {}
        self._size: dict[str, tuple[int, int]] = {}
        for shard in sorted(results.run.shards_done()):
            for row in self._read(shard, ["image_id", "height", "width"]).to_pylist():
                self._shard[row["image_id"]] = shard
                self._size[row["image_id"]] = (row["height"], row["width"])
        self._shard_rows = functools.lru_cache(_SHARDS_HELD)(self._rows)

    def __contains__(self, image_id: str) -> bool:
        return image_id in self._shard

    def size(self, image_id: str) -> tuple[int, int]:
        """Height and width of an image that has a density, pixels."""
        return self._size[image_id]

    def by_shard(self, image_ids: Iterable[str]) -> list[str]:
        """Those of the images that have a density, in the order that reads every shard once."""
        return sorted((i for i in image_ids if i in self._shard), key=lambda i: self._shard[i])

    def on_grid(self, image_id: str) -> np.ndarray:
        """The log density of an image that has one, on its stored grid.

        Returns:
            float64 (grid_height, grid_width), natural logarithm, logsumexp 0.
        """
        table, rows = self._shard_rows(self._shard[image_id])
        return _on_grid(table.slice(rows[image_id], 1).to_pylist()[0])

    def _rows(self, shard: int) -> tuple[pa.Table, dict[str, int]]:
        table = self._read(shard, None)
        return table, {image_id: i for i, image_id in enumerate(table["image_id"].to_pylist())}

    def _read(self, shard: int, columns: list[str] | None) -> pa.Table:
        return read_densities(self._folder / shard_name(shard), columns)


def _on_grid(row: Mapping[str, Any]) -> np.ndarray:
    """A row of DENSITIES as its log density on the stored grid."""
    values = np.array(row["log_density"], dtype=np.int16)
    return decode(values.reshape(row["grid_height"], -1), row["log_offset"])


def _decoded(row: Mapping[str, Any], grid: bool) -> np.ndarray:
    stored = _on_grid(row)
    return stored if grid else to_size(stored, row["height"], row["width"])
