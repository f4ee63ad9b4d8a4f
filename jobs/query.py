"""SQL over a run."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from gazecore.cores import cores
from gazecore.errors import InputError
from jobs.command import run_command
from jobs.console import out
from jobs.tables import show_answer

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class QueryOptions:
    """Ask a run questions in SQL (DuckDB).

    Its tables are `scores` (a row per image), `densities` (a row per image that could be read) and
    `plan` (the input). Nothing is ever written to the run.
    """

    run: Positional[Annotated[str, arg(metavar="RUN")]]
    """The run directory, local or any fsspec URI."""
    sql: Positional[Annotated[str, arg(metavar="SQL")]]
    """One SELECT, for instance
    "SELECT image_id, information_bits FROM scores ORDER BY 2 DESC LIMIT 10"; VALUES, PIVOT,
    DESCRIBE and SUMMARIZE are taken, too, and EXPLAIN before any of them."""
    joined: Annotated[UseAppendAction[tuple[str, ...]], arg(name="with", metavar="NAME=FILE")] = ()
    """A file of your own as one more table, such as `labels=labels.csv`; once for each. CSV, TSV,
    Parquet or JSON, local or any fsspec URI. Only that file is read."""
    format: Literal["auto", "table", "csv", "json", "parquet"] = "auto"
    """`table` for people (the first 200 rows, or 20 where each takes many lines), `csv`, `json` (a
    line per row) or `parquet` on standard output. By default a table on a terminal, else CSV,
    which holds lists, such as `peaks`, as JSON."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command("query", QueryOptions, ask, argv)


def ask(options: QueryOptions) -> int:
    """Query and print."""
    import duckdb
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    from gazecore.results.query import query
    from gazecore.results.run import open_run
    from gazecore.storage import Location

    answer = query(open_run(Location(options.run)), options.sql, tables_of(options.joined))
    kind = options.format
    if kind == "auto":
        kind = "table" if out.is_terminal else "csv"
    if kind == "table":
        show_answer(answer)
    elif kind == "json":
        with duckdb.connect(config={"threads": cores()}) as db:
            db.register("answer", answer)
            for (line,) in db.execute("SELECT to_json(answer) FROM answer").fetchall():
                print(line)
    elif kind == "csv":
        try:
            pa.csv.write_csv(flat(answer), sys.stdout.buffer)
        except pa.ArrowInvalid as error:
            raise InputError(f"CSV cannot hold this answer ({error}): use --format json") from error
    else:
        pq.write_table(answer, sys.stdout.buffer)
    return 0


def flat(answer: "pa.Table") -> "pa.Table":
    """An answer whose lists and structures are JSON."""
    import duckdb
    import pyarrow as pa

    nested = [field.name for field in answer.schema if pa.types.is_nested(field.type)]
    if not nested:
        return answer
    quoted = ['"{}"'.format(name.replace('"', '""')) for name in nested]
    texts = ", ".join(f"to_json({name})::VARCHAR AS {name}" for name in quoted)
    with duckdb.connect(config={"threads": cores()}) as db:
        db.register("answer", answer)
        return db.sql(f"SELECT * REPLACE ({texts}) FROM answer").to_arrow_table()


def tables_of(joined: Sequence[str]) -> dict[str, str]:
    """Files by the names that they were given."""
    tables = {}
    for text in joined:
        name, is_given, file = text.partition("=")
        if not (is_given and file):
            raise InputError(f"--with takes NAME=FILE, such as labels=labels.csv, not {text!r}")
        if name in tables:
            raise InputError(f"--with names two tables {name}")
        tables[name] = file
    return tables


if __name__ == "__main__":
    main()
