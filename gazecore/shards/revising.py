"""Planned images that changed: the plan beside a newer listing of its input.

What a listing says of an image is its size and its version (ETag or modification time; of a member
of a container the container's). Where either is another than was planned, the image was
overwritten; where a whole listing lacks it, it is gone. No image is asked for.
"""

from collections.abc import Collection, Sequence

import duckdb
import pyarrow as pa

from gazecore.shards.plan import CHANGED, FIRST, GONE, PlanPart, schema_with
from gazecore.storage import parquet_bytes

_KNOWN = (
    "image_id VARCHAR, uri VARCHAR, size BIGINT, version VARCHAR, became VARCHAR, done BOOLEAN, "
    "part INT"
)


def know(
    db: duckdb.DuckDBPyConnection,
    parts: Sequence[PlanPart],
    done: Collection[int],
    retried: Collection[str],
) -> None:
    """Fill the table `known` with the planned images, a part at a time; see `update_plan`."""
    db.execute(f"CREATE TABLE known ({_KNOWN})")
    db.register("finished", pa.table({"shard": pa.array(sorted(done), pa.int32())}))
    db.register("retried", pa.table({"image_id": pa.array(list(retried), pa.string())}))
    for number, part in enumerate(parts):
        db.register("part", read_part(part))
        db.execute(
            f"INSERT INTO known SELECT image_id, uri, size, version, became, "
            f"shard IN (FROM finished) AND image_id NOT IN (FROM retried), {number} FROM part"
        )


def read_part(part: PlanPart) -> pa.Table:
    """All of a part, schema REVISED, and KEPT if it has it. Raises DamagedTable."""
    table = part.location.read_table()
    with part.location.refusing_damage():
        schema = schema_with(["became", *table.column_names])
        if "became" not in table.column_names:
            table = table.append_column("became", pa.nulls(table.num_rows, pa.string()))
        return table.select(schema.names).replace_schema_metadata().cast(schema)


def compare(db: duckdb.DuckDBPyConnection, listed: str, is_whole: bool) -> tuple[int, int]:
    """Fill the table `revised` with the planned images that are not as they were.

    One that has no row yet, or one that is retried, is as if it had been planned like this: its
    `became` stays null.

    Args:
        db: with the table `known`.
        listed: what reads the listing, in SQL.
        is_whole: it is not cut short, so that what it lacks is gone.

    Returns:
        How many changed of those in shards that are done, and how many are gone.
    """
    db.execute(
        "CREATE TABLE revised AS SELECT image_id, part, done, now.size AS size, "
        "now.version AS version, "
        f"CASE WHEN done OR known.became IS NOT NULL THEN '{CHANGED}' END AS became FROM known "
        "JOIN (SELECT image_id, first(size) AS size, first(version) AS version "
        f"FROM {listed} GROUP BY image_id) now USING (image_id) "
        f"WHERE known.became = '{GONE}' OR now.size <> known.size OR now.version <> known.version"
    )
    if is_whole:
        db.execute(
            f"INSERT INTO revised SELECT image_id, part, done, size, version, '{GONE}' FROM known "
            f"ANTI JOIN {listed} listed USING (image_id) WHERE became IS DISTINCT FROM '{GONE}'"
        )
    counts = dict(
        db.execute(
            f"SELECT became, count(*) FROM revised WHERE done OR became = '{GONE}' GROUP BY 1"
        ).fetchall()
    )
    return counts.get(CHANGED, 0), counts.get(GONE, 0)


def revise(
    db: duckdb.DuckDBPyConnection, parts: Sequence[PlanPart], shard_size: int, everything: bool
) -> None:
    """Replace the parts that hold images of the table `revised`, each as a whole.

    Args:
        db: with that table.
        parts: all of the plan that the table is of.
        shard_size: images per shard.
        everything: False: only what changed and will be scored as it is now in any case.
    """
    if not everything:
        db.execute(f"DELETE FROM revised WHERE done OR became = '{GONE}'")
    touched = db.execute("SELECT DISTINCT part FROM revised ORDER BY 1").fetchall()
    for (number,) in touched:
        part = parts[number]
        rows = read_part(part)
        db.register("old", rows.append_column("place", pa.array(range(rows.num_rows))))
        newer = ", ".join(
            f"CASE WHEN r.image_id IS NULL THEN old.{name} ELSE r.{name} END AS {name}"
            for name in ("size", "version", "became")
        )
        merged: pa.Table = db.sql(
            f"SELECT old.* REPLACE ({newer}) FROM old "
            "LEFT JOIN (FROM revised WHERE part = ?) r USING (image_id) ORDER BY place",
            params=[number],
        ).to_arrow_table()
        is_as_planned = merged["became"].null_count == merged.num_rows
        schema = schema_with(
            [name for name in merged.column_names if name != "became" or not is_as_planned]
        )
        table = merged.select(schema.names).cast(schema)
        table = table.replace_schema_metadata({FIRST: str(part.first_shard).encode()})
        part.location.publish(parquet_bytes(table, row_group_size=shard_size))
