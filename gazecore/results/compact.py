"""Compaction: the rows of many shards as a few large files, sorted by image_id.

Groups of shards are sorted, a file each; then parts of the range of ids are merged of those. Each
file appears whole, under a name that tells what it was made of, so that the same call goes on where
one was killed; and nothing of it is read until the manifest names it, which is the last step.
"""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from gazecore.cores import cores
from gazecore.errors import InputError, RunFailed, one_line
from gazecore.results.compacted import (
    VERSION,
    Compaction,
    Table,
    home,
    identity,
    part_schema,
    parts_folder,
    read_compaction,
    remove_folder,
    remove_old,
    shard_files,
    shards_file,
    write_manifest,
)
from gazecore.results.counted import count_rows
from gazecore.results.database import database, parquet, said
from gazecore.results.files import READERS, File, list_files, opened
from gazecore.results.run import Run
from gazecore.results.schema import read_densities
from gazecore.shards.plan import plan_parts
from gazecore.steps import Steps, told, uncounted
from gazecore.storage import Location, parquet_bytes
from gazecore.tables import publish_table, read_table
from gazecore.tasks import Tasks, here

GROUP_BYTES = 64 * 2**20
"""Of shards that are sorted together, in memory, where they take some six times that."""

PART_BYTES = 256 * 2**20
"""Of a part, about."""

MEMORY = "1GB"
"""What merging a part takes, before it spills to disk."""

ROWS: dict[Table, int] = {"scores": 131_072, "densities": 8_192}
"""Of a row group."""

_SHRINKS: dict[Table, float] = {"scores": 0.6, "densities": 1.0}
"""What a part takes of its shards' files, as measured."""

_EVERY = 4096
_SAMPLE = b"gazecore.sample"
"""Names the image_id of one row in so many, in a sorted file's metadata."""


Group = list[tuple[int, File]]
"""Shards that are sorted together, by their numbers."""


@dataclass(frozen=True)
class CompactionPlan:
    """What is to be compacted, and how: the same shards make the same plan.

    Attributes:
        run, table: of what.
        generation: digest of all that decides the files.
        groups: of its shards.
    """

    run: Run
    table: Table
    generation: str
    groups: list[Group]

    def alone(self) -> "CompactionPlan":
        """The plan without its groups, which a task has no use for but its own: of 40,000 shards
        they take half a second to read."""
        return replace(self, groups=[])

    @property
    def sorted(self) -> Location:
        """Where the sorted groups are while they are needed."""
        return home(self.run) / f"{self.table}-{self.generation}-sorted"

    @property
    def parts(self) -> Location:
        """Where the parts are."""
        return parts_folder(self.run, self.table, self.generation)


def compact(
    run: Run, table: Table = "scores", steps: Steps = uncounted, tasks: Tasks = here
) -> Compaction:
    """Compact what is there now.

    Shards that come or are mended later are read beside it; the next call takes them in, and makes
    all files anew. What was read before is kept for a day, then the next call deletes it.

    Args:
        run: finished or not.
        table: which.
        steps: how somebody is told.
        tasks: who sorts and merges.

    Raises:
        InputError: nothing is scored yet, or a shard's file is damaged.
        RunFailed: there is no room for temporary files, or what came out is not what went in.
    """
    plan = make_plan(run, table)
    try:
        current = read_compaction(run, table)
    except InputError:
        current = None
    if current and current.generation == plan.generation:
        _remove_groups(plan)  # of who was killed between the manifest and this
        return current
    remove_old(run, table, {plan.generation, *([current.generation] if current else [])})
    try:
        with steps("groups", len(plan.groups)) as on_group:
            sort = partial(sort_group, plan.alone())
            for _ in told(tasks(sort, enumerate(plan.groups)), on_group):
                pass
        groups = sorted_groups(plan)
        bounds = choose_bounds(plan, groups)
        with steps("parts", len(bounds)) as on_part:
            # Each task has a core.
            threads = None if tasks is here else 1
            merge = partial(merge_part, plan.alone(), groups, bounds, threads=threads)
            for _ in told(tasks(merge, range(len(bounds))), on_part):
                pass
        return publish(plan, len(bounds))
    except (duckdb.Error, FileNotFoundError, RunFailed) as error:
        # Another process may have been faster, and have deleted what it needs no longer.
        current = read_compaction(run, table)
        if current and current.generation == plan.generation:
            return current
        why = said(error) if isinstance(error, duckdb.Error) else one_line(error)
        raise RunFailed(
            f"{table} were not compacted: {why}; if the same call does not mend it, "
            f"delete {home(run).uri}, which holds copies only"
        ) from error


def make_plan(run: Run, table: Table) -> CompactionPlan:
    """Which shards are done, in groups. Raises InputError where none is."""
    files = shard_files(run, table)
    if not files:
        raise InputError(f"{run.location.uri}/{table} holds nothing yet")
    made_by = (VERSION, GROUP_BYTES, PART_BYTES, _EVERY, pa.__version__, duckdb.__version__)
    state = hashlib.sha256(f"{table} {made_by}".encode())
    groups: list[Group] = [[]]
    held = 0
    for number, file in files.items():
        state.update(f" {number}:{identity(file)}".encode())
        if groups[-1] and held + file.size > GROUP_BYTES:
            groups.append([])
            held = 0
        groups[-1].append((number, file))
        held += file.size
    return CompactionPlan(run, table, state.hexdigest()[:16], groups)


def sort_group(plan: CompactionPlan, numbered: tuple[int, Group]) -> None:
    """Publish a group's rows, sorted by image_id, unless they are there already.

    Args:
        plan: of which.
        numbered: its number, and the group.

    Raises:
        InputError: a shard's file is damaged.
    """
    number, group = numbered
    where = plan.sorted / f"group-{number:05d}.parquet"
    if where.exists():
        return

    def read(shard: tuple[int, File]) -> pa.Table:
        location = shard[1].object
        rows = (
            read_densities(location)
            if plan.table == "densities"
            else read_table(location, plan.run.schema)
        )
        return rows.append_column("shard", pa.array([shard[0]] * rows.num_rows, pa.int32()))

    with ThreadPoolExecutor(READERS) as pool:
        table = pa.concat_tables(list(pool.map(read, group)))
    table = table.combine_chunks().sort_by("image_id").cast(part_schema(plan.run, plan.table))
    sample = table["image_id"].to_pylist()[::_EVERY]
    table = table.replace_schema_metadata({_SAMPLE: json.dumps(sample).encode()})
    where.publish(
        parquet_bytes(table, row_group_size=ROWS[plan.table] // 4, **_options(plan.table))
    )


def choose_bounds(plan: CompactionPlan, groups: Sequence[File]) -> list[str]:
    """The smallest image_id of each part of the sorted groups; the first is empty."""
    sample: list[str] = []
    for file in groups:
        with opened(file) as footer:
            sample += json.loads(pq.read_metadata(footer).metadata[_SAMPLE])
    sample.sort(key=str.encode)
    # By what the generation tells, not by what the groups take: whoever goes on cuts alike.
    size = sum(file.size for group in plan.groups for _, file in group)
    count = max(1, round(size * _SHRINKS[plan.table] / PART_BYTES))
    places = [len(sample) * part // count for part in range(1, count)]
    return ["", *dict.fromkeys(sample[place] for place in places if sample[place])]


def sorted_groups(plan: CompactionPlan) -> list[File]:
    """All of them: less would make parts with holes. Raises FileNotFoundError where one is gone."""
    files = list_files(plan.sorted)
    if len(files) != len(plan.groups):
        raise FileNotFoundError(f"{plan.sorted.uri} lacks one of its files")
    return files


def merge_part(
    plan: CompactionPlan,
    groups: Sequence[File],
    bounds: Sequence[str],
    number: int,
    threads: int | None = None,
) -> None:
    """Publish a part of the range of ids of all sorted groups, unless it is there already."""
    where = plan.parts / f"part-{number:05d}.parquet"
    if where.exists():
        return
    wanted, values = "image_id >= ?", [*bounds[number : number + 2]]
    if len(values) > 1:
        wanted += " AND image_id < ?"
    schema, rows = part_schema(plan.run, plan.table), ROWS[plan.table]
    with database({"sorted": groups}, memory_limit=MEMORY, threads=cores(threads)) as db:
        sql = f"FROM {parquet('sorted')} WHERE {wanted} ORDER BY image_id"
        batches = db.sql(sql, params=values).to_arrow_reader(rows)
        options = {"write_page_checksum": True, **_options(plan.table)}
        with where.staged() as path, pq.ParquetWriter(path, schema, **options) as file:
            for batch in batches:
                file.write_table(pa.Table.from_batches([batch]).cast(schema), row_group_size=rows)


def _options(table: Table) -> dict[str, Any]:
    options: dict[str, Any] = {
        "compression": "zstd",
        "write_page_index": True,
        "sorting_columns": [pq.SortingColumn(0)],
        "use_dictionary": ["status", "error", "height", "width"],
    }
    if table == "densities":
        options["use_dictionary"] = ["height", "width", "grid_height", "grid_width"]
        options["column_encoding"] = {"log_density.list.element": "DELTA_BINARY_PACKED"}
    return options


def publish(plan: CompactionPlan, count: int) -> Compaction:
    """Have the parts read, if they hold all the rows of their shards, and nothing else.

    Args:
        plan: what was to be done.
        count: of parts.

    Raises:
        RunFailed: they do not.
    """
    names = {f"part-{number:05d}.parquet" for number in range(count)}
    parts = [file for file in list_files(plan.parts) if file.name in names]
    identities = {number: identity(file) for group in plan.groups for number, file in group}
    shards = count_rows(parts, identities, ended=plan.table == "scores")
    expected = _rows_expected(plan)
    found = dict(zip(shards["shard"].to_pylist(), shards["rows"].to_pylist(), strict=True))
    if found != expected:
        wrong = [
            n for n in sorted(expected.keys() | found.keys()) if expected.get(n) != found.get(n)
        ]
        rows = f"{found.get(wrong[0], 0)} rows of shard {wrong[0]}"
        raise RunFailed(f"{plan.parts.uri} holds {rows}, not {expected.get(wrong[0], 0)}")
    publish_table(shards_file(plan.run, plan.table, plan.generation), shards)
    made = Compaction(plan.generation, parts, sum(found.values()), shards)
    write_manifest(plan.run, plan.table, made)
    _remove_groups(plan)
    return made


def _remove_groups(plan: CompactionPlan) -> None:
    for file in list_files(plan.sorted):
        file.object.remove()
    remove_folder(plan.sorted)


def _rows_expected(plan: CompactionPlan) -> dict[int, int]:
    """How many rows each shard has: as many as are planned, of scores, or as were read."""
    numbers = [number for group in plan.groups for number, _ in group]
    if plan.table == "scores":
        planned = {
            number: int(size)
            for part in plan_parts(plan.run)
            for number, size in enumerate(part.sizes, start=part.first_shard)
        }
        return {number: planned.get(number, 0) for number in numbers}
    with database({"sorted": sorted_groups(plan)}) as db:
        sql = f"SELECT shard, count(*) FROM {parquet('sorted')} GROUP BY shard"
        return dict.fromkeys(numbers, 0) | dict(db.sql(sql).fetchall())
