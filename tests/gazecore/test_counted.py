import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gazecore.results.compacted import SHARDS
from gazecore.results.counted import count_rows
from gazecore.results.files import list_files
from gazecore.storage import Location

ENDS = [None, "not_found", "decode_error", "too_large", "storage_error"]


def test_the_same_rows_make_the_same_table_in_whatever_order(tmp_path: Path) -> None:
    rows = [{"shard": n % 7, "error": ENDS[n * n % 5]} for n in range(700)]
    rows += [{"shard": 7, "error": None}]
    schema = pa.schema([("shard", pa.int32()), ("error", pa.string())])
    identities = {shard: 100 + shard for shard in (*range(8), 9)}
    tables = []
    for seed in range(5):
        random.Random(seed).shuffle(rows)
        folder = tmp_path / str(seed)
        folder.mkdir()
        for part in range(3):
            table = pa.Table.from_pylist(rows[part::3], schema)
            pq.write_table(table, folder / f"{part}.parquet", row_group_size=20)
        tables.append(count_rows(list_files(Location(str(folder))), identities, ended=True))
    assert tables[0].schema == SHARDS
    assert all(table.equals(tables[0]) for table in tables)
    found = {row["shard"]: row for row in tables[0].to_pylist()}
    assert list(found) == sorted(identities)
    for shard, row in found.items():
        ends = [r["error"] or "ok" for r in rows if r["shard"] == shard]
        expected = {end: ends.count(end) for end in sorted(set(ends))}
        assert dict(zip(row["ends"], row["counts"], strict=True)) == expected
        assert row["ends"] == sorted(expected)
        assert (row["rows"], row["identity"]) == (len(ends), identities[shard])
    bare = count_rows(list_files(Location(str(tmp_path / "0"))), identities, ended=False)
    assert bare["rows"].to_pylist() == tables[0]["rows"].to_pylist()
    assert bare["ends"].to_pylist() == [[]] * len(identities)
