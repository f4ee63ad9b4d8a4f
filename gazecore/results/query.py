"""SQL over a run directory, read-only."""

import json
import re
from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow as pa

from gazecore.cores import cores
from gazecore.errors import InputError, one_line
from gazecore.results.run import Run

VIEWS = ("scores", "densities", "plan")

_READING = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}


def query(run: Run, sql: str) -> pa.Table:
    """Run one query over the views `scores`, `densities` and `plan`.

    Only statements that read are taken, and they see no other file of this machine.

    Args:
        run: finished or not, on local disk or on any fsspec storage.
        sql: one SELECT in DuckDB's SQL (or DESCRIBE, SUMMARIZE, SHOW).

    Raises:
        InputError: the SQL is wrong or would write, a file is damaged, or nothing has been scored.
    """
    with duckdb.connect(config={"autoinstall_known_extensions": False, "threads": cores()}) as db:
        # What glob patterns mean in the directory's own name is escaped.
        root = re.sub(r"([\[*?])", r"[\1]", run.location.uri).replace("'", "''")
        if not run.location.is_local:
            db.register_filesystem(run.location.fs)
        try:
            for view in VIEWS:
                if not any(n.endswith(".parquet") for n in (run.location / view).names()):
                    raise InputError(f"{run.location.uri}/{view} holds nothing yet")
                files = f"read_parquet('{root}/{view}/*.parquet')"
                db.execute(f"CREATE VIEW {view} AS SELECT * FROM {files}")
            if run.location.is_local:
                literal = run.location.path.replace("'", "''")
                db.execute(f"SET allowed_directories = ['{literal}', '{root}']")
                db.execute("SET enable_external_access = false")
            else:
                db.execute("SET disabled_filesystems = 'LocalFileSystem'")
            db.execute("SET lock_configuration = true")
            if not _only_reads(db, sql):
                raise InputError("a query is one SELECT: run directories are only read")
            return db.sql(sql).to_arrow_table()
        except duckdb.Error as error:
            raise InputError(f"the query failed: {one_line(error)}") from error


def _only_reads(db: duckdb.DuckDBPyConnection, sql: str) -> bool:
    """Whether `sql` is one statement all of whose parts read: a SELECT may hold a COPY."""
    if len(db.extract_statements(sql)) != 1:
        return False
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
