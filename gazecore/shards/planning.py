"""Making the plan: an input's images, sorted out and cut into shards."""

import errno
import itertools
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from gazecore.cores import cores
from gazecore.errors import InputError, RunFailed, RunMismatch, one_line
from gazecore.images.listing import LISTED
from gazecore.shards import revising
from gazecore.shards.directory import ShardedDirectory
from gazecore.shards.plan import FIRST, KEPT, plan_parts, require_plan, schema_with
from gazecore.storage import parquet_bytes

SHARDS_PER_PART = 256

SHARD_SIZE, SMALL_SHARD_SIZE, SMALL = 256, 16, 4096
"""Images per shard where nobody said how many; those of an input of at most SMALL images, so that
an interruption costs it little; and that number."""

DATABASE: dict[str, str | bool | int | float | list[str]] = {"memory_limit": "256MB"}
"""Sorting out duplicates spills to disk beyond this."""

_THREADS = 2  # each needs memory of its own


@dataclass(frozen=True)
class PlanSummary:
    """How much is planned: images and shards in all, and images that this planning added; and how
    many of those that have a row were overwritten since they were planned, and how many planned
    ones are no longer in the input."""

    images: int
    shards: int
    added: int
    changed: int = 0
    gone: int = 0


def choose_shard_size(
    listing: Iterator[pa.RecordBatch], limit: int | None = None
) -> tuple[int, Iterator[pa.RecordBatch]]:
    """Images per shard for a new plan, by a look at the listing's first images; and the listing.

    Args:
        listing, limit: see `update_plan`.
    """
    seen, count = [], 0
    while count <= SMALL and (batch := next(listing, None)) is not None:
        seen.append(batch)
        count += batch.num_rows
    is_small = min(count, count if limit is None else limit) <= SMALL
    return SMALL_SHARD_SIZE if is_small else SHARD_SIZE, itertools.chain(seen, listing)


def update_plan(
    planned: ShardedDirectory,
    listing: Iterator[pa.RecordBatch],
    limit: int | None = None,
    revise: Callable[[int, int], None] | None = None,
    done: Collection[int] | None = None,
    retried: Collection[str] = (),
) -> PlanSummary:
    """Bring the plan up to date with the input.

    Memory is bounded: the listing is spooled to a local temporary file, and duplicates and known
    images are sorted out by DuckDB, which spills to disk.

    Args:
        planned: the directory.
        listing: batches of `images.listing.LISTED`.
        limit: take the listing's first images only.
        revise: note in the plan which images changed, and which are gone; it is told how many
            before. None: of shards that are not done only, and none as gone.
        done: shards; None: those of the directory.
        retried: image ids that are taken up again in any case, like those of shards not done.

    Raises:
        InputError: one image_id stands for two URIs.
        RunFailed: there is no room for temporary files.
    """
    known = plan_parts(planned)
    done = planned.shards_done() if done is None else done
    require_plan(planned, known, done)
    images = sum(part.images for part in known)
    next_shard = known[-1].first_shard + known[-1].shards if known else 0
    before = images
    with tempfile.TemporaryDirectory(prefix="gazecore-plan-") as folder, _room_in(folder):
        _spool(listing, f"{folder}/listed.parquet", limit)
        with duckdb.connect(
            config=DATABASE | {"threads": cores(_THREADS), "temp_directory": folder}
        ) as db:
            listed = f"read_parquet('{folder}/listed.parquet', file_row_number = true)"
            revising.know(db, known, done, retried)
            _refuse_conflicts(db, listed)
            changed, gone = revising.compare(db, listed, is_whole=limit is None)
            if revise and changed + gone:
                revise(changed, gone)
            revising.revise(db, known, planned.shard_size, everything=revise is not None)
            new = db.sql(
                "SELECT image_id, uri, first(size) AS size, first(version) AS version, "
                "first(kept) AS kept "
                f"FROM {listed} ANTI JOIN known USING (image_id) "
                "GROUP BY image_id, uri ORDER BY min(file_row_number)"
            ).to_arrow_reader(100_000)
            pieces = _exactly(new, planned.shard_size * SHARDS_PER_PART)
            for number, rows in enumerate(pieces, start=len(known)):
                next_shard += _write_part(planned, number, next_shard, rows)
                images += rows.num_rows
    return PlanSummary(images, next_shard, images - before, changed, gone)


@contextmanager
def _room_in(folder: str) -> Iterator[None]:
    try:
        yield
    except (duckdb.Error, OSError) as error:
        # An error of any other file bears that file's name.
        if isinstance(error, OSError) and (error.errno != errno.ENOSPC or error.filename):
            raise
        raise RunFailed(
            f"planning found no room for temporary files in {folder}: {one_line(error)}; "
            "set TMPDIR to a folder with more"
        ) from error


def _spool(listing: Iterator[pa.RecordBatch], path: str, limit: int | None) -> None:
    left = limit
    with pq.ParquetWriter(path, LISTED, compression="zstd") as writer:
        for batch in listing:
            piece = batch if left is None else batch.slice(0, min(left, batch.num_rows))
            writer.write_batch(piece)
            if left is not None:
                left -= piece.num_rows
                if left == 0:
                    break


def _refuse_conflicts(db: duckdb.DuckDBPyConnection, listed: str) -> None:
    conflict = db.execute(
        "SELECT image_id, min(uri), max(uri) FROM "
        f"(SELECT image_id, uri FROM {listed} UNION ALL SELECT image_id, uri FROM known) "
        "GROUP BY image_id HAVING min(uri) <> max(uri) ORDER BY image_id LIMIT 1"
    ).fetchone()
    if conflict:
        raise InputError(
            f"image_id {conflict[0]!r} stands for two images, {conflict[1]} and {conflict[2]}: "
            "give each image its own id"
        )


def _exactly(batches: pa.RecordBatchReader, rows: int) -> Iterator[pa.Table]:
    """Tables of exactly `rows` rows, but for the last."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        while sum(b.num_rows for b in held) >= rows:
            table = pa.Table.from_batches(held)
            yield table.slice(0, rows)
            held = table.slice(rows).to_batches()
    if sum(b.num_rows for b in held):
        yield pa.Table.from_batches(held)


def _write_part(planned: ShardedDirectory, number: int, first_shard: int, rows: pa.Table) -> int:
    """Write part `number`; returns how many shards it has."""
    size = planned.shard_size
    count: int = -(-rows.num_rows // size)
    numbers = [first_shard + i // size for i in range(rows.num_rows)]
    table = rows.append_column("shard", pa.array(numbers, pa.int32()))
    schema = schema_with([KEPT.name] if rows["kept"].null_count < rows.num_rows else [])
    table = table.select(schema.names).cast(schema)
    table = table.replace_schema_metadata({FIRST: str(first_shard).encode()})
    data = parquet_bytes(table, row_group_size=size)
    location = planned.plan / f"part-{number:05d}.parquet"
    try:
        location.publish(data, create=True)
    except FileExistsError:
        # The same rows are as good as ours, and may be: the answer to the first PUT can be lost.
        if location.read_bytes() != data:
            raise RunMismatch(
                f"another process is planning {planned.location.uri}: wait for it, then run this "
                "again"
            ) from None
    return count
