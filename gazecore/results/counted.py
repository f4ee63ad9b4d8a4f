"""What large files hold of each shard."""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from gazecore.results.compacted import SHARDS
from gazecore.results.database import database, parquet
from gazecore.results.files import File
from gazecore.shards.tally import OK


def count_rows(parts: Sequence[File], identities: Mapping[int, int], *, ended: bool) -> pa.Table:
    """How many rows of each shard files hold, and how its images ended.

    Args:
        parts: the files, with a column `shard`.
        identities: of the shards' own files, of those too of which no row may be here.
        ended: they are scores, which say so.

    Returns:
        Schema SHARDS, by the shards' numbers, and a shard's `ends` by name: the same rows make the
        same table.
    """
    end = f"coalesce(error, '{OK}')" if ended else "NULL"
    with database({"parts": parts}) as db:
        counted = db.sql(
            "SELECT shard, sum(n)::INT AS rows, "
            "list(ended ORDER BY ended) FILTER (ended IS NOT NULL) AS ends, "
            "list(n ORDER BY ended) FILTER (ended IS NOT NULL) AS counts FROM ("
            f"SELECT shard, {end} AS ended, count(*)::INT AS n FROM {parquet('parts')} GROUP BY ALL"
            ") GROUP BY shard ORDER BY shard"
        ).fetchall()
    none = (0, None, None)  # of shards all of whose images failed
    found = dict.fromkeys(identities, none) | {n: tuple(of) for n, *of in counted}
    rows = [
        {
            "shard": shard,
            "identity": identities.get(shard, 0),
            "rows": rows,
            "ends": ends or [],
            "counts": counts or [],
        }
        for shard, (rows, ends, counts) in sorted(found.items())
    ]
    return pa.Table.from_pylist(rows, schema=SHARDS)
