"""Fixations in any Parquet, CSV or TSV file with a row for each."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from gazecore.corpus.collect import Collector, image_size
from gazecore.corpus.schema import Corpus
from gazecore.errors import CorpusError, InputError, one_line
from gazecore.images.listing import list_images
from gazecore.images.lists import dialect_of
from gazecore.storage import Location

_OPTIONAL = ("index", "t", "duration")


@dataclass(frozen=True)
class TableOptions:
    """What the table's columns are called, and where its images are."""

    images: str | None = None
    """Folder, prefix, glob or list of the images. Default: the table's folder."""
    image: str = "image"
    """Column with the image: its path relative to the folder, or the list's image_id."""
    subject: str = "subject"
    """Column with the subject, text or a number."""
    x: str = "x"
    """Column with x in pixels, 0-based, to the right."""
    y: str = "y"
    """Column with y in pixels, 0-based, downwards."""
    index: str | None = None
    """Column with the order within a scanpath. Default: the order of the rows."""
    t: str | None = None
    """Column with the time of the fixation in seconds."""
    duration: str | None = None
    """Column with its duration in seconds."""
    positions: Literal["pixels", "shares"] = "pixels"
    """What x and y are: pixels of the image, or shares of its width and height, 0 to 1."""
    times: Literal["s", "ms"] = "s"
    """What t and duration are: seconds or milliseconds."""


def read_table(source: str, options: TableOptions | None = None) -> Corpus:
    """Import a table of fixations.

    Images without any fixation are part of the corpus; their sizes are read from the files. Rows
    without a position (nothing, or a `.` as in EyeLink's exports) are dropped and counted.

    Args:
        source: a `.parquet`, `.csv` or `.tsv` file.
        options: columns and images.

    Raises:
        CorpusError: a column is missing or of the wrong kind, or in other units than the options
            say; or an image or its file is missing.
        InputError: the images cannot be listed.
    """
    options = options or TableOptions()
    location = Location(source)
    table = _read(location, options)
    ids = _text(table, options.image, location)
    subjects = _text(table, options.subject, location)
    numbers = {
        name: _numbers(table, column, location)
        for name in ("x", "y", *_OPTIONAL)
        if (column := getattr(options, name)) is not None
    }
    _check_units(numbers, options, location)
    if options.times == "ms":
        numbers |= {name: numbers[name] / 1000 for name in ("t", "duration") if name in numbers}
    collector = Collector()
    images = options.images or location.uri.rpartition("/")[0] or "/"
    for batch in list_images(images):
        for row in batch.to_pylist():
            collector.add_image(row["image_id"], row["uri"], image_size(Location(row["uri"])))
    blank = np.isnan(numbers["x"]) | np.isnan(numbers["y"])
    collector.dropped["rows without x or y"] += int(blank.sum())
    rows_of: dict[str, list[int]] = {}
    index = numbers.pop("index", None)
    if index is None:
        index = _order(ids, subjects)
    elif np.isnan(index).any():
        raise CorpusError(f"{location.uri}: column `{options.index}`: a row has none")
    elif (index != np.clip(index, -(2**31), 2**31 - 1).round()).any():
        raise CorpusError(f"{location.uri}: column `{options.index}`: not all are whole numbers")
    for row in np.flatnonzero(~blank).tolist():
        rows_of.setdefault(ids[row], []).append(row)
    for image_id, rows in rows_of.items():
        if image_id not in collector.sizes:
            raise CorpusError(
                f"{location.uri}: column `{options.image}`: no image {image_id} in {images}"
            )
        part = {name: values[rows] for name, values in numbers.items()}
        if options.positions == "shares":
            height, width = collector.sizes[image_id]
            # 1 is the right or the lower border, which is the last pixel's.
            part["x"] = np.where(part["x"] == 1, width - 0.5, part["x"] * width)
            part["y"] = np.where(part["y"] == 1, height - 0.5, part["y"] * height)
        collector.add_scanpath(image_id, [subjects[row] for row in rows], **part, index=index[rows])
    return collector.corpus()


def _read(location: Location, options: TableOptions) -> pa.Table:
    """The table with at least the columns asked for."""
    suffix = location.path.lower().rpartition(".")[2]
    try:
        if suffix == "parquet":
            table = location.read_table()
        elif suffix in ("csv", "tsv"):
            table = _read_text(location.read_bytes(), options, "," if suffix == "csv" else "\t")
        else:
            raise CorpusError(
                f"{location.uri} is no table: its name must end in .parquet, .csv, .tsv"
            )
    except (OSError, pa.ArrowException, InputError) as error:
        if "UTF8" in str(error):
            raise CorpusError(f"{location.uri} is not UTF-8 text: save it as UTF-8") from error
        raise CorpusError(f"{location.uri} is not a readable table: {one_line(error)}") from error
    for name in ("image", "subject", "x", "y", *_OPTIONAL):
        column = getattr(options, name)
        if column is not None and table.column_names.count(column) != 1:
            raise CorpusError(
                f"{location.uri}: no single column `{column}` for {name}; its columns are "
                f"{', '.join(table.column_names)}; --table.{name} says which it is"
            )
    return table


def _read_text(data: bytes, options: TableOptions, delimiter: str) -> pa.Table:
    """A text table, as trackers and spreadsheets of all countries write them.

    Numbers have a decimal point, or else, where columns are not divided by it, a decimal comma.
    """
    names = {name: getattr(options, name) for name in ("image", "subject", "x", "y", *_OPTIONAL)}
    dialect = dialect_of(data[: 2**16], delimiter, {n for n in names.values() if n})
    kinds = {
        column: pa.string() if name in ("image", "subject") else pa.float64()
        for name, column in names.items()
        if column in dialect.names
    }

    def read(decimal_point: str) -> pa.Table:
        return pa.csv.read_csv(
            pa.BufferReader(data),
            read_options=dialect.read_options(),
            parse_options=pa.csv.ParseOptions(delimiter=dialect.delimiter),
            convert_options=pa.csv.ConvertOptions(
                column_types=kinds,
                decimal_point=decimal_point,
                null_values=["", ".", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"],
            ),
        )

    try:
        return read(".")
    except pa.ArrowInvalid:
        if dialect.delimiter == ",":
            raise
        return read(",")


def _check_units(numbers: dict[str, np.ndarray], options: TableOptions, location: Location) -> None:
    """Raise CorpusError where numbers are plainly not in the units that the options say."""
    points = np.concatenate([numbers["x"], numbers["y"]])
    points = points[np.isfinite(points)]
    if not points.size:
        return
    if options.positions == "pixels" and points.min() >= 0 and points.max() <= 1:
        raise CorpusError(
            f"{location.uri}: all x and y lie within 0 and 1, the top left pixel: if they are "
            "shares of the image, give --table.positions shares"
        )
    if options.positions == "shares" and np.abs(points).max() > 10:
        raise CorpusError(
            f"{location.uri}: x and y go up to {points.max():g}: those are no shares of an image"
        )
    durations = numbers.get("duration", np.empty(0))
    durations = durations[np.isfinite(durations)]
    median = float(np.median(durations)) if durations.size else 0.0
    if options.times == "s" and median > 10:
        raise CorpusError(
            f"{location.uri}: the median fixation takes {median:g} s: if those are milliseconds, "
            "give --table.times ms"
        )


def _text(table: pa.Table, column: str, location: Location) -> list[str]:
    try:
        values: list[str | None] = table[column].cast(pa.string()).to_pylist()
    except pa.ArrowException as error:
        raise CorpusError(f"{location.uri}: column `{column}`: {one_line(error)}") from error
    known = [value for value in values if value]
    if len(known) < len(values):
        raise CorpusError(f"{location.uri}: column `{column}`: a row has none")
    return known


def _numbers(table: pa.Table, column: str, location: Location) -> np.ndarray:
    """Float64 (n,); NaN where the table has nothing."""
    try:
        values: np.ndarray = pc.fill_null(table[column].cast(pa.float64()), np.nan).to_numpy()
    except pa.ArrowException as error:
        raise CorpusError(f"{location.uri}: column `{column}`: {one_line(error)}") from error
    return values


def _order(ids: list[str], subjects: list[str]) -> np.ndarray:
    """How many rows of the same image and subject come before each."""
    seen: dict[tuple[str, str], int] = {}
    order = []
    for key in zip(ids, subjects, strict=True):
        order.append(seen.get(key, 0))
        seen[key] = order[-1] + 1
    return np.array(order, dtype=int)
