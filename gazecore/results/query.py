"""SQL over a run directory, read-only."""

import json
import re
import tempfile
from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow as pa
from fsspec.implementations.dirfs import DirFileSystem

from gazecore.cores import cores
from gazecore.errors import InputError, one_line
from gazecore.results.run import Run

VIEWS = ("scores", "densities", "plan")

_CLOSED: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "python_enable_replacements": False,
}

_READING = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}


def query(run: Run, sql: str) -> pa.Table:
    """Run one query over the views `scores`, `densities` and `plan`.

    Only statements that read are taken, and they see no other file, of this machine or of any
    storage that the caller has keys for. What does not fit in memory is spilled to a temporary
    directory.

    Args:
        run: finished or not, on local disk or on any fsspec storage.
        sql: one SELECT in DuckDB's SQL (or DESCRIBE, SUMMARIZE, SHOW).

    Raises:
        InputError: the SQL is wrong or would write, a file is damaged, or nothing has been scored.
    """
    for view in VIEWS:
        if not any(name.endswith(".parquet") for name in (run.location / view).names()):
            raise InputError(f"{run.location.uri}/{view} holds nothing yet")
    with (
        tempfile.TemporaryDirectory(prefix="gazecore-query-") as folder,
        duckdb.connect(config=_CLOSED | {"threads": cores(), "temp_directory": folder}) as db,
    ):
        root = run.location.uri
        if not run.location.is_local:
            db.register_filesystem(_RunAlone(run.location.path, run.location.fs))
            root = f"{_RunAlone.protocol}://{_RunAlone.root}"
        try:
            _confine(db, root)
            if not _only_reads(db, sql):
                raise InputError("a query is one SELECT: run directories are only read")
            return db.sql(sql).to_arrow_table()
        except duckdb.Error as error:
            raise InputError(f"the query failed: {one_line(error)}") from error


class _RunAlone(DirFileSystem):  # type: ignore[misc]
    """A directory of any storage, under a name of its own: the storage itself has none here, so
    that no path leads to anything else of it."""

    protocol = "gazecore-run"
    root = "run"

    def _join(self, path: Any) -> Any:
        inside = str(path).removeprefix(f"{self.protocol}://").removeprefix(f"{self.root}/")
        if ".." in inside.split("/"):
            raise PermissionError(f"{path} is not of the run")
        return super()._join(inside)

    def _relpath(self, path: Any) -> Any:
        found = super()._relpath(path)  # of several, by this for each
        return f"{self.root}/{found}" if isinstance(path, str) else found


def _confine(db: duckdb.DuckDBPyConnection, uri: str) -> None:
    """Make the views, and close everything but the run's directory, on whatever storage."""
    # What glob patterns mean in the directory's own name is escaped; DuckDB compares both ways.
    pattern, literal = (
        text.replace("'", "''") for text in (re.sub(r"([\[*?])", r"[\1]", uri), uri)
    )
    for view in VIEWS:
        files = f"read_parquet('{pattern}/{view}/*.parquet')"
        db.execute(f"CREATE VIEW {view} AS SELECT * FROM {files}")
    db.execute(f"SET allowed_directories = ['{literal}/', '{pattern}/']")
    db.execute("SET enable_external_access = false")
    db.execute("SET lock_configuration = true")


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
