"""The layout of OSIE (Xu et al. 2014): `stimuli/*.jpg` and `fixations.mat`.

`fixations.mat` holds a cell array `fixations` with one struct per image: `.img` (file name) and
`.subjects` (structs of `fix_x`, `fix_y` in pixels and `fix_duration` in milliseconds, in viewing
order). Coordinates are taken as they are. Fixations outside their image are dropped and counted.
"""

import io
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.io
from PIL import Image

from gazecore.corpus.schema import FIXATIONS, IMAGES, Corpus
from gazecore.errors import CorpusError, one_line
from gazecore.storage import Location


def read_osie(source: str) -> Corpus:
    """Import a folder in OSIE's layout.

    Raises:
        CorpusError: a file or field is missing or malformed; the message names it.
    """
    root = Location(source)
    mat = root / "fixations.mat"
    try:
        cells = scipy.io.loadmat(
            io.BytesIO(mat.read_bytes()), squeeze_me=True, struct_as_record=False
        )["fixations"]
    except Exception as error:  # scipy raises many kinds on damaged files
        raise CorpusError(
            f"{mat.uri}: no readable cell array `fixations`: {one_line(error)}"
        ) from error
    images: list[dict[str, Any]] = []
    columns: dict[str, list[Any]] = {name: [] for name in FIXATIONS.names}
    sizes: dict[str, tuple[int, int]] = {}
    outside = 0
    for position, cell in enumerate(np.atleast_1d(cells)):
        try:
            name, subjects = str(cell.img), np.atleast_1d(cell.subjects)
            scanpaths = [
                [
                    np.atleast_1d(getattr(s, key)).astype(float)
                    for key in ("fix_x", "fix_y", "fix_duration")
                ]
                for s in subjects
            ]
        except (AttributeError, ValueError, TypeError) as error:
            raise CorpusError(
                f"{mat.uri}: fixations{{{position + 1}}}: {one_line(error)}"
            ) from error
        if name in sizes:
            raise CorpusError(f"{mat.uri}: {name} stands there twice")
        height, width = sizes[name] = _size(root / "stimuli" / name)
        images.append(
            {
                "image_id": name,
                "uri": (root / "stimuli" / name).uri,
                "height": height,
                "width": width,
            }
        )
        for subject, (x, y, duration) in enumerate(scanpaths):
            if not len(x) == len(y) == len(duration):
                raise CorpusError(
                    f"{mat.uri}: {name}, subject {subject + 1}: fix_x, fix_y and fix_duration "
                    f"have {len(x)}, {len(y)} and {len(duration)} values"
                )
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            outside += int((~inside).sum())
            kept = int(inside.sum())
            columns["image_id"] += [name] * kept
            columns["subject"] += [str(subject + 1)] * kept
            columns["index"] += np.flatnonzero(inside).tolist()
            columns["x"] += x[inside].tolist()
            columns["y"] += y[inside].tolist()
            columns["t"] += [None] * kept
            columns["duration"] += (duration[inside] / 1000).tolist()
    return Corpus(
        pa.Table.from_pylist(images, schema=IMAGES),
        pa.table(columns, schema=FIXATIONS),
        {"outside the image": outside},
    )


def _size(location: Location) -> tuple[int, int]:
    """Height and width after EXIF rotation."""
    try:
        with location.fs.open(location.path) as file, Image.open(file) as image:
            rotated = image.getexif().get(0x0112, 1) > 4
            return (image.width, image.height) if rotated else (image.height, image.width)
    except OSError as error:
        raise CorpusError(f"{location.uri}: {one_line(error)}") from error
