"""A run's densities as other programs read them: a pysaliency model, NumPy's arrays, or grey PNGs.

All are written one image at a time, at the image's full size.
"""

import hashlib
import io
import itertools
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from gazecore.errors import InputError
from gazecore.hdf5 import import_h5py
from gazecore.images.formats import SUFFIXES
from gazecore.ownership import (
    MADE_BY,
    is_our_hdf5,
    is_our_npz,
    is_our_picture,
    refuse_foreign,
)
from gazecore.results.reader import Results
from gazecore.results.status import Status, run_status
from gazecore.results.stream import of_each
from gazecore.steps import Steps, told, uncounted
from gazecore.storage import Location
from gazecore.wording import counted

MapKind = Literal["density", "ranks"]

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# On six densities of MIT1003 images (3 MB each): 0.53 of their size in 50 ms; level 9 gives 0.52 in
# 100 ms, level 9 without shuffling 0.80. A chunk is what readers hold beside the image: 1 MB.
_COMPRESSION = {"compression": "gzip", "compression_opts": 4, "shuffle": True}
_CHUNK_PIXELS = 2**18
_NAME_BYTES = 160


@dataclass(frozen=True)
class Written:
    """What was exported of a run.

    Attributes:
        status: of the run.
        made: how many things, one of an image each.
        unread: image_ids whose image cannot be read any more, and why.
    """

    status: Status
    made: int
    unread: Mapping[str, str] = field(default_factory=dict)


def export_run(
    results: Results,
    out: Location,
    format: Literal["pysaliency", "png", "npz"],
    kind: MapKind = "density",
    *,
    overwrite: bool = False,
    partial: bool = False,
    steps: Steps = uncounted,
) -> Written:
    """Write the densities of a run for other programs.

    Args:
        results: the run.
        out: the HDF5 file of `pysaliency` (`write_model`), the folder of `png` (`write_maps`) and
            of `npz` (`write_arrays`).
        format: which.
        kind: what grey is in a PNG, see `saliency_map`.
        overwrite: replace files that are there and that gazecore did not make.
        partial: of a run that is not finished, what is scored so far.
        steps: how somebody is told.

    Raises:
        InputError: the run is not finished, has nothing, or would be written over; or a file of
            others would.
        CorpusError: h5py is not installed.
    """
    if format == "pysaliency":
        import_h5py()  # that it is missing is said before anything is read
        if out.fs.isdir(out.path):
            raise InputError(f"{out.uri} is a folder: --out names the HDF5 file to write")
    counts = exportable(results, out, partial)
    ids = results.plan()["image_id"].to_pylist()
    names = dataset_names(ids) if format == "pysaliency" else picture_names(ids, f".{format}")
    targets = [out] if format == "pysaliency" else [out / name for name in names.values()]
    is_ours = {"pysaliency": is_our_hdf5, "png": is_our_picture, "npz": is_our_npz}[format]
    refuse_foreign(targets, is_ours, overwrite)
    with steps("densities", counts.ok) as on_density:
        densities = told(results.densities(), on_density)
        if format == "pysaliency":
            write_model(densities, names, out)
        elif format == "npz":
            write_arrays(densities, names, out)
        else:
            write_maps(densities, names, out, kind)
    return Written(counts, counts.ok)


def exportable(results: Results, out: Location, partial: bool) -> Status:
    """How far a run is that is to be exported. Raises InputError as `export_run`."""
    uri = results.run.location.uri
    if f"{out.uri}/".startswith(f"{uri}/"):
        raise InputError("--out lies in the run, which holds its own files only: name another")
    counts = run_status(results.run)
    if counts.missing and not partial:
        raise InputError(
            f"{counts.missing:,} of {counted(counts.images, 'images')} not scored yet: `gazecore "
            "score` continues the run, --partial exports the others"
        )
    if not counts.ok:
        raise InputError(f"{uri} has no densities: no image is scored")
    return counts


def dataset_names(image_ids: Sequence[str]) -> dict[str, str]:
    """Where each image's density is in the model file: its image_id, whose folders are groups.

    Of ids that are URIs or absolute paths, the folders that all have in common are left out.
    pysaliency finds a stimulus by the end of its path, so any root will do.

    Args:
        image_ids: of the whole plan, so that names do not depend on how far the run is.

    Raises:
        InputError: a name has empty parts or `..`, is that of two images, or is a folder of
            another; or some ids are absolute and others are not.
    """
    names = dict(zip(image_ids, _relative(image_ids), strict=True))
    _refuse_clashes(names)
    return names


def picture_names(image_ids: Sequence[str], suffix: str = ".png") -> dict[str, str]:
    """The file of each image's map: as in `dataset_names`, with .png for the image's suffix.

    Images whose names differ in their suffix only are numbered in order: a.png, a-2.png.

    Raises:
        InputError: as `dataset_names`.
    """
    stems = [_stem(name) for name in _relative(image_ids)]
    reserved, used = set(stems), set[str]()
    names = {}
    for image_id, stem in zip(image_ids, stems, strict=True):
        if stem in used:
            numbered = (f"{stem}-{number}" for number in itertools.count(2))
            stem = next(n for n in numbered if n not in reserved and n not in used)
        used.add(stem)
        names[image_id] = "/".join(short_name(part) for part in f"{stem}{suffix}".split("/"))
    _refuse_clashes(names)
    return names


def write_model(
    densities: Iterable[tuple[str, np.ndarray]], names: Mapping[str, str], out: Location
) -> int:
    """Write the HDF5 file that pysaliency opens as `HDF5Model(stimuli, file)`.

    Args:
        densities: image_id and log density, float32 (height, width), logsumexp 0.
        names: see `dataset_names`.
        out: the file, replaced if it is there; it appears when it is complete.

    Returns:
        How many densities it has.

    Raises:
        CorpusError: h5py is not installed.
    """
    h5py = import_h5py()
    count = 0
    with out.staged() as path, h5py.File(path, "w") as file:
        file.attrs["made_by"] = MADE_BY
        for image_id, log_density in densities:
            height, width = log_density.shape
            rows = min(height, max(1, _CHUNK_PIXELS // width))
            file.create_dataset(
                names[image_id], data=log_density, chunks=(rows, width), **_COMPRESSION
            )
            count += 1
    return count


def write_maps(
    densities: Iterable[tuple[str, np.ndarray]],
    names: Mapping[str, str],
    out: Location,
    kind: MapKind,
) -> int:
    """Write a grey 8-bit PNG for each density; returns how many.

    Args:
        densities: image_id and log density, (height, width).
        names: see `picture_names`.
        out: the folder; files of the same names are replaced, others left alone. Names that a file
            cannot have are shortened, with a digest of the whole name.
        kind: see `saliency_map`.
    """
    count = 0
    for image_id, log_density in densities:
        (out / names[image_id]).publish(map_png(log_density, kind))
        count += 1
    return count


def map_png(log_density: np.ndarray, kind: MapKind) -> bytes:
    """A grey 8-bit PNG of `saliency_map`, which gazecore knows as its own."""
    buffer, text = io.BytesIO(), PngInfo()
    text.add_text("Software", MADE_BY)
    Image.fromarray(saliency_map(log_density, kind)).save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()


def write_arrays(
    densities: Iterable[tuple[str, np.ndarray]], names: Mapping[str, str], out: Location
) -> int:
    """Write a compressed .npz for each density; returns how many.

    Its arrays are `log_density`, float32 (height, width), natural logarithm, logsumexp 0;
    `image_id` and `made_by`, texts without dimensions. None is pickled.

    Args:
        densities, names, out: as `write_maps` takes them.
    """
    count = 0
    for image_id, data in of_each(densities, _npz):
        (out / names[image_id]).publish(data)
        count += 1
    return count


def _npz(named: tuple[str, np.ndarray]) -> tuple[str, bytes]:
    buffer = io.BytesIO()
    image_id, log_density = named
    np.savez_compressed(buffer, log_density=log_density, image_id=image_id, made_by=MADE_BY)
    return image_id, buffer.getvalue()


def saliency_map(log_density: np.ndarray, kind: MapKind) -> np.ndarray:
    """A density as grey values, the highest 255.

    Args:
        log_density: (height, width), natural logarithm.
        kind: `density`: proportional to it, as NSS, CC and SIM expect. `ranks`: each grey value
            on equally many pixels (histogram equalisation), for the AUCs, which see the order of
            the pixels only. On 60 images of MIT1003 8 bits cost 0.0040 of AUC in the one, 0.00003
            in the other, which has little more than half the NSS.

    Returns:
        uint8 (height, width), never falling where the density rises.
    """
    grey: np.ndarray
    if kind == "density":
        grey = np.rint(255 * np.exp(log_density - log_density.max()))
    else:
        ordered = np.sort(log_density, axis=None)
        first = ordered[np.arange(1, 256) * ordered.size // 256]
        grey = np.searchsorted(first, log_density, side="right")
    return grey.astype(np.uint8)


def _relative(image_ids: Sequence[str]) -> list[str]:
    """The ids as relative paths without `.`; one for each, not yet unique."""
    absolute = [bool(_SCHEME.match(i)) or i.startswith("/") for i in image_ids]
    if any(absolute) and not all(absolute):
        raise InputError(
            f"the image_id {image_ids[absolute.index(True)]!r} is absolute and "
            f"{image_ids[absolute.index(False)]!r} is not: they have no common root"
        )
    paths = [[p for p in _SCHEME.sub("", i).split("/") if p != "."] for i in image_ids]
    skip = 0
    if any(absolute):
        levels = zip(*(path[:-1] for path in paths), strict=False)
        skip = sum(1 for _ in itertools.takewhile(lambda level: len(set(level)) == 1, levels))
    names = []
    for image_id, path in zip(image_ids, paths, strict=True):
        parts = path[skip:]
        if not parts or not all(parts) or ".." in parts or "\0" in image_id:
            raise InputError(f"the image_id {image_id!r} cannot be the name of a file")
        names.append("/".join(parts))
    return names


def short_name(name: str) -> str:
    """A name that a file can have: 255 bytes, of which some are its temporary name's."""
    data = name.encode()
    if len(data) <= _NAME_BYTES:
        return name
    stem, suffix = posixpath.splitext(name)
    digest = hashlib.sha256(data).hexdigest()[:16]
    kept = stem.encode()[: _NAME_BYTES - len(suffix.encode()) - 17].decode(errors="ignore")
    return f"{kept}-{digest}{suffix}"


def _refuse_clashes(names: Mapping[str, str]) -> None:
    owners: dict[str, str] = {}
    for image_id, name in names.items():
        if (other := owners.setdefault(name, image_id)) != image_id:
            raise InputError(f"the images {other!r} and {image_id!r} would both be {name}")
    for image_id, name in names.items():
        for folder in _folders(name):
            if folder in owners:
                raise InputError(
                    f"the image {owners[folder]!r} would be {folder}, which has to be a folder "
                    f"for {image_id!r}"
                )


def _folders(name: str) -> Iterator[str]:
    while name := name.rpartition("/")[0]:
        yield name


def _stem(name: str) -> str:
    stem, suffix = posixpath.splitext(name)
    return stem if suffix.lower() in SUFFIXES else name
