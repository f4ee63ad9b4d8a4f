"""A run as a data set that FiftyOne opens, in the form in which FiftyOne itself keeps them.

DIR/metadata.json           which fields there are
DIR/samples.json            a sample for each image, in the plan's order; written last
DIR/fields/heatmap/a.png    grey saliency maps, as `results.export` draws them
DIR/data/a.jpg              images that FiftyOne could not open where they lie

It is `fiftyone.types.FiftyOneDataset`, which `fiftyone.utils.data.importers` reads; FiftyOne is not
needed to write it. Documents are MongoDB's extended JSON.
"""

import functools
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from gazecore.density.resample import to_size
from gazecore.errors import ImageError, NotFound, StorageUnavailable, one_line
from gazecore.images.containers import split_member
from gazecore.ownership import MADE_BY, is_our_json, is_our_picture, refuse_foreign
from gazecore.results.again import Scored, portable, read_again, scored_densities
from gazecore.results.export import MapKind, Written, exportable, map_png, picture_names
from gazecore.results.reader import Results
from gazecore.results.run import Run
from gazecore.results.stream import of_each
from gazecore.steps import Steps, told, uncounted
from gazecore.storage import Location, protocol_of

VERSION = "1.0.0"
"""Of FiftyOne, whose form this is; later ones bring it up to date when they import it."""

_APART = {
    "uri", "status", "error", "error_message", "height", "width", "peaks",
}  # fmt: skip
_TAKEN = {
    "id", "filepath", "tags", "metadata", "created_at", "last_modified_at", "heatmap", "peaks",
    "media_type", "dataset_id", "rand",
}  # fmt: skip
"""Names of fields that are no columns'."""

_SUFFIXES = {b"\x89PNG": ".png", b"RIFF": ".webp"}
_CORE = "fiftyone.core"


@dataclass(frozen=True)
class _Made:
    """What becomes of an image: its sample, the files beside it, or why it has none."""

    sample: dict[str, Any]
    files: dict[str, bytes]
    why: str = ""


def export_samples(
    results: Results,
    out: Location,
    kind: MapKind = "density",
    *,
    overwrite: bool = False,
    partial: bool = False,
    steps: Steps = uncounted,
) -> Written:
    """Write a run as a folder that `fiftyone.Dataset.from_dir` opens as a `FiftyOneDataset`.

    Images that are files of this machine are named by their absolute paths. All others are read
    again and copied. An image that is gone has no sample.

    Args:
        results: the run.
        out: the folder. Files of the same names are replaced, others left alone.
        kind: what grey is in the heat maps, see `saliency_map`.
        overwrite, partial, steps: see `results.export.export_run`.

    Raises:
        InputError: see `export_run`.
    """
    counts, run = exportable(results, out, partial), results.run
    names = picture_names(results.plan()["image_id"].to_pylist())
    metadata, samples = out / "metadata.json", out / "samples.json"
    refuse_foreign([metadata], is_our_json, overwrite)
    maps = (out / _map(name) for name in names.values())
    refuse_foreign(maps, is_our_picture, overwrite)
    is_ours = metadata.exists()  # and so is beside it what cannot say whose it is
    refuse_foreign([samples, out / "data"], lambda _: is_ours, overwrite)
    fields = field_names(run)
    unread: dict[str, str] = {}
    make = functools.partial(_made, run, fields, names, kind)
    metadata.publish(json.dumps(_dataset(run, fields)).encode())
    scored = scored_densities(run, run.schema.names)
    with (
        steps("samples", counts.ok) as on_sample,
        samples.staged() as path,
        open(path, "w") as file,
    ):
        file.write('{"samples": [')  # the first key, or FiftyOne refuses it
        comma = ""
        for made in told(of_each(scored, make), on_sample):
            if made.why:
                unread[made.sample["image_id"]] = made.why
                continue
            for name, data in made.files.items():
                (out / name).publish(data)
            file.write(f"{comma}\n{json.dumps(made.sample)}")
            comma = ","
        file.write("\n]}\n")
    return Written(counts, counts.ok - len(unread), unread)


def field_names(run: Run) -> dict[str, str]:
    """What the columns of the scores are called as fields.

    Columns that were kept of the input are called as they can be: of letters, digits and `_`, and
    unlike all others.
    """
    names: dict[str, str] = {}
    for column in run.schema.names:
        if column not in _APART:
            name = re.sub(r"\W", "_", column).lstrip("_") or "column"
            while name in _TAKEN or name in names.values():
                name += "_"
            names[column] = name
    return names


def _map(name: str) -> str:
    return f"fields/heatmap/{name}"


def _made(
    run: Run, fields: Mapping[str, str], names: Mapping[str, str], kind: MapKind, scored: Scored
) -> _Made:
    row, density = scored
    image_id, width, height = row["image_id"], row["width"], row["height"]
    name = names[image_id]
    files: dict[str, bytes] = {}
    values = {field: row[column] for column, field in fields.items()}
    try:
        filepath, size = _local(row["uri"]), None
        if filepath is None:
            data = portable(*read_again(run, row))
            filepath = f"data/{name.removesuffix('.png')}{_SUFFIXES.get(data[:4], '.jpg')}"
            files[filepath], size = data, len(data)
    except (ImageError, StorageUnavailable) as error:
        return _Made(values, {}, one_line(error))
    full = to_size(density.grid, density.height, density.width)
    files[_map(name)] = map_png(full, kind)
    sample = {
        "filepath": filepath,
        "tags": [],
        "metadata": {"_cls": "ImageMetadata", "size_bytes": size, "width": width, "height": height},
        "_media_type": "image",
        "_rand": int(_digest(image_id)[:8], 16) / 2**32,
        **values,
        "heatmap": {
            "_id": _object_id(image_id, "heatmap"),
            "_cls": "Heatmap",
            "tags": [],
            "map_path": _map(name),
            "range": [0, 255],
        },
    }
    if "peaks" in row:
        sample["peaks"] = {
            "_cls": "Keypoints",
            "keypoints": [
                {
                    "_id": _object_id(image_id, f"peak {number}"),
                    "_cls": "Keypoint",
                    "attributes": {},
                    "tags": [],
                    "label": f"peak {number}",
                    "points": [[peak["x"] / width, peak["y"] / height]],
                    "peak_height": peak["height"],
                    "share": peak["share"],
                }
                for number, peak in enumerate(row["peaks"], 1)
            ],
        }
    return _Made(sample, files)


def _local(uri: str) -> str | None:
    """The absolute path of an image that is a file of this machine; None of others.

    Raises:
        NotFound: it was one.
    """
    if protocol_of(uri) != "file":
        return None
    path = Location(uri).path
    if os.path.isfile(path):
        return path
    if split_member(uri) is None:
        raise NotFound("no such file")
    return None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _object_id(image_id: str, of: str) -> dict[str, str]:
    """An id of MongoDB's, the same in each export."""
    return {"$oid": _digest(f"{image_id}\0{of}")[:24]}


def _dataset(run: Run, fields: Mapping[str, str]) -> dict[str, Any]:
    """FiftyOne's document of a data set. What is left out, names and times, an import sets."""
    about = {
        "made_by": MADE_BY,
        "model": run.model.name,
        "fingerprint": run.settings.model,
        "trained_on": run.model.trained_on,
        "input": run.settings.input,
    }
    label = [_field("id", "ObjectId", db_field="_id"), _field("tags", "List", subfield="String")]
    keypoint = [
        *label,
        _field("attributes", "Dict", "labels.Attribute", "EmbeddedDocument"),
        _field("label", "String"),
        _field("points", "Keypoints"),
        _field("confidence", "List", subfield="Float"),
        _field("index", "Int"),
        _field("peak_height", "Float"),
        _field("share", "Float"),
    ]
    listed = _field("keypoints", "List", "labels.Keypoint", "EmbeddedDocument", keypoint)
    heatmap = [
        *label,
        _field("map", "Array"),
        _field("map_path", "String"),
        _field("range", "HeatmapRange"),
    ]
    metadata = [
        _field("size_bytes", "Int"), _field("mime_type", "String"), _field("width", "Int"),
        _field("height", "Int"), _field("num_channels", "Int"),
    ]  # fmt: skip
    document = functools.partial(_field, ftype="EmbeddedDocument")
    peaks = document("peaks", embedded="labels.Keypoints", fields=[listed])
    own = [_field(name, _type(run.schema.field(column).type)) for column, name in fields.items()]
    return {
        "info": about,
        "version": VERSION,
        "media_type": "image",
        "group_media_types": {},
        "tags": [],
        "app_config": {
            "grid_media_field": "filepath",
            "media_fields": ["filepath"],
            "modal_media_field": "filepath",
            "plugins": {},
        },
        "classes": {},
        "default_classes": [],
        "mask_targets": {},
        "default_mask_targets": {},
        "skeletons": {},
        "sample_fields": [
            _field("id", "ObjectId", db_field="_id"),
            _field("filepath", "String"),
            _field("tags", "List", subfield="String"),
            document("metadata", embedded="metadata.ImageMetadata", fields=metadata),
            _field("_media_type", "String"),
            _field("_rand", "Float"),
            _field("_dataset_id", "ObjectId"),
            _field("created_at", "DateTime", read_only=True),
            _field("last_modified_at", "DateTime", read_only=True),
            *own,
            document("heatmap", embedded="labels.Heatmap", fields=heatmap),
            *([peaks] if "peaks" in run.schema.names else []),
        ],
        "saved_views": [],
        "workspaces": [],
        "annotation_runs": {},
        "brain_methods": {},
        "evaluations": {},
        "runs": {},
    }


def _type(kind: pa.DataType) -> str:
    if pa.types.is_string(kind):
        return "String"
    return "Int" if pa.types.is_integer(kind) else "Float"


def _field(
    name: str,
    ftype: str,
    embedded: str | None = None,
    subfield: str | None = None,
    fields: list[dict[str, Any]] | None = None,
    db_field: str | None = None,
    read_only: bool = False,
) -> dict[str, Any]:
    return {
        "name": name,
        "ftype": f"{_CORE}.fields.{ftype}Field",
        "embedded_doc_type": embedded and f"{_CORE}.{embedded}",
        "subfield": subfield and f"{_CORE}.fields.{subfield}Field",
        "fields": fields or [],
        "db_field": db_field or name,
        "description": None,
        "info": None,
        "read_only": read_only,
    }
