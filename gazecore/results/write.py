"""Committing a shard: its densities first, then the scores that vouch for them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gazecore.errors import InputError
from gazecore.results.files import Object
from gazecore.results.run import Run
from gazecore.results.schema import DENSITIES, read_densities
from gazecore.shards.directory import shard_name
from gazecore.storage import parquet_bytes
from gazecore.tables import read_table

Rows = Sequence[Mapping[str, Any]]

AS_OF = b"gazecore.as_of"
"""Names what rows are as of in the metadata of a scores file, JSON, where images were revised."""


def commit_shard(run: Run, shard: int, scores: Rows, densities: Rows) -> None:
    """Publish a shard's two files. It is done from the moment that its scores file appears.

    Args:
        run: where to.
        shard: number in the plan.
        scores: a row of SCORES for each planned image, in the plan's order.
        densities: a row of DENSITIES for each `ok` image, in the same order.
    """
    table = pa.Table.from_pylist(list(scores), schema=run.schema)
    run.commit(shard, _score_bytes(table, _as_of(scores)), density_file(densities))


def mend_shard(run: Run, shard: int, scores: Rows, densities: Rows) -> None:
    """Put rows of images that were tried again in the place of those that they had.

    Of images that had failed the shard's files become those of a shard in which they had ended like
    this the first time, byte for byte. A file in which nothing changes is not written. Densities go
    before the scores that vouch for them, and those that no scores vouch for any more go after; who
    is killed between leaves what the next call replaces or takes away.

    Args:
        run: where to.
        shard: number of a shard that is done.
        scores: rows of SCORES; passed over where the image's row has not failed, is as of the same
            version (`as_of`), and was not `asked` for.
        densities: a row of DENSITIES for each of them that is `ok`.

    Raises:
        InputError: the shard's files are damaged.
    """
    name = shard_name(shard)
    old_scores, before = read_scores(run, shard)
    old_densities = read_densities(run.densities / name)
    ids = old_scores["image_id"].to_pylist()
    failed = set(old_scores.filter(pc.field("status") == "failed")["image_id"].to_pylist())
    wanted = {
        row["image_id"]
        for row in scores
        if row["image_id"] in failed or row.get("asked") or _is_newer(row, before)
    }
    merged_scores = _in_order(old_scores, _rows_of(scores, wanted, run.schema), ids)
    ok = merged_scores.filter(pc.field("status") == "ok")["image_id"].to_pylist()
    fresh = _rows_of(densities, wanted, DENSITIES)
    try:
        merged_densities = _in_order(old_densities, fresh, ok)
    except KeyError as error:
        raise InputError(f"{run.densities.uri}/{name} lacks the density of {error}") from error
    after = before | _as_of([row for row in scores if row["image_id"] in wanted])
    vouched = set(old_scores.filter(pc.field("status") == "ok")["image_id"].to_pylist())
    if leaving := vouched - set(ok):
        # Readers see them until their rows say that they are gone, and only then is that final.
        kept = set(ok) | leaving
        both = _in_order(old_densities, fresh, [image_id for image_id in ids if image_id in kept])
        if not both.equals(old_densities):
            (run.densities / name).publish(_density_bytes(both))
        so_far = {i: now for i, now in after.items() if i not in leaving}
        (run.scores / name).publish(_score_bytes(merged_scores, so_far))
        old_densities = both
    if not merged_densities.equals(old_densities):
        (run.densities / name).publish(_density_bytes(merged_densities))
    if leaving or not merged_scores.equals(old_scores) or after != before:
        (run.scores / name).publish(_score_bytes(merged_scores, after))


def read_scores(run: Run, shard: int) -> tuple[pa.Table, dict[str, str]]:
    """The scores of a shard that is done, and what their rows are as of (see `shards.plan.as_of`),
    where their images were revised.

    Raises:
        InputError: the file is damaged.
        FileNotFoundError: the shard is not done.
    """
    location = Object(run.scores / shard_name(shard))
    table = read_table(location, run.schema)
    with location.refusing_damage():
        metadata = table.schema.metadata or {}
        return table.replace_schema_metadata(), dict(json.loads(metadata.get(AS_OF, b"{}")))


def _is_newer(row: Mapping[str, Any], before: Mapping[str, str]) -> bool:
    now = row.get("as_of")
    return now is not None and now != before.get(row["image_id"])


def _as_of(scores: Rows) -> dict[str, str]:
    return {row["image_id"]: row["as_of"] for row in scores if row.get("as_of")}


def density_file(densities: Rows) -> bytes:
    """A densities file of rows of DENSITIES."""
    return _density_bytes(pa.Table.from_pylist(list(densities), schema=DENSITIES))


def _rows_of(rows: Rows, wanted: set[str], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist([row for row in rows if row["image_id"] in wanted], schema=schema)


def _in_order(old: pa.Table, new: pa.Table, ids: list[str]) -> pa.Table:
    """A row for each of the images, the new one where there is one."""
    both = pa.concat_tables([old.cast(new.schema), new])
    place = {image_id: row for row, image_id in enumerate(both["image_id"].to_pylist())}
    return both.take(pa.array([place[i] for i in ids], pa.int64())).combine_chunks()


def _score_bytes(table: pa.Table, as_of: Mapping[str, str]) -> bytes:
    if as_of:
        table = table.replace_schema_metadata({AS_OF: json.dumps(as_of, sort_keys=True).encode()})
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
