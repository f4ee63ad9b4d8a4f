"""Boxes from a table: Parquet, CSV or TSV."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.csv

from gazecore.errors import InputError, one_line
from gazecore.images.lists import dialect_of
from gazecore.regions.region import Region, region_of
from gazecore.storage import Location

BOX = ("x", "y", "width", "height")


class BoxTable:
    """Boxes from a table with the columns image_id, x, y, width, height, and perhaps name."""

    def __init__(self, location: Location) -> None:
        """Read it. Some 70 bytes of memory a box."""
        table = _read_table(location)
        try:
            ids = table["image_id"].cast(pa.string()).combine_chunks()
            numbers = [table[name].cast(pa.float64()) for name in BOX]
            named = "name" in table.column_names
            self._names = table["name"].cast(pa.string()) if named else None
        except pa.ArrowException as error:
            raise InputError(f"{location.uri}: {one_line(error)}") from error
        if ids.null_count:
            raise InputError(f"{location.uri}: {ids.null_count:,} rows have no image_id")
        # What is no number is no box: its row says so.
        self._boxes = np.column_stack([n.fill_null(np.nan).to_numpy() for n in numbers])
        coded = ids.dictionary_encode()
        codes = coded.indices.to_numpy()
        self._order = np.argsort(codes, kind="stable")
        self._bounds = np.searchsorted(codes[self._order], np.arange(len(coded.dictionary) + 1))
        self._position = {name: i for i, name in enumerate(coded.dictionary.to_pylist())}

    def of_image(self, image_id: str, height: int, width: int) -> list[Region]:
        """See `Regions`."""
        found = []
        for row in self._rows(image_id):
            box = self._boxes[row]
            found.append(region_of(row + 1, self._name(row), [box], height, width))
        return found

    def elsewhere(self, seen: set[str]) -> Iterator[tuple[str, int, str]]:
        """See `Regions`."""
        for image_id in self._position:
            if image_id not in seen:
                for row in self._rows(image_id):
                    yield image_id, row + 1, self._name(row)

    def _rows(self, image_id: str) -> list[int]:
        if (at := self._position.get(image_id)) is None:
            return []
        rows: list[int] = self._order[self._bounds[at] : self._bounds[at + 1]].tolist()
        return rows

    def _name(self, row: int) -> str:
        return (self._names[row].as_py() if self._names is not None else None) or ""


def _read_table(location: Location) -> pa.Table:
    """The table, its numbers as Arrow takes them."""
    wanted = {"image_id", "name", *BOX}
    if location.path.lower().endswith(".parquet"):
        table = location.read_table()
    else:
        data = location.read_bytes()
        mark = "\t" if location.path.lower().endswith(".tsv") else ","
        dialect = dialect_of(data[: 2**16], mark, wanted)
        kinds = {name: pa.float64() if name in BOX else pa.string() for name in dialect.names}
        table = pa.csv.read_csv(
            pa.BufferReader(data),
            read_options=dialect.read_options(),
            parse_options=pa.csv.ParseOptions(delimiter=dialect.delimiter),
            convert_options=pa.csv.ConvertOptions(column_types=kinds),
        )
    names = table.column_names
    if missing := [name for name in ("image_id", *BOX) if names.count(name) != 1]:
        raise InputError(
            f"{location.uri} has no single column {', '.join(missing)}; its columns are "
            f"{', '.join(names)}: boxes are image_id, x, y, width, height, and perhaps name"
        )
    return table.select([name for name in names if name in wanted])
