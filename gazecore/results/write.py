"""Committing a shard: its densities first, then the scores that vouch for them."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gazecore.results.run import Run
from gazecore.results.schema import DENSITIES, SCORES


def commit_shard(
    run: Run,
    shard: int,
    scores: Sequence[Mapping[str, Any]],
    densities: Sequence[Mapping[str, Any]],
) -> None:
    """Publish a shard's two files. It is done from the moment that its scores file appears.

    Args:
        run: where to.
        shard: number in the plan.
        scores: a row of SCORES for each planned image, in the plan's order.
        densities: a row of DENSITIES for each `ok` image, in the same order.
    """
    table = pa.Table.from_pylist(list(scores), schema=SCORES)
    outcomes = _parquet(table, use_dictionary=["status", "error"])
    run.commit(shard, outcomes, density_file(densities))


def density_file(densities: Sequence[Mapping[str, Any]]) -> bytes:
    """A densities file; neighbouring steps are close, so their differences are packed."""
    table = pa.Table.from_pylist(list(densities), schema=DENSITIES)
    return _parquet(
        table,
        use_dictionary=["height", "width", "grid_height", "grid_width"],
        column_encoding={"log_density.list.element": "DELTA_BINARY_PACKED"},
        write_statistics=["image_id"],
    )


def _parquet(table: pa.Table, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", compression_level=9, **options)
    return buffer.getvalue()
