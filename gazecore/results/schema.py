"""The tables of a run directory, column by column.

RUN/run.json                            settings, model, input
RUN/plan/part-00000.parquet             PLAN: the inputs
RUN/densities/shard-000123.parquet      DENSITIES: one row per `ok` image
RUN/scores/shard-000123.parquet         SCORES: one row per planned image; written last
"""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from gazecore.errors import DamagedTable
from gazecore.storage import Location

VERSION = 1


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


PLAN = pa.schema(
    [
        _required("image_id", pa.string()),
        _required("uri", pa.string()),
        pa.field("size", pa.int64()),
        pa.field("version", pa.string()),
        _required("shard", pa.int32()),
    ]
)
"""size: bytes; version: ETag or modification time. Both null where the input was a list."""

SCORES = pa.schema(
    [
        _required("image_id", pa.string()),
        _required("uri", pa.string()),
        _required("status", pa.string()),
        pa.field("error", pa.string()),
        pa.field("error_message", pa.string()),
        pa.field("height", pa.int32()),
        pa.field("width", pa.int32()),
        pa.field("information_bits", pa.float32()),
        pa.field("concentration_bits", pa.float32()),
        pa.field("peak_x", pa.float32()),
        pa.field("peak_y", pa.float32()),
        pa.field("mean_x", pa.float32()),
        pa.field("mean_y", pa.float32()),
        pa.field("std_x", pa.float32()),
        pa.field("std_y", pa.float32()),
        pa.field("cov_xy", pa.float32()),
        pa.field("area_50", pa.float32()),
        pa.field("area_90", pa.float32()),
        pa.field("center_mass", pa.float32()),
        pa.field("n_peaks", pa.int16()),
        pa.field("disagreement_bits", pa.float32()),
    ]
)
"""Meanings: `density.statistics` and docs/results-format.md."""

DENSITIES = pa.schema(
    [
        _required("image_id", pa.string()),
        _required("height", pa.int32()),
        _required("width", pa.int32()),
        _required("grid_height", pa.int32()),
        _required("grid_width", pa.int32()),
        _required("log_density", pa.list_(pa.field("element", pa.int16(), nullable=False))),
        _required("log_offset", pa.float64()),
    ]
)
"""Decoding: `density.codec`."""


def read_table(
    location: Location, schema: pa.Schema, columns: Sequence[str] | None = None
) -> pa.Table:
    """A file of a run, or some of its columns, as the schema says that they are.

    Raises:
        DamagedTable: the file's bytes make no sense, a column is of another type, a value that must
            be there is null, or a density has not as many cells as its grid.
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
    if {"log_density", "grid_height", "grid_width"} <= set(table.column_names):
        sides = [pc.cast(table[name], pa.int64()) for name in ("grid_height", "grid_width")]
        cells = pc.cast(pc.list_value_length(table["log_density"]), pa.int64())
        fits = pc.and_(pc.equal(cells, pc.multiply(*sides)), pc.greater(sides[0], 0))
        if table.num_rows and not pc.all(fits).as_py():
            image_id = table.filter(pc.invert(fits))["image_id"][0]
            raise DamagedTable(f"{location.uri}: the density of {image_id} does not fit its grid")
    return table


def shard_name(shard: int) -> str:
    """File name of a shard, the same in `scores` and `densities`."""
    return f"shard-{shard:06d}.parquet"
