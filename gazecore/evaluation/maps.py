"""Others' maps: a file of each image, or all of them in one, as densities that are judged."""

import functools
import io
import math
import posixpath
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

import numpy as np
from PIL import Image

from gazecore.corpus.schema import Corpus
from gazecore.errors import InputError, one_line
from gazecore.evaluation import conversion
from gazecore.evaluation.densities import Predicted
from gazecore.evaluation.settings import MapsAre
from gazecore.hdf5 import import_h5py
from gazecore.metrics.maps import to_density
from gazecore.metrics.recording import Recording, recordings
from gazecore.storage import Location
from gazecore.threads import side_by_side
from gazecore.wording import counted

_SUFFIXES = (".png", ".npy", ".tif", ".tiff", ".jpg", ".jpeg")
_ARCHIVES = (".npz", ".h5", ".hdf5")

_PARTS = 5
"""Of the judged images; the conversion of each part is fitted to the other parts."""

_UNREADABLE = (
    OSError,
    EOFError,
    TypeError,
    ValueError,
    KeyError,
    SyntaxError,
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,  # a zip's compression that Python does not know
    Image.DecompressionBombError,
)
"""What damaged files raise."""

_Read = Callable[[tuple[int, int], str], np.ndarray]
"""Reads a map of an image's (height, width); the text is what errors call it."""

_SLACK = 0.01
"""By how much the log of a density's sum may differ from 0, as in pysaliency."""


class Maps:
    """The maps of the judged images, and the densities that they are taken for.

    Has what `densities.Densities` has, for maps.

    Attributes:
        images: those that are judged.
        left_out: empty: where a map is missing, nothing is judged.
        run: None.
        trained_on: nothing is known.
        model: what the maps are, for the summary.
        source, values: see `__init__`.
    """

    run, trained_on = None, ""

    def __init__(
        self,
        corpus: Corpus,
        chosen: list[str],
        source: str,
        values: MapsAre,
        baseline: str = "centerbias",
    ) -> None:
        """Find the maps.

        Args:
            corpus: images and fixations.
            chosen: images that are judged; a map's name is the image's, with any suffix.
            source: a folder of PNG, NPY, TIFF or JPEG files, or an NPZ or HDF5 file
                (`pysaliency.export_model_to_hdf5`).
            values: what they are.
            baseline: `centerbias` or `uniform`, what information gain is over.

        Raises:
            InputError: there is no such source, or a map is missing.
        """
        self.images, self.source, self.left_out = list(chosen), source, dict[str, int]()
        self.model = f"{values} maps of {source}"
        self.values = values
        self._baseline = np.zeros((2, 2)) if baseline == "uniform" else None
        self._sizes = {r["image_id"]: (r["height"], r["width"]) for r in corpus.images.to_pylist()}
        self._folder = Location(source)
        self._archive = _open(self._folder) if source.endswith(_ARCHIVES) else None
        names = _files(self._folder) if self._archive is None else list(self._archive)
        self._names = _matched(names, chosen, source)
        self._conversions: dict[str, conversion.Conversion] = {}
        if values == "saliency":
            wanted = set(chosen)
            self._fit([r for r in recordings(corpus) if r.image_id in wanted])

    def __iter__(self) -> Iterator[Predicted]:
        """Each image with its log density and, where they are no densities, its map."""
        for image_id in self.images:
            saliency = self.saliency(image_id)
            density = self._log_density(image_id, saliency)
            judged = saliency if self.values == "saliency" else None
            yield Predicted(image_id, density, self._baseline, judged)

    def of_model(self, image_id: str) -> np.ndarray:
        """The log density that an image's map is taken for."""
        return self._log_density(image_id, self.saliency(image_id))

    def saliency(self, image_id: str) -> np.ndarray:
        """The map itself, float64 (height, width) of the image.

        Raises:
            InputError: it is not readable, not finite, or of another size than the image.
        """
        name, size = self._names[image_id], self._sizes[image_id]
        where = f"the map {name} of {self.source}"
        try:
            found = self._read(name, size, where)
        except _UNREADABLE as error:
            raise InputError(f"{where} cannot be read: {one_line(error)}") from error
        if found.dtype.kind not in "buif":
            raise InputError(f"{where} has values that are no numbers: {found.dtype}")
        values = np.asarray(found, dtype=np.float64)
        finite = np.isfinite(values)
        if self.values == "log-density":
            finite |= np.isneginf(values)  # a density of 0
        if not finite.all():
            raise InputError(f"{where} has values that are not finite")
        return values

    def _read(self, name: str, size: tuple[int, int], where: str) -> np.ndarray:
        """The values as they are stored; their size is looked at before any is read."""
        if self._archive is not None:
            return self._archive[name](size, where)
        data = io.BytesIO((self._folder / name).read_bytes())
        if name.lower().endswith(".npy"):
            return _npy(data, size, where)
        with Image.open(data) as picture:
            _require_size((picture.height, picture.width), size, where)
            plain = {"P": "RGB", "PA": "RGB", "LA": "L"}.get(picture.mode, picture.mode)
            pixels = np.asarray(picture.convert(plain))
        if pixels.ndim == 3:
            if np.ptp(pixels[..., :3], axis=2).any():
                raise InputError(f"{where} is a picture in colours, not a map")
            pixels = pixels[..., 0]
        return pixels

    def _log_density(self, image_id: str, values: np.ndarray) -> np.ndarray:
        where = f"the map {self._names[image_id]} of {self.source}"
        if self.values == "saliency":
            return self._conversions[image_id].log_density(values)
        if self.values == "density":
            if values.min() < 0:
                raise InputError(f"{where} has values below 0: it is no density")
            if not values.max():
                raise InputError(f"{where} is 0 everywhere: it is no density")
            with np.errstate(divide="ignore"):
                return np.asarray(np.log(to_density(values)))
        highest = float(values.max())
        total = highest + math.log(np.exp(values - highest).sum())
        if not abs(total) <= _SLACK:
            whole = math.exp(min(total, 700))
            raise InputError(f"{where} is no log density: its exponentials sum to {whole:.3g}")
        return values

    def _fit(self, judged: list[Recording]) -> None:
        """Fit a conversion for each part of the images, to the others."""
        parts = min(_PARTS, len(judged))
        if parts < 2:
            raise InputError("a conversion of maps needs at least two images: one is fitted to")
        part = np.random.default_rng(0).permutation(len(judged)) % parts

        def fitted(number: int) -> conversion.Conversion:
            others = [r for r, own in zip(judged, part, strict=True) if own != number]
            return conversion.fit(self.saliency, others)

        with side_by_side() as pool:
            found = list(pool.map(fitted, range(parts)))
        for recording, own in zip(judged, part, strict=True):
            self._conversions[recording.image_id] = found[own]


def _require_size(found: tuple[int, ...], size: tuple[int, int], where: str) -> None:
    if tuple(found) != size:
        shape = "x".join(map(str, reversed(found)))
        raise InputError(f"{where} has {shape} values, its image {size[1]}x{size[0]} pixels")


def _files(folder: Location) -> list[str]:
    """Names of the files with maps in a folder and those below it."""
    try:
        found = folder.fs.find(folder.path)
    except OSError as error:
        raise InputError(f"cannot list the maps of {folder.uri}: {one_line(error)}") from error
    inside = [name.removeprefix(folder.path).lstrip("/") for name in found]
    return [name for name in inside if name.lower().endswith(_SUFFIXES)]


def _npy(file: IO[bytes], size: tuple[int, int], where: str) -> np.ndarray:
    """The array of an NPY file of this size; never a pickle."""
    version = np.lib.format.read_magic(file)
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, _, _ = read(file)
    _require_size(shape, size, where)
    file.seek(0)
    return np.asarray(np.lib.format.read_array(file, allow_pickle=False))


def _open(location: Location) -> dict[str, _Read]:
    """What reads an archive's maps, by name."""
    try:
        data = io.BytesIO(location.read_bytes())
        if location.uri.endswith(".npz"):
            archive = zipfile.ZipFile(data)

            def of_npz(name: str, size: tuple[int, int], where: str) -> np.ndarray:
                with archive.open(name) as file:
                    return _npy(file, size, where)

            arrays = [name for name in archive.namelist() if name.endswith(".npy")]
            return {n.removesuffix(".npy"): functools.partial(of_npz, n) for n in arrays}
        h5py = import_h5py()
        found: dict[str, _Read] = {}

        def of_hdf5(item: Any, size: tuple[int, int], where: str) -> np.ndarray:
            _require_size(item.shape, size, where)
            return np.asarray(item)

        def keep(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                found[name] = functools.partial(of_hdf5, item)

        h5py.File(data, "r").visititems(keep)
        return found
    except _UNREADABLE as error:
        raise InputError(f"cannot read the maps of {location.uri}: {one_line(error)}") from error


def _matched(names: list[str], chosen: list[str], source: str) -> dict[str, str]:
    """image_id to the name of its map: the image's own, with any suffix, in any folder.

    Raises:
        InputError: an image has none, or several that are named alike; or two images share one.
    """
    if not names:
        raise InputError(
            f"{source} has no maps: PNG, NPY, TIFF or JPEG files, or an NPZ or HDF5 file"
        )
    known: dict[str, list[str]] = {}
    for name in names:
        for form in _forms(name):
            known.setdefault(form, []).append(name)
    found: dict[str, str] = {}
    missing = []
    for image_id in chosen:
        match = next(filter(None, map(known.get, _forms(image_id))), None)
        if match is None:
            missing.append(image_id)
        elif len(match) > 1:
            raise InputError(f"{source} has {' and '.join(match[:2])}: which is {image_id}'s map?")
        else:
            found[image_id] = match[0]
    if missing:
        raise InputError(
            f"{source} has no map of {counted(len(missing), 'images')}, such as "
            f"{', '.join(missing[:3])}; it names them like {names[0]!r}; --images judges only some"
        )
    owners: dict[str, str] = {}
    for image_id, name in found.items():
        if name in owners:
            raise InputError(
                f"{source}: {name} would be the map of {owners[name]} and of {image_id}: name maps "
                "as the images are named, folders included"
            )
        owners[name] = image_id
    return found


def _forms(name: str) -> list[str]:
    """A name as others may have it, the most exact form first."""
    bare = posixpath.splitext(name)[0]
    forms = [name, bare, posixpath.basename(name), posixpath.basename(bare)]
    return list(dict.fromkeys(forms))
