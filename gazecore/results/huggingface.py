"""A run as a data set for Hugging Face's `datasets` and the Hub: a folder with Parquet and a card.

DIR/README.md                             the card, see `results.card`; written last
DIR/data/train-00000-of-00003.parquet     a row for each image, in the plan's order

Columns of images are structs of `bytes` and `path`; what each column is stands in the schema's
metadata, as `datasets` writes it, and again in the card.
"""

import functools
import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gazecore.density.resample import to_size
from gazecore.errors import ImageError, StorageUnavailable, one_line
from gazecore.ownership import MADE_BY, is_our_parquet, is_our_text, refuse_foreign, signed
from gazecore.results.again import Scored, portable, read_again, scored_densities
from gazecore.results.card import card
from gazecore.results.export import MapKind, Written, exportable, map_png
from gazecore.results.reader import Results
from gazecore.results.run import Run
from gazecore.results.stream import of_each
from gazecore.steps import Steps, told, uncounted
from gazecore.storage import Location

PART_BYTES = 300_000_000
"""Of a file, about."""

_GROUP_BYTES, _GROUP_ROWS = 2**26, 1000
"""What is in memory of a file at most, about: its next row group."""

_LEFT_OUT = {"uri", "status", "error", "error_message"}
"""Columns of the scores that a data set has not: where the images lie is nobody else's business."""

_PICTURES = ("image", "saliency")
_IMAGE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
_PART = re.compile(r"train-\d{5}-of-\d{5}\.parquet")

_MAP_BYTES, _IMAGE_BYTES = 0.2, 0.3
"""A pixel, about, where nobody knows."""


def export_dataset(
    results: Results,
    out: Location,
    kind: MapKind = "density",
    *,
    images: bool = True,
    overwrite: bool = False,
    partial: bool = False,
    steps: Steps = uncounted,
) -> Written:
    """Write a run as a folder that `datasets.load_dataset` opens.

    Args:
        results: the run.
        out: the folder. What an earlier export left there is replaced or deleted.
        kind: what grey is in the column `saliency`, see `saliency_map`.
        images: read the images again, for a column `image`; null where that is impossible.
        overwrite, partial, steps: see `results.export.export_run`.

    Raises:
        InputError: see `export_run`.
    """
    counts, run = exportable(results, out, partial), results.run
    columns = column_names(run)
    schema = _schema(run, columns, images)
    rows_each = math.ceil(counts.ok / math.ceil(_expected_bytes(results, images) / PART_BYTES))
    names = part_names(math.ceil(counts.ok / rows_each))
    data, readme = out / "data", out / "README.md"
    refuse_foreign((data / name for name in names), is_our_parquet, overwrite)
    refuse_foreign([readme], is_our_text, overwrite)
    unread: dict[str, str] = {}
    make = functools.partial(_row, run, columns, kind, images)
    with steps("images", counts.ok) as on_image:
        made = told(of_each(scored_densities(run, run.schema.names), make), on_image)
        rows = _noting(made, unread)
        for name in names:
            _write(itertools.islice(rows, rows_each), data / name, schema)
    # Not data/*: what an earlier export left is no part of this one.
    files = f"data/train-*-of-{len(names):05}.parquet"
    text = card(run, columns, schema, files, kind, counts, len(unread))
    readme.publish(signed(text).encode())
    for name in data.names():
        if _PART.fullmatch(name) and name not in names and is_our_parquet(data / name):
            (data / name).remove()
    return Written(counts, counts.ok, unread)


def column_names(run: Run) -> dict[str, str]:
    """What the columns of the scores are called in a data set: by their own names.

    A column that was kept of the input and has the name of one of ours gets underscores.
    """
    names = [name for name in run.schema.names if name not in _LEFT_OUT]
    called = {}
    for name in names:
        new = name
        while new in _PICTURES or (new != name and new in names):
            new += "_"
        called[name] = new
    return called


def part_names(count: int) -> list[str]:
    """The files in `data`."""
    return [f"train-{number:05}-of-{count:05}.parquet" for number in range(count)]


def features(schema: pa.Schema) -> dict[str, Any]:
    """Of each column what `datasets` takes it for, in its own form."""
    return {field.name: _feature(field.type) for field in schema}


def _feature(kind: pa.DataType) -> Any:
    if kind == _IMAGE:
        return {"_type": "Image"}
    if pa.types.is_list(kind):  # what of it every version reads
        return [_feature(kind.value_type)]
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    return {"dtype": str(kind), "_type": "Value"}


def _schema(run: Run, columns: Mapping[str, str], images: bool) -> pa.Schema:
    ours = [pa.field(name, _IMAGE) for name in _PICTURES if images or name != "image"]
    own = [pa.field(new, run.schema.field(name).type) for name, new in columns.items()]
    schema = pa.schema([own[0], *ours, *own[1:]])
    about = json.dumps({"info": {"features": features(schema)}})
    return schema.with_metadata({"huggingface": about, "made_by": MADE_BY})


def _expected_bytes(results: Results, images: bool) -> float:
    """Of the whole data set, by the pixels, and the files' sizes where the plan has them."""
    scores = results.read_scores(["height", "width"])  # null where there is no density
    sides = (pc.cast(scores[name], pa.float64()) for name in ("height", "width"))
    pixels = pc.sum(pc.multiply(*sides)).as_py() or 1
    size = pc.mean(results.plan()["size"]).as_py() if images else 0
    return float(
        _MAP_BYTES * pixels + (_IMAGE_BYTES * pixels if size is None else size * scores.num_rows)
    )


Row = tuple[dict[str, Any], str]


def _row(run: Run, columns: Mapping[str, str], kind: MapKind, images: bool, scored: Scored) -> Row:
    """A row of the data set, and why its image could not be read."""
    scores, density = scored
    row = {new: scores[name] for name, new in columns.items()}
    stem = density.image_id.rpartition("/")[2]
    full = to_size(density.grid, density.height, density.width)
    row["saliency"] = {"bytes": map_png(full, kind), "path": f"{stem}.png"}
    if images:
        try:
            row["image"] = {"bytes": portable(*read_again(run, scores)), "path": stem}
        except (ImageError, StorageUnavailable) as error:
            return row | {"image": None}, one_line(error)
    return row, ""


def _noting(rows: Iterable[Row], unread: dict[str, str]) -> Iterator[dict[str, Any]]:
    for row, why in rows:
        if why:
            unread[row["image_id"]] = why
        yield row


def _write(rows: Iterable[dict[str, Any]], location: Location, schema: pa.Schema) -> None:
    """A Parquet file, whose pages hold bytes that nothing makes smaller."""
    options = {"compression": "zstd", "use_dictionary": False, "write_page_checksum": True}
    with location.staged() as path, pq.ParquetWriter(path, schema, **options) as file:
        held: list[dict[str, Any]] = []
        size = 0
        for row in rows:
            held.append(row)
            size += sum(len((row.get(name) or {}).get("bytes", b"")) for name in _PICTURES)
            if size > _GROUP_BYTES or len(held) == _GROUP_ROWS:
                file.write_table(pa.Table.from_pylist(held, schema))
                held, size = [], 0
        file.write_table(pa.Table.from_pylist(held, schema))
