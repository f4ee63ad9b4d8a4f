"""Fixations in any Parquet or text table with a row for each."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gazecore.corpus.collect import Collector, image_size
from gazecore.corpus.schema import Corpus
from gazecore.corpus.screen import Origin, Shown, box_of, from_top_left, on_image
from gazecore.corpus.text import Decimal, delimiter_of, parse_table, read_utf8
from gazecore.errors import CorpusError, InputError, one_line
from gazecore.images.listing import list_images
from gazecore.storage import Location

_OPTIONAL = ("index", "t", "duration")
_TEXT = {"csv": ",", "tsv": "\t", "txt": "\t"}
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_SHORTEST, _LONGEST = 0.001, 10.0
"""Seconds between which the median fixation of any people lies."""


@dataclass(frozen=True)
class TableOptions:
    """What the table's columns are called, what is in them, and where its images are."""

    images: str | None = None
    """Folder, prefix, glob or list of the images. Default: the table's folder."""
    image: str = "image"
    """Column with the image: its path relative to the folder, or the list's image_id."""
    subject: str = "subject"
    """Column with the subject, text or a number."""
    x: str = "x"
    """Column with x, to the right."""
    y: str = "y"
    """Column with y."""
    index: str | None = None
    """Column with the order within a scanpath. Default: the order of the rows."""
    t: str | None = None
    """Column with the time of the fixation."""
    duration: str | None = None
    """Column with its duration."""
    times: Literal["s", "ms", "us"] = "s"
    """What t and duration are: seconds, milliseconds or microseconds."""
    positions: Literal["pixels", "shares"] = "pixels"
    """What x and y are: pixels, or shares (0 to 1) of the image or, if given, of the screen."""
    origin: Origin = "top-left"
    """Where x and y count from. y goes down from the top left, up from the others."""
    screen: tuple[int, int] | None = None
    """Width and height of the screen in pixels, where x and y are positions on it."""
    shown: Shown = "centred"
    """How images stood on it: in its middle at their own size or as large as fits, or all over."""
    missing: str | None = None
    """Missing numbers besides nothing, `.`, `-`, `NA` and `NaN`: `-1`, or several with spaces."""
    delimiter: str | None = None
    """What is between columns of text: one character, or `tab`. Default: what the header shows."""
    decimal: Decimal | None = None
    """What numbers of text have. Default: what they show."""
    encoding: str | None = None
    """How text is written: `latin-1`, `cp1252`, ... Default: UTF-8, or UTF-16 by its mark."""


def read_table(source: str, options: TableOptions | None = None) -> Corpus:
    """Import a table of fixations.

    Images without any fixation are part of the corpus; their sizes are read from the files. Rows
    without a position (nothing, or a `.` as in EyeLink's exports) are dropped and counted.

    Args:
        source: a `.parquet`, `.csv`, `.tsv` or `.txt` file.
        options: columns, units and images.

    Raises:
        CorpusError: a column is missing or of the wrong kind, or in other units than the options
            say; or an image or its file is missing.
        InputError: the images cannot be listed, or the options contradict each other.
    """
    options = options or TableOptions()
    _check_options(options)
    location = Location(source)
    table = _read(location, options)
    ids = _text(table, options.image, location)
    subjects = _text(table, options.subject, location)
    numbers = {
        name: _numbers(table, column, location)
        for name in ("x", "y", *_OPTIONAL)
        if (column := getattr(options, name)) is not None
    }
    for name in set(numbers) - {"index"}:
        values = numbers[name]
        numbers[name] = np.where(np.isin(values, _marks(options)[0]), np.nan, values)
    _check_units(numbers, options, location)
    for name in {"t", "duration"}.intersection(numbers):
        numbers[name] = numbers[name] * _SECONDS[options.times]
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
        height, width = collector.sizes[image_id]
        part["x"], part["y"] = _in_pixels(part["x"], part["y"], (width, height), options)
        collector.add_scanpath(image_id, [subjects[row] for row in rows], **part, index=index[rows])
    return collector.corpus()


def _in_pixels(
    x: np.ndarray, y: np.ndarray, image: tuple[int, int], options: TableOptions
) -> tuple[np.ndarray, np.ndarray]:
    """Positions as the table has them in pixels of an image of this width and height."""
    frame, shares = options.screen or image, options.positions == "shares"
    x, y = from_top_left(x, y, frame, options.origin, shares)
    if options.screen is None:
        return x, y
    return on_image(x, y, box_of(image, options.screen, options.shown, "--table.shown"), image)


def _read(location: Location, options: TableOptions) -> pa.Table:
    """The table with at least the columns asked for."""
    suffix = location.path.lower().rpartition(".")[2]
    delimiter = delimiter_of(options.delimiter)
    try:
        if suffix == "parquet":
            table = location.read_table()
        elif suffix in _TEXT or delimiter:
            kinds = {
                column: pa.string() if name in ("image", "subject") else pa.float64()
                for name in ("image", "subject", "x", "y", *_OPTIONAL)
                if (column := getattr(options, name)) is not None
            }
            data = read_utf8(location, options.encoding, "--table.encoding")
            marks = _marks(options)[1]
            promised = _TEXT.get(suffix, ",")
            table = parse_table(data, kinds, promised, delimiter, options.decimal, marks)
        else:
            raise CorpusError(
                f"{location.uri} is no table: its name must end in .parquet, .csv, .tsv or .txt, "
                "or --table.delimiter say what is between its columns"
            )
    except (OSError, pa.ArrowException, InputError) as error:
        raise CorpusError(f"{location.uri} is not a readable table: {one_line(error)}") from error
    for name in ("image", "subject", "x", "y", *_OPTIONAL):
        column = getattr(options, name)
        if column is not None and table.column_names.count(column) != 1:
            raise CorpusError(
                f"{location.uri}: no single column `{column}` for {name}; its columns are "
                f"{', '.join(table.column_names)}; --table.{name} says which it is"
            )
    return table


def _check_options(options: TableOptions) -> None:
    """Raise InputError where they contradict each other."""
    if options.screen is None and options.shown != "centred":
        raise InputError("--table.shown says how images stood on a screen: give --table.screen")
    if options.screen and min(options.screen) < 1:
        raise InputError("--table.screen must be a width and a height in pixels")


def _marks(options: TableOptions) -> tuple[list[float], list[str]]:
    """What stands for a missing number: numbers, which Parquet holds, too, and other text."""
    numbers, others = [], []
    for mark in (options.missing or "").split():
        try:
            numbers.append(float(mark.replace(",", ".")))
        except ValueError:
            others.append(mark)
    return numbers, others


def _check_units(numbers: dict[str, np.ndarray], options: TableOptions, location: Location) -> None:
    """Raise CorpusError where numbers are plainly not in the units that the options say."""
    points = np.concatenate([numbers["x"], numbers["y"]])
    points = points[np.isfinite(points)]
    if points.size and options.positions == "pixels" and np.abs(points).max() <= 1:
        raise CorpusError(
            f"{location.uri}: all x and y lie within {min(0, points.min()):g} and 1: if they are "
            "shares of the image, or of a screen (--table.screen), give --table.positions shares"
        )
    if points.size and options.positions == "shares" and np.abs(points).max() > 10:
        raise CorpusError(
            f"{location.uri}: x and y go up to {np.abs(points).max():g}: those are no shares; "
            "leave --table.positions out if they are pixels"
        )
    durations = numbers.get("duration", np.empty(0))
    durations = durations[np.isfinite(durations)]
    if not durations.size:
        return
    median = float(np.median(durations))
    if _SHORTEST <= median * _SECONDS[options.times] <= _LONGEST:
        return
    fitting = [u for u, seconds in _SECONDS.items() if _SHORTEST <= median * seconds <= _LONGEST]
    remedy = f"give --table.times {fitting[0]}" if fitting else "is that its duration?"
    raise CorpusError(
        f"{location.uri}: column `{options.duration}`: the median fixation takes {median:g} "
        f"{options.times}, and not from 1 ms to 10 s: {remedy}"
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
