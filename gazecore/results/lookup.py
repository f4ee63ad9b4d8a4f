"""Densities of a run by image, for callers that want many of them."""

import functools
from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from gazecore.density.codec import decode
from gazecore.results.read import Results
from gazecore.results.schema import DENSITIES, read_table, shard_name

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
        row = table.slice(rows[image_id], 1).to_pylist()[0]
        values = np.array(row["log_density"], dtype=np.int16).reshape(row["grid_height"], -1)
        return decode(values, row["log_offset"])

    def _rows(self, shard: int) -> tuple[pa.Table, dict[str, int]]:
        table = self._read(shard, None)
        return table, {image_id: i for i, image_id in enumerate(table["image_id"].to_pylist())}

    def _read(self, shard: int, columns: list[str] | None) -> pa.Table:
        return read_table(self._folder / shard_name(shard), DENSITIES, columns)
