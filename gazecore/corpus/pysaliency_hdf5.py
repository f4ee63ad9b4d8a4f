"""pysaliency's HDF5 files, read and written (needs h5py, the extra `pysaliency`).

Read are stimuli as files (`FileStimuli` 1.0 to 2.1) or as pixels (`Stimuli` 1.0, 1.1), and
fixations as `Fixations` (1.0 to 1.2), `FixationTrains` (1.0 to 1.3), `Scanpaths` and
`ScanpathFixations` (1.0). Written are `FileStimuli` 2.1 and `FixationTrains` 1.2, which all its
releases read.

Times are taken as they are; NaN means that there is none, and so does a time of 0 on every one of
`Fixations`, which is what pysaliency gives those without. Durations are those named `durations` or
`duration`. What the corpus knows and pysaliency does not (image ids, subjects' names, gaps in
`index`) is written as attributes that pysaliency keeps or ignores, and read from there.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from gazecore.corpus.collect import Collector, image_size
from gazecore.corpus.schema import Corpus
from gazecore.errors import CorpusError, InputError, one_line
from gazecore.hdf5 import import_h5py
from gazecore.ownership import MADE_BY, is_our_hdf5, refuse_foreign
from gazecore.storage import Location
from gazecore.wording import counted

_VERSIONS = {
    "FileStimuli": ("1.0", "2.0", "2.1"),
    "Stimuli": ("1.0", "1.1"),
    "Fixations": ("1.0", "1.1", "1.2"),
    "FixationTrains": ("1.0", "1.1", "1.2", "1.3"),
    "Scanpaths": ("1.0",),
    "ScanpathFixations": ("1.0",),
}
_STIMULI = ("FileStimuli", "Stimuli")
_NAMES = "gazecore_subjects"
_DURATIONS = ("durations", "duration")


@dataclass(frozen=True)
class PysaliencyOptions:
    """Which HDF5 files belong together; names are relative to SOURCE."""

    stimuli: str = "stimuli.hdf5"
    """File with the stimuli."""
    fixations: str = "fixations.hdf5"
    """File with fixations or scanpaths; `none` for stimuli alone."""


def read_pysaliency(source: str, copies: str, options: PysaliencyOptions | None = None) -> Corpus:
    """Import a pair of HDF5 files.

    Args:
        source: their folder.
        copies: folder for stimuli that are stored as pixels; they are written there as PNG.
        options: the files' names.

    Raises:
        CorpusError: h5py is not installed; a file or field is missing or malformed.
    """
    options = options or PysaliencyOptions()
    folder, collector = Location(source), Collector()
    with _open(folder / options.stimuli, _STIMULI) as file:
        ids = _add_stimuli(collector, folder / options.stimuli, file, copies)
    if options.fixations != "none":
        kinds = tuple(kind for kind in _VERSIONS if kind not in _STIMULI)
        with _open(folder / options.fixations, kinds) as file:
            columns = _columns(file)
            image = columns.pop("n")
            for name, values in columns.items():
                if len(values) != len(image):
                    raise ValueError(
                        f"{counted(len(image), 'fixations')}, but {len(values)} of `{name}`"
                    )
            if len(image) and not 0 <= image.min() <= image.max() < len(ids):
                raise ValueError(f"`n` names images beyond the {len(ids)} stimuli")
            names = json.loads(file.attrs.get(_NAMES, "null"))
            subject = columns.pop("subject").tolist()
            subjects = [names[s] if names else _string(s) for s in subject]
        order = np.argsort(image, kind="stable")
        bounds = np.searchsorted(image[order], np.arange(1, len(ids)))
        for image_id, rows in zip(ids, np.split(order, bounds) if ids else [], strict=True):
            part = {name: values[rows] for name, values in columns.items()}
            collector.add_scanpath(image_id, [subjects[row] for row in rows], **part)
    return collector.corpus()


def export_corpus(corpus: Corpus, out: Location, *, overwrite: bool = False) -> None:
    """Write OUT/stimuli.hdf5 and OUT/fixations.hdf5.

    Args:
        corpus: see `write_stimuli`.
        out: a local folder.
        overwrite: replace files that are there and that gazecore did not make.

    Raises:
        InputError: the folder is not local, or has files of others.
        CorpusError: h5py is not installed, or an image is not usable.
    """
    if not out.is_local:
        raise InputError(f"{out.uri} is not local: pysaliency's stimuli are local files")
    refuse_foreign([out / "stimuli.hdf5", out / "fixations.hdf5"], is_our_hdf5, overwrite)
    write_stimuli(corpus, (out / "stimuli.hdf5").path)
    write_scanpaths(corpus, (out / "fixations.hdf5").path)


def write_stimuli(corpus: Corpus, path: str) -> None:
    """Write the images of a corpus as `FileStimuli`, with paths relative to the file.

    Args:
        corpus: its images must be local files. pysaliency does not follow EXIF rotation, so an
            image that has one is refused.
        path: the HDF5 file, replaced if it is there.

    Raises:
        CorpusError: h5py is not installed, or an image is not usable.
    """
    h5py = import_h5py()
    names, shapes = [], []
    for row in corpus.images.to_pylist():
        location = Location(row["uri"])
        if not location.is_local:
            raise CorpusError(f"{row['uri']}: pysaliency reads local files only")
        size = image_size(location, upright=False)
        with Image.open(location.path) as image:
            bands = len(image.getbands())
        if size != (row["height"], row["width"]):
            raise CorpusError(f"{row['uri']}: pysaliency would not follow its EXIF rotation")
        names.append(os.path.relpath(location.path, os.path.dirname(os.path.abspath(path))))
        shapes.append((*size, bands) if bands > 1 else size)
    with _created(path, "FileStimuli", "2.1") as file:
        file.create_dataset("filenames", data=names, dtype=h5py.string_dtype())
        lengths = h5py.vlen_dtype(np.dtype("int64"))
        stored = file.create_dataset("shapes", (len(shapes),), dtype=lengths)
        for i, shape in enumerate(shapes):
            stored[i] = np.array(shape)
        file.create_dataset("image_id", data=corpus.image_ids, dtype=h5py.string_dtype())
        # pysaliency cannot read an attribute of no images.
        file.attrs["__attributes__"] = np.bytes_(json.dumps(["image_id"] if names else []))
        file.attrs["size"] = len(names)


def write_scanpaths(corpus: Corpus, path: str) -> None:
    """Write the fixations of a corpus as `FixationTrains`; image n is row n of its images.

    Raises:
        CorpusError: h5py is not installed.
    """
    import_h5py()
    table = corpus.fixations.to_pydict()
    image = {image_id: n for n, image_id in enumerate(corpus.image_ids)}
    names = sorted(set(table["subject"]))
    plain = all(name.isdecimal() and len(name) < 10 and name == str(int(name)) for name in names)
    number = {name: int(name) if plain else i for i, name in enumerate(names)}
    trains: dict[tuple[int, int], list[int]] = {}
    for row, (image_id, subject) in enumerate(
        zip(table["image_id"], table["subject"], strict=True)
    ):
        trains.setdefault((image[image_id], number[subject]), []).append(row)
    for rows in trains.values():
        rows.sort(key=table["index"].__getitem__)
    longest = max([1, *map(len, trains.values())])
    order = {
        name: np.full((len(trains), longest), np.nan)
        for name in ("x", "y", "t", "duration", "index")
    }
    for name, matrix in order.items():
        values = corpus.fixations[name].to_numpy()
        for i, rows in enumerate(trains.values()):
            matrix[i, : len(rows)] = values[rows]
    with _created(path, "FixationTrains", "1.2") as file:
        for name in ("x", "y", "t"):
            file.create_dataset(f"train_{name}s", data=order[name])
        pairs = np.array(list(trains), dtype=int).reshape(-1, 2)
        file.create_dataset("train_ns", data=pairs[:, 0])
        file.create_dataset("train_subjects", data=pairs[:, 1])
        file.attrs["__attributes__"] = np.bytes_(json.dumps(["subjects", "scanpath_index"]))
        mapping = {"durations": "duration"}
        file.attrs["scanpath_attribute_mapping"] = np.bytes_(json.dumps(mapping))
        file.create_group("scanpath_attributes").attrs["__attributes__"] = np.bytes_("[]")
        group = file.create_group("scanpath_fixation_attributes")
        group.create_dataset("durations", data=order["duration"])
        group.create_dataset("index", data=order["index"])
        group.attrs["__attributes__"] = np.bytes_(json.dumps(["durations", "index"]))
        if not plain:
            file.attrs[_NAMES] = np.bytes_(json.dumps(names))


@contextmanager
def _open(location: Location, kinds: tuple[str, ...]) -> Iterator[Any]:
    """The HDF5 file of one of these kinds. What is wrong in it ends in a CorpusError naming it."""
    h5py = import_h5py()
    try:
        with location.fs.open(location.path, "rb") as raw, h5py.File(raw, "r") as file:
            kind, version = _string(file.attrs["type"]), _string(file.attrs["version"])
            if kind not in kinds:
                raise ValueError(f"it holds `{kind}`, not {' or '.join(kinds)}")
            if version not in _VERSIONS[kind]:
                raise ValueError(f"{kind} of version {version} is unknown")
            yield file
    except (OSError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise CorpusError(f"{location.uri}: {one_line(error)}") from error


@contextmanager
def _created(path: str, kind: str, version: str) -> Iterator[Any]:
    """A file that appears at `path` when it is complete."""
    buffer = BytesIO()
    with import_h5py().File(buffer, "w") as file:
        file.attrs["type"], file.attrs["version"] = np.bytes_(kind), np.bytes_(version)
        file.attrs["made_by"] = MADE_BY
        yield file
    Location(path).publish(buffer.getvalue())


def _string(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _add_stimuli(collector: Collector, location: Location, file: Any, copies: str) -> list[str]:
    """Add the images and return their ids."""
    attributes = json.loads(file.attrs.get("__attributes__", "[]"))
    as_files = _string(file.attrs["type"]) == "FileStimuli"
    if as_files:
        names = [_string(name) for name in file["filenames"][...]]
        sizes = [(int(shape[0]), int(shape[1])) for shape in file["shapes"][...]]
        folder = location.path.rpartition("/")[0]
        # Version 1.0 has absolute paths, which os.path.join leaves as they are.
        paths = [os.path.normpath(os.path.join(folder, name)) for name in names]
        common = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""
        ids = [path[len(common) :].lstrip("/") for path in paths]
    else:
        ids = [f"{n}.png" for n in range(int(file.attrs["size"]))]
    if "image_id" in attributes:
        ids = [_string(image_id) for image_id in file["image_id"][...]]
    for n, image_id in enumerate(ids):
        if as_files:
            path = paths[n]
            stimulus = Location(path if location.is_local else location.fs.unstrip_protocol(path))
            if image_size(stimulus) != sizes[n]:
                raise ValueError(
                    f"`shapes` has {sizes[n]} for {stimulus.uri}, which is not its size"
                )
            collector.add_image(image_id, stimulus.uri, sizes[n])
        else:
            pixels, buffer = file[str(n)][...], BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            copy = Location(copies) / f"{n}.png"
            copy.publish(buffer.getvalue())
            collector.add_image(image_id, copy.uri, pixels.shape[:2])
    return ids


def _columns(file: Any) -> dict[str, np.ndarray]:
    """One row a fixation: x, y, t, duration, n, subject and index."""
    kind = _string(file.attrs["type"])
    if kind == "Fixations":
        return _flat(file)
    if kind == "FixationTrains":
        prefix, more = "train_", file.get("scanpath_fixation_attributes", {})
        n, subject, times = file["train_ns"], file["train_subjects"], file["train_ts"][...]
    else:
        file = file["scanpaths"] if kind == "ScanpathFixations" else file
        prefix, more = "", file["fixation_attributes"]
        n, subject = file["n"], file["scanpath_attributes"].get("subject")
        times = more["ts"][...] if "ts" in more else None
    x = np.atleast_2d(file[f"{prefix}xs"][...])
    lengths = next((file[k][...] for k in (f"{prefix}lengths", "length") if k in file), None)
    place = np.arange(x.shape[1])
    if lengths is None:  # up to the last number: scanpaths may have gaps
        lengths = np.where(np.isnan(x), 0, place + 1).max(axis=1, initial=0)
    there = place < lengths[:, None]
    train, position = np.nonzero(there)
    unknown = np.full(x.shape, np.nan)
    padded = {
        "y": file[f"{prefix}ys"][...],
        "t": unknown if times is None else times,
        "duration": next((more[k][...] for k in _DURATIONS if k in more), unknown),
    }
    for name, values in padded.items():
        if values.shape != x.shape:
            raise ValueError(f"x has the shape {x.shape}, but `{name}` {values.shape}")
    return {
        "x": x[there],
        **{name: values[there] for name, values in padded.items()},
        "index": more["index"][...][there].astype(int) if "index" in more else position,
        "n": n[...][train],
        "subject": np.zeros(len(x), int)[train] if subject is None else subject[...][train],
    }


def _whole(values: np.ndarray) -> np.ndarray:
    """Numbers as integers; names as they are."""
    return values.astype(int) if values.dtype.kind == "f" else values


def _flat(file: Any) -> dict[str, np.ndarray]:
    """The same of `Fixations`, whose `index` is the number of fixations before."""
    columns = {name: file[name][...] for name in ("x", "y", "n")}
    unknown = np.full(len(columns["x"]), np.nan)
    subject = next((file[k][...] for k in ("subject", "subjects") if k in file), None)
    duration = next((file[k][...] for k in _DURATIONS if k in file), unknown)
    t = file["t"][...].astype(float)
    before = file["lengths"] if "lengths" in file else (~np.isnan(file["x_hist"][...])).sum(axis=1)
    return {
        **columns,
        "t": t if t.any() else unknown,
        "duration": duration,
        "index": file["index"][...].astype(int) if "index" in file else before[...],
        "subject": np.zeros(len(t), int) if subject is None else _whole(subject),
    }
