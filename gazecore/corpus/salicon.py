"""SALICON (Jiang et al. 2015): mouse traces on MS COCO images, as `.mat` files or as JSON.

    images/<split>/COCO_*.jpg         480x640
    fixations/<split>/COCO_*.mat      `resolution` [480 640] and `gaze`, one struct a worker with
                                      `location` (t, 2), `timestamp` (t) in ms, `fixations` (n, 2)
    fixations_<split>2014.json        `images` (id, file_name, height, width) and `annotations`
                                      (image_id, worker_id, fixations)

Both releases (2015 and 2017) have this layout. Positions count from 1: (x, y) in the `.mat` files,
[row, column] in the JSON. Where workers are not named, as in the `.mat` files, a subject is the
number of a worker within the image: subject 1 of two images is two people. Positions outside of
the image, frequent in the mouse traces of 2017, are dropped and counted (pysaliency clips them).
"""

import json
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from gazecore.corpus.collect import (
    WITHOUT_IMAGE,
    Collector,
    image_size,
    left_over,
    mat_points,
    read_mat,
)
from gazecore.corpus.schema import Corpus
from gazecore.errors import CorpusError, one_line
from gazecore.images.formats import SUFFIXES
from gazecore.storage import Location

SIZE = (480, 640)
"""Height and width of every image."""


@dataclass(frozen=True)
class SaliconOptions:
    """Which part of SALICON is read, and from which files."""

    split: Literal["train", "val", "test"] = "train"
    """`test` has images only."""
    images: str | None = None
    """Folder of the images, relative to SOURCE. Default: `images/SPLIT`."""
    annotations: str | None = None
    """Folder of `.mat` files or a `.json` file, relative to SOURCE. Default: `fixations/SPLIT`."""
    points: Literal["fixations", "mouse"] = "fixations"
    """What counts as a fixation: those detected, or every sample of the mouse (`.mat` only)."""


def read_salicon(source: str, options: SaliconOptions | None = None) -> Corpus:
    """Import one split of SALICON.

    Raises:
        CorpusError: a file or field is missing or malformed; the message names it.
    """
    options = options or SaliconOptions()
    root = Location(source)
    images = root / (options.images or f"images/{options.split}")
    annotations = root / (options.annotations or f"fixations/{options.split}")
    if annotations.path.endswith(".json"):
        if options.points == "mouse":
            raise CorpusError(f"{annotations.uri}: the JSON files hold no mouse traces")
        return _from_json(annotations, images)
    names = [n for n in images.names() if n.lower().endswith(SUFFIXES) and n[0] != "."]
    if not names:
        raise CorpusError(f"{images.uri}: no images there")
    collector = Collector()
    for name in names:
        _add_image(collector, images, name)
        if options.split != "test":
            _add_gaze(collector, name, annotations / f"{name.rpartition('.')[0]}.mat", options)
    if options.split != "test":
        used = [f"{name.rpartition('.')[0]}.mat" for name in names]
        collector.drop(WITHOUT_IMAGE, left_over(annotations, (".mat",), used))
    return collector.corpus()


def _add_image(collector: Collector, images: Location, name: str) -> None:
    size = image_size(images / name)
    if size != SIZE:
        raise CorpusError(f"{(images / name).uri} has {size[1]}x{size[0]} pixels, not 640x480")
    collector.add_image(name, (images / name).uri, size)


def _add_gaze(collector: Collector, name: str, mat: Location, options: SaliconOptions) -> None:
    resolution = np.asarray(read_mat(mat, "resolution"))
    if resolution.tolist() != list(SIZE):
        raise CorpusError(f"{mat.uri}: resolution is {resolution.tolist()}, not {list(SIZE)}")
    for worker, gaze in enumerate(np.atleast_1d(read_mat(mat, "gaze")), start=1):
        field = "location" if options.points == "mouse" else "fixations"
        where = f"{mat.uri}: gaze({worker})"
        t = None
        try:
            points = getattr(gaze, field)
            if options.points == "mouse":
                t = np.asarray(gaze.timestamp, dtype=float).ravel() / 1000
        except (AttributeError, TypeError, ValueError) as error:
            raise CorpusError(f"{where}: {one_line(error)}") from error
        x, y = mat_points(points, f"{where}.{field}")
        if t is not None and len(t) != len(x):
            raise CorpusError(f"{where}: {len(x)} locations but {len(t)} in timestamp")
        collector.add_scanpath(name, str(worker), x - 1, y - 1, t=t)


def _from_json(location: Location, images: Location) -> Corpus:
    try:
        document = json.loads(location.read_bytes())
        listed: list[dict[str, Any]] = document["images"]
        names = {entry["id"]: str(entry["file_name"]) for entry in listed}
        annotated = [
            (a["image_id"], a.get("worker_id"), a["fixations"])
            for a in document.get("annotations", [])
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise CorpusError(
            f"{location.uri}: `images` need id and file_name, `annotations` image_id and "
            f"fixations: {one_line(error)}"
        ) from error
    except (OSError, ValueError) as error:
        raise CorpusError(f"{location.uri} is not readable JSON: {one_line(error)}") from error
    if not names or len(names) < len(listed):
        raise CorpusError(f"{location.uri}: images is empty, or two of them have one id")
    collector = Collector()
    for name in names.values():
        _add_image(collector, images, name)
    workers = dict.fromkeys(names, 0)
    for number, (image_id, worker, fixations) in enumerate(annotated):
        if not isinstance(image_id, int | str) or image_id not in names:
            raise CorpusError(f"{location.uri}: annotation {number}: no image {image_id} in images")
        workers[image_id] += 1
        row, column = mat_points(fixations, f"{location.uri}: annotation {number}: fixations")
        subject = str(workers[image_id] if worker is None else worker)
        collector.add_scanpath(names[image_id], subject, column - 1, row - 1)
    unnamed = left_over(images, SUFFIXES, collector.sizes)
    collector.drop(f"images that {location.path.rpartition('/')[2]} does not name", unnamed)
    return collector.corpus()
