"""Others' maps: a file of each image, or all of them in one, as densities that are judged."""

import io
import math
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

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

_SUFFIXES = (".png", ".npy", ".tif", ".tiff", ".jpg", ".jpeg")
_ARCHIVES = (".npz", ".h5", ".hdf5")

_PARTS = 5
"""Of the judged images; the conversion of each part is fitted to the other parts."""

_SLACK = 0.01
"""By how much the log of a density's sum may differ from 0, as in pysaliency."""


class Maps:
    """The maps of the judged images, and the densities that they are taken for.

    Has what `densities.Densities` has, for maps.

    Attributes:
        images: those that are judged.
        left_out: empty: where a map is missing, nothing is judged.
        run: None.
        model: what the maps are, for the summary.
        source, values: see `__init__`.
    """

    run = None

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
        self._archive: Mapping[str, Any] | None = None
        self._folder = Location(source)
        if source.endswith(_ARCHIVES):
            self._archive = _open(self._folder)
            names: Iterable[str] = self._archive
        else:
            names = _files(self._folder)
        self._names = _matched(list(names), chosen, source)
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
            values = np.asarray(self._read(name, size, where), dtype=np.float64)
        except (OSError, TypeError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"{where} cannot be read: {one_line(error)}") from error
        _require_size(values.shape, size, where)
        finite = np.isfinite(values)
        if self.values == "log-density":
            finite |= np.isneginf(values)  # a density of 0
        if not finite.all():
            raise InputError(f"{where} has values that are not finite")
        return values

    def _read(self, name: str, size: tuple[int, int], where: str) -> np.ndarray:
        if self._archive is not None:
            return np.asarray(self._archive[name])
        data = (self._folder / name).read_bytes()
        if name.lower().endswith(".npy"):
            return np.asarray(np.load(io.BytesIO(data), allow_pickle=False))
        with Image.open(io.BytesIO(data)) as picture:
            _require_size((picture.height, picture.width), size, where)  # before it is decoded
            pixels = np.asarray(picture.convert("RGB") if picture.mode == "P" else picture)
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


def _open(location: Location) -> Mapping[str, Any]:
    """An archive's maps by name."""
    try:
        data = io.BytesIO(location.read_bytes())
        if location.uri.endswith(".npz"):
            archive = np.load(data, allow_pickle=False)
            return {name: archive[name] for name in archive.files}
        h5py = import_h5py()
        found: dict[str, Any] = {}

        def keep(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                found[name] = item

        h5py.File(data, "r").visititems(keep)
        return found
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the maps of {location.uri}: {one_line(error)}") from error


def _matched(names: list[str], chosen: list[str], source: str) -> dict[str, str]:
    """image_id to the name of its map: the image's own, with any suffix, in any folder."""
    known: dict[str, str | None] = {}
    for name in names:
        for form in _forms(name):
            known[form] = None if form in known else name  # two of a name are nobody's
    found: dict[str, str] = {}
    for image_id in chosen:
        if match := next(filter(None, map(known.get, _forms(image_id))), None):
            found[image_id] = match
    if missing := [image_id for image_id in chosen if image_id not in found]:
        raise InputError(
            f"{source} has no map of {len(missing):,} images, such as {', '.join(missing[:3])}; it "
            f"names them like {names[0]!r}; --images judges only some"
            if names
            else f"{source} has no maps: PNG, NPY, TIFF or JPEG files, or an NPZ or HDF5 file"
        )
    return found


def _forms(name: str) -> list[str]:
    """A name as others may have it, the most exact form first."""
    bare = posixpath.splitext(name)[0]
    forms = [name, bare, posixpath.basename(name), posixpath.basename(bare)]
    return list(dict.fromkeys(forms))
