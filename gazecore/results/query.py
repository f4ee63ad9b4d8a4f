"""SQL over a run directory, read-only."""

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import duckdb
import pyarrow as pa

from gazecore.errors import InputError, one_line
from gazecore.results.database import confine, database, parquet
from gazecore.results.objects import list_files
from gazecore.results.run import Run
from gazecore.storage import Location

VIEWS = ("scores", "densities", "plan")

_READING = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}

_EXPLAIN = re.compile(r"(\s|--.*\n|/\*(.|\n)*?\*/)*EXPLAIN\b(\s*ANALYZE\b|\s*\([^)]*\))?", re.I)


_READERS = {
    "csv": "read_csv", "tsv": "read_csv", "parquet": "read_parquet",
    "json": "read_json", "jsonl": "read_json", "ndjson": "read_json",
}  # fmt: skip


def query(run: Run, sql: str, joined: Mapping[str, str] = {}) -> pa.Table:
    """Run one query over the views `scores`, `densities` and `plan`.

    Only statements that read are taken, and they see no other file, of this machine or of any
    storage that the caller has keys for. What does not fit in memory is spilled to a temporary
    directory.

    Args:
        run: finished or not, on local disk or on any fsspec storage.
        sql: one SELECT in DuckDB's SQL (or VALUES, PIVOT, DESCRIBE, SUMMARIZE, SHOW), or EXPLAIN
            before one.
        joined: more tables by their names: paths or URIs of CSV, TSV, Parquet or JSON files. Each
            is read once, before the query; its column `image_id`, if it has one, as text.

    Raises:
        InputError: the SQL is wrong or would write, a file is damaged, or nothing has been scored.
    """
    for name in joined:
        if not re.fullmatch(r"[A-Za-z_]\w*", name) or name.lower() in VIEWS:
            raise InputError(f"a table of your own cannot be called {name!r}: use another word")
    folders = {view: list_files(run.location / view) for view in VIEWS}
    for view, files in folders.items():
        if not files:
            raise InputError(f"{run.location.uri}/{view} holds nothing yet")
    with database(folders) as db:
        try:
            for view in VIEWS:
                db.execute(f"CREATE VIEW {view} AS FROM {parquet(view)}")
            for name, uri in joined.items():
                _load(db, name, Location(uri))
            confine(db)
            if not _only_reads(db, sql):
                raise InputError("a query is one SELECT: run directories are only read")
            return db.sql(sql).to_arrow_table()
        except duckdb.Error as error:
            raise InputError(f"the query failed: {one_line(error)}") from error


def _load(db: duckdb.DuckDBPyConnection, name: str, location: Location) -> None:
    """Make a table of a file."""
    suffix = re.sub(r"\.(gz|zst)$", "", location.path.lower()).rpartition(".")[2]
    if suffix not in _READERS:
        raise InputError(f"{location.uri} is none of {', '.join(sorted(_READERS))}")
    with tempfile.TemporaryDirectory(prefix="gazecore-query-") as folder:
        path = location.path
        if not location.is_local:
            path = f"{folder}/{path.rpartition('/')[2]}"
            try:
                location.fs.get_file(location.path, path)
            except FileNotFoundError:
                raise InputError(f"{location.uri} is not there") from None
        # What glob patterns mean is escaped.
        path = re.sub(r"([\[*?])", r"[\1]", path).replace("'", "''")
        arguments = f"'{path}'"
        try:
            columns = db.sql(f"FROM {_READERS[suffix]}({arguments})").columns
            [ids] = [c for c in columns if c.lower() == "image_id"] or [""]
            if ids and _READERS[suffix] == "read_csv":  # 007 is no number there
                arguments += f", types = {{'{ids}': 'VARCHAR'}}"
            as_text = f"REPLACE ({ids}::VARCHAR AS {ids})" if ids else ""
            source = f"{_READERS[suffix]}({arguments})"
            db.execute(f'CREATE TABLE "{name}" AS SELECT * {as_text} FROM {source}')
        except duckdb.Error as error:
            raise InputError(
                f"{location.uri} is not a readable table: {one_line(error)}"
            ) from error


def _only_reads(db: duckdb.DuckDBPyConnection, sql: str) -> bool:
    """Whether `sql` is one statement all of whose parts read: a SELECT may hold a COPY.

    It is for the message: what is not seen here finds nothing that it could write to.
    """
    statements = db.extract_statements(sql)
    if len(statements) != 1:
        return False
    if explained := _EXPLAIN.match(sql):
        return _only_reads(db, sql[explained.end() :])
    if statements[0].type == duckdb.StatementType.MULTI:
        return True  # a PIVOT whose columns are looked up first, which has no parsed form
    [(text,)] = db.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()
    tree = json.loads(text)
    return not tree["error"] and set(_nodes(tree)) <= _READING


def _nodes(tree: Any) -> Iterator[str]:
    """The kinds of all query nodes in a parsed statement."""
    if isinstance(tree, dict):
        if str(tree.get("type")).endswith("_NODE"):
            yield tree["type"]
        tree = list(tree.values())
    if isinstance(tree, list):
        for part in tree:
            yield from _nodes(part)
