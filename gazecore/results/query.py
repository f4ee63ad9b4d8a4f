"""SQL over a run directory, read-only."""

import re

import duckdb
import pyarrow as pa

from gazecore.errors import InputError, one_line
from gazecore.results.run import Run

VIEWS = ("scores", "densities", "plan")

_READING = {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN}


def query(run: Run, sql: str) -> pa.Table:
    """Run one query over the views `scores`, `densities` and `plan`.

    Only statements that read are taken, and they see no other file of this machine.

    Args:
        run: finished or not, on local disk or on any fsspec storage.
        sql: DuckDB SQL.

    Raises:
        InputError: the SQL is wrong or would write, or nothing has been scored yet.
    """
    with duckdb.connect() as db:
        # What glob patterns mean in the directory's own name is escaped.
        root = re.sub(r"([\[*?])", r"[\1]", run.location.uri).replace("'", "''")
        if not run.location.is_local:
            db.register_filesystem(run.location.fs)
        for view in VIEWS:
            if not any(n.endswith(".parquet") for n in (run.location / view).names()):
                raise InputError(
                    f"{run.location.uri}/{view} holds nothing yet: has the run started?"
                )
            db.execute(
                f"CREATE VIEW {view} AS SELECT * FROM read_parquet('{root}/{view}/*.parquet')"
            )
        if run.location.is_local:
            literal = run.location.path.replace("'", "''")
            db.execute(f"SET allowed_directories = ['{literal}', '{root}']")
            db.execute("SET enable_external_access = false")
        else:
            db.execute("SET disabled_filesystems = 'LocalFileSystem'")
        db.execute("SET lock_configuration = true")
        try:
            statements = db.extract_statements(sql)
            if len(statements) != 1 or statements[0].type not in _READING:
                raise InputError("a query is one SELECT: run directories are only read")
            return db.sql(sql).to_arrow_table()
        except duckdb.Error as error:
            raise InputError(f"the query failed: {one_line(error)}") from error
