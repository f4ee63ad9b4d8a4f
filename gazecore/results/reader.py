"""Reading a run directory.

run = gazecore.open_run("photos-run")
run.scores                              a pyarrow table, one row per image
run.query("SELECT ... FROM scores")     likewise
run.density("beach.jpg")                log density at the image's resolution, numpy
run.density("beach.jpg", grid=True)     on the stored grid
"""

import functools
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gazecore.density.codec import decode
from gazecore.density.resample import to_size
from gazecore.errors import InputError
from gazecore.results.compacted import part_schema, read_compaction, sources
from gazecore.results.files import READERS, Object
from gazecore.results.run import Run, open_run
from gazecore.results.schema import read_densities
from gazecore.shards.directory import shard_name, shard_numbers
from gazecore.shards.plan import PLAN, plan_parts
from gazecore.storage import Location
from gazecore.tables import read_table

_SHARDS_HELD = 4


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
        """Scores of all shards that are done, a row per image, of the schema `run.schema`."""
        return self.read_scores()

    def query(self, sql: str, joined: Mapping[str, str] = {}) -> pa.Table:
        """The answer to a question in SQL; see `results.query.query`."""
        from gazecore.results.query import query

        return query(self.run, sql, joined)

    def read_scores(self, columns: list[str] | None = None) -> pa.Table:
        """Scores of all shards that are done, or some of their columns.

        A run that is not compacted has them in the plan's order, a compacted one by image_id.
        """
        schema = self.run.schema
        names = columns or schema.names
        found = sources(self.run, "scores")
        tables = [schema.empty_table().select(names)]
        for part in found.parts:
            table = read_table(part.object, part_schema(self.run, "scores"), [*names, "shard"])
            outdated = pc.is_in(table["shard"], value_set=pa.array(found.outdated, pa.int32()))
            tables.append(table.filter(pc.invert(outdated)).select(names))
        with ThreadPoolExecutor(READERS) as pool:
            shards = [file.object for file in found.shards]
            tables += pool.map(lambda shard: read_table(shard, schema, names), shards)
        return pa.concat_tables(tables)

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
        for shard in self._shards_of(image_id):
            location = self.run.densities / shard_name(shard)
            if location.exists():
                for density in read_densities(location).filter(is_wanted).to_pylist():
                    return _decoded(density, grid)
        raise InputError(f"{self.run.location.uri} has no density of {image_id!r}")

    def _shards_of(self, image_id: str) -> Iterator[int]:
        """The shards that may hold an image: as the compacted scores say, else the plan."""
        if compaction := read_compaction(self.run, "scores"):
            from gazecore.results.database import database, parquet

            with database({"parts": compaction.parts}) as db:
                sql = f"SELECT shard FROM {parquet('parts')} WHERE image_id = ?"
                found = db.execute(sql, [image_id]).fetchall()
            if found:
                yield from (shard for (shard,) in found)
                return
        for part in plan_parts(self.run):
            planned = read_table(part.location, PLAN, ["image_id", "shard"])
            yield from planned.filter(pc.field("image_id") == image_id)["shard"].to_pylist()

    def densities(self, *, grid: bool = False) -> Iterator[tuple[str, np.ndarray]]:
        """All (image_id, log density) pairs, a shard at a time; see `density`."""
        wanted = iter(sorted(self.run.shards_done()))
        with ThreadPoolExecutor(_SHARDS_HELD) as pool:
            coming: deque[Future[pa.Table]] = deque()
            while True:
                for shard in itertools.islice(wanted, _SHARDS_HELD - len(coming)):
                    where = Object(self.run.densities / shard_name(shard))
                    coming.append(pool.submit(read_densities, where))
                if not coming:
                    break
                # Row by row: as Python numbers, a shard's cells would take twenty times their size.
                for batch in coming.popleft().result().to_batches(max_chunksize=1):
                    for row in batch.to_pylist():
                        yield row["image_id"], _decoded(row, grid)


def open_results(uri: str) -> Results:
    """Open a run directory, local or on any fsspec URI. Raises InputError where there is none."""
    return Results(open_run(Location(uri)))


class DensityLookup:
    """Where each image's density is; whole shards are read, and the last few are kept."""

    def __init__(self, results: Results) -> None:
        """Read which images are in which shard."""
        self._folder = results.run.densities
        self._shard: dict[str, int] = {}
        self._size: dict[str, tuple[int, int]] = {}
        for shard, rows in self._shards(results.run):
            for row in rows.to_pylist():
                self._shard[row["image_id"]] = row.get("shard", shard)
                self._size[row["image_id"]] = (row["height"], row["width"])
        self._shard_rows = functools.lru_cache(_SHARDS_HELD)(self._rows)

    def _shards(self, run: Run) -> Iterator[tuple[int, pa.Table]]:
        """image_id, height and width of all that have a density; with their shard, if compacted."""
        columns = ["image_id", "height", "width"]
        found = sources(run, "scores")
        for part in found.parts:
            wanted = [*columns, "status", "shard"]
            table = read_table(part.object, part_schema(run, "scores"), wanted)
            outdated = pc.field("shard").isin(pa.array(found.outdated, pa.int32()))
            yield -1, table.filter((pc.field("status") == "ok") & ~outdated)
        for shard in sorted(shard_numbers([file.name for file in found.shards])):
            yield shard, self._read(shard, columns)

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
        return read_densities(Object(self._folder / shard_name(shard)), columns)


def _on_grid(row: Mapping[str, Any]) -> np.ndarray:
    """A row of DENSITIES as its log density on the stored grid."""
    values = np.array(row["log_density"], dtype=np.int16)
    return decode(values.reshape(row["grid_height"], -1), row["log_offset"])


def _decoded(row: Mapping[str, Any], grid: bool) -> np.ndarray:
    stored = _on_grid(row)
    return stored if grid else to_size(stored, row["height"], row["width"])
