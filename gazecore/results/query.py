"""SQL over a run directory, read-only."""

import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import duckdb
import pyarrow as pa

from gazecore.errors import InputError
from gazecore.results.compacted import Sources, Table, sources
from gazecore.results.database import confine, database, parquet, said
from gazecore.results.files import File, list_files
from gazecore.results.run import Run
from gazecore.results.schema import DENSITIES, PEAK
from gazecore.shards.plan import PLAN
from gazecore.storage import Location

VIEWS: tuple[Literal["scores", "densities", "plan"], ...] = ("scores", "densities", "plan")

_TYPES = {
    "string": "VARCHAR", "int16": "SMALLINT", "int32": "INTEGER", "int64": "BIGINT",
    "float": "FLOAT", "double": "DOUBLE", "list<element: int16 not null>": "SMALLINT[]",
    f"list<element: {PEAK}>": "STRUCT(x FLOAT, y FLOAT, height FLOAT, share FLOAT)[]",
}  # fmt: skip

_READING = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}

_EXPLAIN = re.compile(r"(\s|--.*\n|/\*(.|\n)*?\*/)*EXPLAIN\b(\s*ANALYZE\b|\s*\([^)]*\))?", re.I)


_TRIES = 4
_OF_THE_SQL = (
    duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException,
    duckdb.PermissionException,
)  # fmt: skip

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
    for _ in range(_TRIES - 1):
        folders, views = _tables(run, sql)
        try:
            return _ask(folders, views, sql, joined)
        except duckdb.Error as error:
            # A shard that is mended while it is read has another footer than bytes.
            if isinstance(error, _OF_THE_SQL) or _versions(folders) == _versions(
                _tables(run, sql)[0]
            ):
                raise InputError(f"the query failed: {said(error)}") from error
    try:
        return _ask(*_tables(run, sql), sql, joined)
    except duckdb.Error as error:
        raise InputError(f"the query failed: {said(error)}") from error


def _ask(
    folders: Mapping[str, Sequence[File]],
    views: Mapping[str, str],
    sql: str,
    joined: Mapping[str, str],
) -> pa.Table:
    with database(folders) as db:
        for view, rows in views.items():
            db.execute(f"CREATE VIEW {view} AS {rows}")
        for name, uri in joined.items():
            _load(db, name, Location(uri))
        confine(db)
        if not _only_reads(db, sql):
            raise InputError("a query is one SELECT: run directories are only read")
        return db.sql(sql).to_arrow_table()


def _tables(run: Run, sql: str) -> tuple[dict[str, list[File]], dict[str, str]]:
    """The run's files as they are now, in folders, and each view of them in SQL.

    Of a table that the question does not name only the columns are there: to list one takes a
    request for a thousand shards. Where SQL may be put together in SQL, all are.
    """
    folders: dict[str, list[File]] = {}
    views: dict[str, str] = {}
    text = sql.lower()
    schemas = {"scores": run.schema, "densities": DENSITIES, "plan": PLAN}
    for view in VIEWS:
        if not any(word in text for word in (view, "query")):
            columns = (
                f"NULL::{_TYPES[str(field.type)]} AS {_quoted(field.name)}"
                for field in schemas[view]
            )
            views[view] = f"SELECT {', '.join(columns)} WHERE false"
            continue
        if view == "plan":
            # Some parts have more columns than others.
            folders[view] = list_files(run.plan)
            views[view] = f"SELECT {', '.join(PLAN.names)} FROM {parquet(view)}"
        else:
            found = sources(run, view)
            folders |= {view: found.shards, f"{view}_parts": found.parts}
            views[view] = rows_of(view, found)
        if not folders[view] and not folders.get(f"{view}_parts"):
            raise InputError(f"{run.location.uri}/{view} holds nothing yet")
    return folders, views


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def _versions(folders: Mapping[str, Sequence[File]]) -> set[tuple[str, str, int, str]]:
    return {(f, file.name, file.size, file.version) for f in folders for file in folders[f]}


def rows_of(table: Table, found: Sources) -> str:
    """A table's rows in SQL, each once; its folders are called `table` and `table`_parts."""
    selects = []
    if found.parts:
        numbers = ", ".join(map(str, found.outdated))
        outdated = f" WHERE shard NOT IN ({numbers})" if numbers else ""
        selects.append(f"SELECT * EXCLUDE shard FROM {parquet(f'{table}_parts')}{outdated}")
    if found.shards:
        selects.append(f"SELECT * FROM {parquet(table)}")
    return " UNION ALL ".join(selects)


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
            raise InputError(f"{location.uri} is not a readable table: {said(error)}") from error


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
