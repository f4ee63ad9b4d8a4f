"""Which files hold a run's rows: those of its shards, or a few large ones that were made of them.

RUN/compacted/scores.json                               which generation is read; replaced whole
RUN/compacted/scores-<generation>/part-00000.parquet    rows of many shards, sorted by image_id
RUN/compacted/scores-<generation>-shards.parquet        SHARDS: of which shards, as they were

The same for densities. The shards' own files stay: they are what the run is, and the rows of a
shard that came or was mended since are read from them instead.
"""

import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from gazecore.errors import DamagedTable, InputError, one_line
from gazecore.results.files import File, Object, list_files
from gazecore.results.run import Run
from gazecore.results.schema import DENSITIES
from gazecore.shards.directory import DIGEST, ShardedDirectory, digest, shard_numbers
from gazecore.storage import Location
from gazecore.tables import read_table, required

Table = Literal["scores", "densities"]
TABLES: tuple[Table, ...] = ("scores", "densities")

VERSION = 1

OLD = 86_400.0
"""Seconds that a generation is kept, for whoever reads it still, once another is read."""

COMPACTED = re.compile(r"(scores|densities)(\.json|-[0-9a-f]{16}(-shards\.parquet|-sorted)?)")
"""Names of what is compacted, of one generation or another."""

_SHARD = required("shard", pa.int32())
SHARDS = pa.schema(
    [
        _SHARD,
        required("identity", pa.int64()),
        required("rows", pa.int32()),
        required("ends", pa.list_(pa.field("element", pa.string(), nullable=False))),
        required("counts", pa.list_(pa.field("element", pa.int32(), nullable=False))),
    ]
)
"""identity: of the shard's file, see `identity`; ends and counts: how many of its images ended `ok`
and with each error, of scores only."""


@dataclass(frozen=True)
class Compaction:
    """A generation of large files.

    Attributes:
        generation: its name, which tells what it was made of.
        parts: its files, in the order of their rows.
        rows: in all of them.
        shards: what of, schema SHARDS.
    """

    generation: str
    parts: list[File]
    rows: int
    shards: pa.Table

    def identities(self) -> dict[int, int]:
        """The identity of each shard's file, as it was."""
        columns = (self.shards[name].to_pylist() for name in ("shard", "identity"))
        return dict(zip(*columns, strict=True))


@dataclass(frozen=True)
class Sources:
    """The files that hold each row of a table once.

    Attributes:
        parts: large files; empty where there are none, or most is newer.
        outdated: shards of which the parts' rows do not count.
        shards: files of shards that are read beside the parts.
    """

    parts: list[File]
    outdated: list[int]
    shards: list[File]


def part_schema(run: Run, table: Table) -> pa.Schema:
    """What a part holds: the table's columns, and the shard that each row is of."""
    return (run.schema if table == "scores" else DENSITIES).append(_SHARD)


def home(run: ShardedDirectory) -> Location:
    """Where everything that is compacted lies."""
    return run.location / "compacted"


def manifest(run: ShardedDirectory, table: Table) -> Location:
    """The file that says which generation is read."""
    return home(run) / f"{table}.json"


def parts_folder(run: ShardedDirectory, table: Table, generation: str) -> Location:
    """Where the parts of a generation are."""
    return home(run) / f"{table}-{generation}"


def shards_file(run: ShardedDirectory, table: Table, generation: str) -> Location:
    """Which shards a generation was made of."""
    return home(run) / f"{table}-{generation}-shards.parquet"


def shard_files(run: ShardedDirectory, table: Table) -> dict[int, File]:
    """A table's files of shards by their numbers, in order."""
    files = list_files(run.location / table)
    return {number: file for file in files for number in shard_numbers([file.name])}


def identity(file: File) -> int:
    """Tells a shard's file from the one that was there before it was mended: of its size, and its
    ETag or the time that it was written. A copy of a run may have others, and is then read from its
    shards."""
    text = f"{file.size} {file.version}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), signed=True)


def read_compaction(run: ShardedDirectory, table: Table) -> Compaction | None:
    """What is compacted, if anything.

    Raises:
        InputError: the manifest, or the table of shards, is damaged.
    """
    where = manifest(run, table)
    try:
        content = json.loads(Object(where).read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise _damaged(where, one_line(error)) from error
    try:
        if content["version"] != VERSION:
            raise InputError(
                f"{where.uri} has format {content['version']}, this gazecore reads {VERSION}"
            )
        if content[DIGEST] != digest(content):
            raise _damaged(where, "it is not as it was written")
        generation = str(content["generation"])
        folder = parts_folder(run, table, generation)
        parts = [
            File(part["name"], Object(folder / part["name"]), int(part["bytes"]))
            for part in content["parts"]
        ]
        rows = int(content["rows"])
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(where, one_line(error)) from error
    shards = read_table(Object(shards_file(run, table, generation)), SHARDS)
    return Compaction(generation, parts, rows, shards)


def _damaged(where: Location, why: str) -> DamagedTable:
    return DamagedTable(f"{where.uri} cannot be read ({why}): `gazecore compact` makes it anew")


def write_manifest(run: ShardedDirectory, table: Table, compaction: Compaction) -> None:
    """From here on, this is what is read. Everything that it names must be there."""
    content = {
        "version": VERSION,
        "table": table,
        "generation": compaction.generation,
        "folder": f"{table}-{compaction.generation}",
        "rows": compaction.rows,
        "shards": compaction.shards.num_rows,
        "parts": [{"name": part.name, "bytes": part.size} for part in compaction.parts],
    }
    text = json.dumps({**content, DIGEST: digest(content)}, indent=2) + "\n"
    manifest(run, table).publish(text.encode())


def sources(run: ShardedDirectory, table: Table) -> Sources:
    """The files that hold each row of a table once, at any moment, whoever compacts or mends.

    Raises:
        InputError: see `read_compaction`.
    """
    # The manifest first: so each shard that it names is in the listing.
    compaction = read_compaction(run, table)
    files = shard_files(run, table)
    if compaction is None:
        return Sources([], [], list(files.values()))
    compacted = compaction.identities()
    fresh = {n for n, file in files.items() if compacted.get(n) == identity(file)}
    outdated = sorted(compacted.keys() - fresh)
    if len(outdated) > len(fresh):
        return Sources([], [], list(files.values()))
    beside = [file for number, file in files.items() if number not in fresh]
    return Sources(compaction.parts, outdated, beside)


def compacted_counts(
    run: ShardedDirectory, files: Mapping[int, File] | None = None
) -> dict[int, Counter[str]]:
    """Of each compacted shard that is as it was, how its images ended; see `status.error_counts`.

    Raises:
        InputError: see `read_compaction`.
    """
    if (compaction := read_compaction(run, "scores")) is None:
        return {}
    files = files or shard_files(run, "scores")
    return {
        row["shard"]: Counter(dict(zip(row["ends"], row["counts"], strict=True)))
        for row in compaction.shards.to_pylist()
        if row["shard"] in files and identity(files[row["shard"]]) == row["identity"]
    }


def remove_old(run: ShardedDirectory, table: Table, kept: set[str]) -> None:
    """Delete generations that nobody reads any more, and what was begun and never ended.

    One that was read may still be, by who began before the present one: so a day must have passed
    since that was published, and since the files themselves were written.
    """
    now = time.time()
    folder = home(run)
    published = folder.modified().get(manifest(run, table).path.rpartition("/")[2], 0.0)
    folder.remove_temporaries()
    prefix = f"{table}-"
    if now - published < OLD:
        return
    written = folder.modified()
    for name in folder.names():
        place = folder / name
        if not name.startswith(prefix) or name.removeprefix(prefix)[:16] in kept:
            continue
        is_file = name.endswith(".parquet")
        times = {"": written.get(name, now)} if is_file else place.modified()
        if any(now - when < OLD for when in times.values()):
            continue
        for inside in times:
            if is_file or inside.endswith(".parquet"):  # others may have put theirs beside
                (place / inside if inside else place).remove()
        remove_folder(place)


def remove_folder(place: Location) -> None:
    """Of an empty one, where the storage has folders."""
    if place.is_local:
        with suppress(OSError):
            place.fs.rmdir(place.path)
