"""Parquet tables of a schema: read as it says that they are, and published whole."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gazecore.errors import DamagedTable
from gazecore.storage import Location, parquet_bytes


def required(name: str, kind: pa.DataType) -> pa.Field:
    """A column without nulls."""
    return pa.field(name, kind, nullable=False)


def read_table(
    location: Location, schema: pa.Schema, columns: Sequence[str] | None = None
) -> pa.Table:
    """A file, or some of its columns, as the schema says that they are.

    Raises:
        DamagedTable: the file's bytes make no sense, a column is of another type, or a value that
            must be there is null.
        InputError: a column is missing.
    """
    fields = [schema.field(name) for name in columns or schema.names]
    table = location.read_table([field.name for field in fields])
    for field in fields:
        column = table[field.name]
        if column.type != field.type:
            raise DamagedTable(
                f"{location.uri}: column {field.name} holds {column.type}, not {field.type}"
            )
        nulls = column.null_count
        if pa.types.is_list(field.type):
            nulls += pc.list_flatten(column).null_count
        if nulls and not field.nullable:
            raise DamagedTable(f"{location.uri}: column {field.name} lacks {nulls} values")
    return table


def publish_table(location: Location, table: pa.Table, **options: Any) -> None:
    """Write a table as one file, which appears whole; options as `parquet_bytes` takes them."""
    location.publish(parquet_bytes(table, **options))


_ROWS = 16_384
"""Of a row group of a table that is written row by row, which are held in memory until then."""


@contextmanager
def growing_table(
    location: Location, schema: pa.Schema
) -> Iterator[Callable[[Sequence[Mapping[str, Any]]], None]]:
    """For a table of any length: gives what is to be called with its rows, some at a time.

    The file appears as a whole when the block ends, and not at all if the block raises.
    """
    held: list[Mapping[str, Any]] = []
    options = {"compression": "zstd", "write_page_checksum": True}
    with location.staged() as path, pq.ParquetWriter(path, schema, **options) as file:

        def write(rows: Sequence[Mapping[str, Any]]) -> None:
            held.extend(rows)
            if len(held) >= _ROWS:
                flush()

        def flush() -> None:
            file.write_table(pa.Table.from_pylist(held, schema))
            held.clear()

        yield write
        flush()
