"""Columns of an input that are carried along with its images, as text."""

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from gazecore.errors import InputError

KEPT = pa.map_(pa.string(), pa.string())
"""What is carried along of a row."""


def kept_of(
    names: Sequence[str], columns: Sequence[Sequence[str | None]], rows: int
) -> pa.MapArray | pa.NullArray:
    """What is carried along of each row: names and values, type `KEPT`; null where nothing is."""
    if not names:
        return pa.nulls(rows, KEPT)
    values = zip(*columns, strict=True)
    return pa.array([[*zip(names, row, strict=True)] for row in values], KEPT)


def as_text(values: pa.Array | pa.ChunkedArray, name: str, where: str) -> pa.Array:
    """A column as text. Raises InputError where its values cannot be."""
    try:
        return values.cast(pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise InputError(
            f"{where}: column `{name}` holds {values.type}, not text, numbers or times"
        ) from error


def as_json(value: Any) -> str | None:
    """A value of JSON as text: text and null as they are, others as JSON writes them."""
    is_text = value is None or isinstance(value, str)
    return value if is_text else json.dumps(value, ensure_ascii=False)
