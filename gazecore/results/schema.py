"""The tables of a run directory, column by column.

RUN/run.json                            settings, model, input
RUN/plan/part-00000.parquet             shards.plan.PLAN: the inputs
RUN/densities/shard-000123.parquet      DENSITIES: one row per `ok` image
RUN/scores/shard-000123.parquet         SCORES: one row per planned image; written last
"""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from gazecore.errors import DamagedTable
from gazecore.storage import Location
from gazecore.tables import read_table, required

VERSION = 2
"""Of the runs that are written. 1 had no `peaks`, and counted every local maximum in `n_peaks`."""

PEAK = pa.struct([pa.field(name, pa.float32()) for name in ("x", "y", "height", "share")])

SCORES = pa.schema(
    [
        required("image_id", pa.string()),
        required("uri", pa.string()),
        required("status", pa.string()),
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
        pa.field("peaks", pa.list_(pa.field("element", PEAK))),
    ]
)
"""Meanings: `density.summary` and docs/results-format.md."""

SCORES_OF = {1: SCORES.remove(SCORES.get_field_index("peaks")), VERSION: SCORES}
"""The scores of each version of runs that can be read."""

DENSITIES = pa.schema(
    [
        required("image_id", pa.string()),
        required("height", pa.int32()),
        required("width", pa.int32()),
        required("grid_height", pa.int32()),
        required("grid_width", pa.int32()),
        required("log_density", pa.list_(pa.field("element", pa.int16(), nullable=False))),
        required("log_offset", pa.float64()),
    ]
)
"""Decoding: `density.codec`."""


def read_densities(location: Location, columns: Sequence[str] | None = None) -> pa.Table:
    """A densities file, or some of its columns.

    Raises:
        DamagedTable: see `read_table`; or a density has not as many cells as its grid.
        InputError: a column is missing.
    """
    table = read_table(location, DENSITIES, columns)
    if {"log_density", "grid_height", "grid_width"} <= set(table.column_names):
        sides = [pc.cast(table[name], pa.int64()) for name in ("grid_height", "grid_width")]
        cells = pc.cast(pc.list_value_length(table["log_density"]), pa.int64())
        fits = pc.and_(pc.equal(cells, pc.multiply(*sides)), pc.greater(sides[0], 0))
        if table.num_rows and not pc.all(fits).as_py():
            image_id = table.filter(pc.invert(fits))["image_id"][0]
            raise DamagedTable(f"{location.uri}: the density of {image_id} does not fit its grid")
    return table
