"""What importers share: reading image sizes and MATLAB files, and gathering scanpaths."""

import io
import warnings
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.io
from PIL import Image, UnidentifiedImageError

from gazecore.corpus.schema import FIXATIONS, IMAGES, Corpus
from gazecore.errors import CorpusError, one_line
from gazecore.storage import Location

OUTSIDE = "fixations outside the image"
NOWHERE = "fixations whose position is not a number"
WITHOUT_IMAGE = "files of fixations without an image"
_ORIENTATION = 0x0112


class Collector:
    """Gathers images and scanpaths, and counts what is left out of them.

    Attributes:
        sizes: height and width of each image so far.
        dropped: reason to count; the reason starts with the noun ("fixations outside the image").
    """

    def __init__(self) -> None:
        self.sizes: dict[str, tuple[int, int]] = {}
        self.dropped: Counter[str] = Counter({OUTSIDE: 0})
        self._images: list[dict[str, Any]] = []
        self._ids: list[str] = []
        self._subjects: list[str] = []
        self._numbers: dict[str, list[np.ndarray]] = {
            name: [] for name in ("index", "x", "y", "t", "duration")
        }

    def add_image(self, image_id: str, uri: str, size: tuple[int, int]) -> None:
        """Add an image of `size` (height, width). Raises CorpusError for an id seen before."""
        if image_id in self.sizes:
            raise CorpusError(f"{uri}: there are two images named {image_id}")
        self.sizes[image_id] = size
        self._images.append({"image_id": image_id, "uri": uri, "height": size[0], "width": size[1]})

    def drop(self, reason: str, count: int) -> None:
        """Count what is left out, if there is anything."""
        if count:
            self.dropped[reason] += count

    def add_scanpath(
        self,
        image_id: str,
        subject: str | Sequence[str],
        x: np.ndarray,
        y: np.ndarray,
        t: np.ndarray | None = None,
        duration: np.ndarray | None = None,
        index: np.ndarray | None = None,
    ) -> None:
        """Add fixations on an image that was added before.

        Those outside of the image, or whose position is not a number, are dropped and counted.

        Args:
            image_id: the image.
            subject: who made them; a sequence names one for each fixation.
            x, y: (n,) pixels, 0-based.
            t, duration: (n,) seconds; NaN or no array where the source has none.
            index: (n,) order within the scanpath; 0, 1, ... if not given.
        """
        height, width = self.sizes[image_id]
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        kept, nowhere = int(inside.sum()), int((np.isnan(x) | np.isnan(y)).sum())
        self.dropped[OUTSIDE] += len(x) - kept - nowhere
        self.drop(NOWHERE, nowhere)
        self._ids += [image_id] * kept
        if isinstance(subject, str):
            self._subjects += [subject] * kept
        else:
            self._subjects += [s for s, keep in zip(subject, inside, strict=True) if keep]
        unknown = np.full(len(x), np.nan)
        for name, values in (
            ("index", np.arange(len(x)) if index is None else index),
            ("x", x),
            ("y", y),
            ("t", unknown if t is None else t),
            ("duration", unknown if duration is None else duration),
        ):
            self._numbers[name].append(np.asarray(values)[inside])

    def corpus(self) -> Corpus:
        """The corpus of what was added, in that order."""
        columns: dict[str, Any] = {"image_id": self._ids, "subject": self._subjects}
        for name, parts in self._numbers.items():
            kind = np.int32 if name == "index" else np.float64
            values = np.concatenate([np.empty(0, kind), *parts]).astype(kind)
            columns[name] = pa.array(values, from_pandas=name in ("t", "duration"))
        return Corpus(
            pa.Table.from_pylist(self._images, schema=IMAGES),
            pa.table(columns, schema=FIXATIONS),
            dict(self.dropped),
        )


def image_size(location: Location, upright: bool = True) -> tuple[int, int]:
    """Height and width of an image file, of which only the header is read.

    Args:
        location: the file.
        upright: after EXIF rotation, as every other part of gazecore sees the image.

    Raises:
        CorpusError: it is missing or no image.
    """
    try:
        # No pixel is decoded, so Pillow's warnings of large images are beside the point.
        with warnings.catch_warnings(), location.fs.open(location.path) as file:
            warnings.simplefilter("ignore")
            with Image.open(file) as image:
                rotated = upright and image.getexif().get(_ORIENTATION, 1) > 4
                return (image.width, image.height) if rotated else (image.height, image.width)
    except UnidentifiedImageError as error:
        raise CorpusError(f"{location.uri} is not an image that can be read") from error
    except (OSError, Image.DecompressionBombError) as error:
        raise CorpusError(f"{location.uri}: {one_line(error)}") from error


def left_over(folder: Location, suffixes: tuple[str, ...], used: Collection[str]) -> int:
    """How many files of these suffixes lie in a folder and are not used."""
    names = [n for n in folder.names() if n.lower().endswith(suffixes) and n[0] != "."]
    return len(set(names).difference(used))


def read_mat(location: Location, variable: str) -> Any:
    """One variable of a MATLAB file; structs have attributes, singleton dimensions are gone.

    Raises:
        CorpusError: the file is missing or damaged, or has no such variable.
    """
    try:
        data = io.BytesIO(location.read_bytes())
        return scipy.io.loadmat(
            data, variable_names=[variable], squeeze_me=True, struct_as_record=False
        )[variable]
    except NotImplementedError as error:
        raise CorpusError(
            f"{location.uri} is a MATLAB v7.3 file, which is HDF5: in MATLAB, load and save it "
            "with -v7"
        ) from error
    except Exception as error:  # scipy raises many kinds on damaged files
        raise CorpusError(
            f"{location.uri}: no readable variable `{variable}`: {one_line(error)}"
        ) from error


def mat_points(values: Any, where: str) -> tuple[np.ndarray, np.ndarray]:
    """x and y, the first two columns of a MATLAB matrix (n, 2) or (n, 3), whose n may be 0 or 1.

    Args:
        values: the matrix, singleton dimensions gone.
        where: file and field, for the message.

    Raises:
        CorpusError: it is no numeric matrix of two or three columns.
    """
    try:
        matrix = np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise CorpusError(f"{where} is not numeric: {one_line(error)}") from error
    if matrix.size == 0:
        return np.empty(0), np.empty(0)
    if matrix.ndim == 1 and len(matrix) <= 3:  # one row; scipy took its other dimension
        matrix = matrix[None]
    if matrix.ndim != 2 or matrix.shape[1] not in (2, 3):
        raise CorpusError(f"{where} has the shape {matrix.shape}, not (n, 2)")
    return matrix[:, 0], matrix[:, 1]
