"""Parquet tables of a schema: read as it says that they are, and published whole."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

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
