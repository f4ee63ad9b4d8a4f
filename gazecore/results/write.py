"""Committing a shard: its densities first, then the scores that vouch for them."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gazecore.errors import InputError
from gazecore.results.run import Run
from gazecore.results.schema import DENSITIES, SCORES, read_densities
from gazecore.shards.directory import shard_name
from gazecore.storage import parquet_bytes
from gazecore.tables import read_table

Rows = Sequence[Mapping[str, Any]]


def commit_shard(run: Run, shard: int, scores: Rows, densities: Rows) -> None:
    """Publish a shard's two files. It is done from the moment that its scores file appears.

    Args:
        run: where to.
        shard: number in the plan.
        scores: a row of SCORES for each planned image, in the plan's order.
        densities: a row of DENSITIES for each `ok` image, in the same order.
    """
    table = pa.Table.from_pylist(list(scores), schema=SCORES)
    run.commit(shard, _score_bytes(table), density_file(densities))


def mend_shard(run: Run, shard: int, scores: Rows, densities: Rows) -> None:
    """Put rows of images that were tried again in the place of their failed rows.

    The shard's files become those of a shard in which these images had ended like this the first
    time, byte for byte. A file in which nothing changes is not written. Who is killed between the
    two leaves densities that no scores vouch for, which the next call replaces or takes away.

    Args:
        run: where to.
        shard: number of a shard that is done.
        scores: rows of SCORES; those of images that have not failed before are passed over.
        densities: a row of DENSITIES for each of them that is `ok`.

    Raises:
        InputError: the shard's files are damaged.
    """
    name = shard_name(shard)
    old_scores = read_table(run.scores / name, SCORES)
    old_densities = read_densities(run.densities / name)
    ids = old_scores["image_id"].to_pylist()
    failed = set(old_scores.filter(pc.field("status") == "failed")["image_id"].to_pylist())
    new_scores = _rows_of(scores, failed, SCORES)
    merged_scores = _in_order(old_scores, new_scores, ids)
    ok = merged_scores.filter(pc.field("status") == "ok")["image_id"].to_pylist()
    try:
        merged_densities = _in_order(old_densities, _rows_of(densities, failed, DENSITIES), ok)
    except KeyError as error:
        raise InputError(f"{run.densities.uri}/{name} lacks the density of {error}") from error
    if not merged_densities.equals(old_densities):
        (run.densities / name).publish(_density_bytes(merged_densities))
    if not merged_scores.equals(old_scores):
        (run.scores / name).publish(_score_bytes(merged_scores))


def density_file(densities: Rows) -> bytes:
    """A densities file of rows of DENSITIES."""
    return _density_bytes(pa.Table.from_pylist(list(densities), schema=DENSITIES))


def _rows_of(rows: Rows, wanted: set[str], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist([row for row in rows if row["image_id"] in wanted], schema=schema)


def _in_order(old: pa.Table, new: pa.Table, ids: list[str]) -> pa.Table:
    """A row for each of the images, the new one where there is one."""
    both = pa.concat_tables([old.cast(new.schema), new])
    place = {image_id: row for row, image_id in enumerate(both["image_id"].to_pylist())}
    return both.take([place[image_id] for image_id in ids]).combine_chunks()


def _score_bytes(table: pa.Table) -> bytes:
    return _parquet(table, use_dictionary=["status", "error"])


def _density_bytes(table: pa.Table) -> bytes:
    """Neighbouring steps are close, so their differences are packed."""
    return _parquet(
        table,
        use_dictionary=["height", "width", "grid_height", "grid_width"],
        column_encoding={"log_density.list.element": "DELTA_BINARY_PACKED"},
        write_statistics=["image_id"],
    )


def _parquet(table: pa.Table, **options: Any) -> bytes:
    return parquet_bytes(table, compression_level=9, **options)
