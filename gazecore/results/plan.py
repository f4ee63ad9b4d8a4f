"""The plan: every input image once, cut into shards.

Parts are written one after the other and never changed. A part's Parquet row groups are its shards,
in order; its metadata says which shard is the first. Planning again over the same input appends the
images that are new, in new shards, so a plan whose making was interrupted is simply made again.
"""

import errno
import itertools
import re
import tempfile
from collections.abc import Callable, Collection, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gazecore.cores import cores
from gazecore.errors import DamagedTable, InputError, RunFailed, RunMismatch, one_line
from gazecore.images.listing import LISTED
from gazecore.results.directory import ShardedDirectory
from gazecore.results.schema import PLAN, read_table
from gazecore.storage import Location, parquet_bytes

SHARDS_PER_PART = 256

SHARD_SIZE, SMALL_SHARD_SIZE, SMALL = 256, 16, 4096
"""Images per shard where nobody said how many; those of an input of at most SMALL images, so that
an interruption costs it little; and that number."""

DATABASE: dict[str, str | bool | int | float | list[str]] = {"memory_limit": "256MB"}
"""Sorting out duplicates spills to disk beyond this."""

_THREADS = 2  # each needs memory of its own

_FIRST = b"gazecore.first_shard"
_PART = re.compile(r"part-\d+\.parquet")


@dataclass(frozen=True)
class Shard:
    """A slice of the plan.

    Attributes:
        number: in the plan.
        images: its rows, schema PLAN.
        is_part: it is done, and `images` are just those that are to be tried again.
    """

    number: int
    images: pa.Table
    is_part: bool = False


@dataclass(frozen=True)
class PlanSummary:
    """How much is planned: images and shards in all, and images that this planning added."""

    images: int
    shards: int
    added: int


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
    planned: ShardedDirectory, listing: Iterator[pa.RecordBatch], limit: int | None = None
) -> PlanSummary:
    """Bring the plan up to date with the input.

    Memory is bounded: the listing is spooled to a local temporary file, and duplicates and known
    images are sorted out by DuckDB, which spills to disk.

    Args:
        planned: the directory.
        listing: batches of `images.listing.LISTED`.
        limit: take the listing's first images only.

    Raises:
        InputError: one image_id stands for two URIs.
        RunFailed: there is no room for temporary files.
    """
    known = plan_parts(planned)
    require_plan(planned, known, planned.shards_done())
    images = sum(part.images for part in known)
    next_shard = known[-1].first_shard + known[-1].shards if known else 0
    before = images
    with tempfile.TemporaryDirectory(prefix="gazecore-plan-") as folder, _room_in(folder):
        _spool(listing, f"{folder}/listed.parquet", limit)
        with duckdb.connect(
            config=DATABASE | {"threads": cores(_THREADS), "temp_directory": folder}
        ) as db:
            listed = f"read_parquet('{folder}/listed.parquet', file_row_number = true)"
            db.execute("CREATE TABLE known (image_id VARCHAR, uri VARCHAR)")
            for part in known:
                db.register("part", read_table(part.location, PLAN, ["image_id", "uri"]))
                db.execute("INSERT INTO known FROM part")
            _refuse_conflicts(db, listed)
            new = db.sql(
                "SELECT image_id, uri, first(size) AS size, first(version) AS version "
                f"FROM {listed} ANTI JOIN known USING (image_id) "
                "GROUP BY image_id, uri ORDER BY min(file_row_number)"
            ).to_arrow_reader(100_000)
            pieces = _exactly(new, planned.shard_size * SHARDS_PER_PART)
            for number, rows in enumerate(pieces, start=len(known)):
                next_shard += _write_part(planned, number, next_shard, rows)
                images += rows.num_rows
    return PlanSummary(images, next_shard, images - before)


@dataclass(frozen=True)
class PlanPart:
    """One file of the plan: where it is, its first shard, and the images in each of its shards."""

    location: Location
    first_shard: int
    sizes: np.ndarray

    @property
    def shards(self) -> int:
        """Number of shards."""
        return len(self.sizes)

    @property
    def images(self) -> int:
        """Number of images."""
        return int(self.sizes.sum())


def plan_parts(planned: ShardedDirectory) -> list[PlanPart]:
    """The files of the plan, in order; their footers are read, not their rows.

    Raises:
        InputError: one of them is damaged.
    """
    parts = [plan_part(planned.plan / name) for name in part_names(planned)]
    parts.sort(key=lambda part: part.first_shard)
    ends = np.cumsum([0, *(part.shards for part in parts)], dtype=int)
    if [part.first_shard for part in parts] != ends[:-1].tolist():
        raise InputError(f"{planned.plan.uri} lacks one of its parts")
    return parts


def part_names(planned: ShardedDirectory) -> list[str]:
    """Names of the plan's files, in order."""
    return [name for name in planned.plan.names() if _PART.fullmatch(name)]


def plan_part(location: Location) -> PlanPart:
    """One file of the plan, by its footer. Raises DamagedTable."""
    for attempt in location.reads():
        with attempt, location.fs.open(location.path, "rb") as file:
            try:
                metadata = pq.read_metadata(file)
                first = int(metadata.metadata[_FIRST])
                groups = range(metadata.num_row_groups)
                sizes = np.array([metadata.row_group(g).num_rows for g in groups], dtype=np.int32)
                if first < 0 or (sizes < 0).any():
                    raise ValueError("its shards are no numbers")
            except Exception as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise  # of the storage, not of the bytes
                raise DamagedTable(f"{location.uri} is damaged: {one_line(error)}") from error
    return PlanPart(location, first, sizes)


def require_plan(
    planned: ShardedDirectory, parts: Sequence[PlanPart], done: Collection[int]
) -> None:
    """Refuse results that the plan does not name: to plan anew would do images twice.

    Raises:
        InputError: shards are done that no part of the plan holds.
    """
    count = sum(part.shards for part in parts)
    if strangers := sum(number >= count for number in done):
        raise InputError(
            f"{planned.location.uri} has results of {strangers:,} shards that its plan does not "
            "hold: files of its plan are gone; put them back, or use another --out"
        )


def images_in(planned: ShardedDirectory, numbers: Container[int]) -> int:
    """How many images these shards hold."""
    return count_images(plan_parts(planned), numbers)


def count_images(parts: list[PlanPart], numbers: Container[int]) -> int:
    """How many images these shards of a plan hold."""
    return sum(
        int(size)
        for part in parts
        for number, size in enumerate(part.sizes, start=part.first_shard)
        if number in numbers
    )


def shards(
    planned: ShardedDirectory,
    wanted: Callable[[int], bool] = lambda _: True,
    backwards: bool = False,
) -> Iterator[Shard]:
    """The shards of the plan in order; only parts and row groups that are wanted are read.

    Args:
        planned: the directory.
        wanted: by its number, whether a shard is.
        backwards: from the last to the first.
    """
    step = -1 if backwards else 1
    for part in plan_parts(planned)[::step]:
        numbers = range(part.first_shard, part.first_shard + part.shards)
        if not any(wanted(number) for number in numbers):
            continue
        read = part_reader(part)
        yield from (read(number) for number in numbers[::step] if wanted(number))


def part_reader(part: PlanPart) -> Callable[[int], Shard]:
    """Read a file of the plan; returns what gives a shard of it by its number.

    Both raise DamagedTable where what they read is damaged.
    """
    file = part.location.read_parquet(lambda file: file)

    def read(number: int) -> Shard:
        with part.location.refusing_damage():
            images = file.read_row_group(number - part.first_shard, use_threads=False)
            if images.schema.types != PLAN.types or images.schema.names != PLAN.names:
                raise ValueError(f"its columns are {images.schema}")
        return Shard(number, images)

    return read


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
        f"(SELECT image_id, uri FROM {listed} UNION ALL FROM known) GROUP BY image_id "
        "HAVING min(uri) <> max(uri) ORDER BY image_id LIMIT 1"
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
    table = rows.append_column("shard", pa.array(numbers, pa.int32())).cast(PLAN)
    table = table.replace_schema_metadata({_FIRST: str(first_shard).encode()})
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
