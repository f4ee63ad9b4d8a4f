"""pysaliency's HDF5 files: through the real library in both directions, and older layouts."""

import importlib
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from gazecore.corpus.pysaliency_hdf5 import (
    PysaliencyOptions,
    read_pysaliency,
    write_scanpaths,
    write_stimuli,
)
from gazecore.corpus.schema import FIXATIONS, IMAGES, Corpus
from gazecore.errors import CorpusError
from tests.conftest import make_photo

Row = tuple[str, str, int, float, float, float | None, float | None]

ROWS: list[Row] = [
    ("a.jpg", "1", 0, 10.0, 5.5, 0.1, 0.25),
    ("a.jpg", "1", 1, 79.5, 59.5, 0.5, 0.3),
    ("a.jpg", "12", 0, 0.0, 0.0, 0.0, 0.1),
    ("sub/b.png", "1", 0, 3.0, 4.0, 0.2, 0.2),
]


@pytest.fixture
def h5py() -> Any:
    return pytest.importorskip("h5py", reason="h5py is not installed")


@pytest.fixture
def pysaliency(h5py: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The library, given the names that NumPy 2 dropped and its release still uses."""
    monkeypatch.setattr(np, "string_", np.bytes_, raising=False)
    monkeypatch.setattr(np, "in1d", np.isin, raising=False)
    monkeypatch.setattr(np, "trapz", np.trapezoid, raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("pysaliency", reason="pysaliency is not installed")
        return importlib.import_module("pysaliency")


def make_corpus(folder: Path, rows: list[Row] | None = None) -> Corpus:
    """Three images, the last without fixations and gray."""
    (folder / "sub").mkdir(exist_ok=True)
    images = []
    for name in ("a.jpg", "sub/b.png", "gray.png"):
        photo = make_photo(len(name), 80, 60)
        (photo.convert("L") if "gray" in name else photo).save(folder / name)
        images.append({"image_id": name, "uri": str(folder / name), "height": 60, "width": 80})
    fixations = [dict(zip(FIXATIONS.names, row, strict=True)) for row in rows or ROWS]
    return Corpus(
        pa.Table.from_pylist(images, schema=IMAGES),
        pa.Table.from_pylist(fixations if rows != [] else [], schema=FIXATIONS),
    )


def write(corpus: Corpus, folder: Path) -> Path:
    write_stimuli(corpus, str(folder / "stimuli.hdf5"))
    write_scanpaths(corpus, str(folder / "fixations.hdf5"))
    return folder


def read(folder: Path, **names: str) -> Corpus:
    return read_pysaliency(str(folder), str(folder / "copies"), PysaliencyOptions(**names))


def rows_of(corpus: Corpus) -> list[Any]:
    return [tuple(row.values()) for row in corpus.fixations.to_pylist()]


NAMED: list[Row] = [
    ("a.jpg", "anna", 2, 1.0, 1.0, None, None),
    ("a.jpg", "anna", 5, 2.0, 1.0, None, 0.5),
    ("gray.png", "007", 0, 2.0, 2.0, 1.0, None),
]


@pytest.mark.parametrize("rows", [ROWS, NAMED, []], ids=["numbers", "names and gaps", "none"])
def test_what_is_written_is_read(h5py: Any, tmp_path: Path, rows: list[Row]) -> None:
    corpus = make_corpus(tmp_path, rows)
    found = read(write(corpus, tmp_path))
    assert found.images.equals(corpus.images)
    assert found.fixations.equals(corpus.fixations)
    assert sum(found.dropped.values()) == 0


@pytest.mark.parametrize("rows", [ROWS, NAMED, []], ids=["numbers", "names and gaps", "none"])
def test_the_library_reads_what_is_written(
    pysaliency: Any, tmp_path: Path, rows: list[Row]
) -> None:
    write(make_corpus(tmp_path, rows), tmp_path)
    stimuli = pysaliency.read_hdf5(str(tmp_path / "stimuli.hdf5"))
    fixations = pysaliency.read_hdf5(str(tmp_path / "fixations.hdf5"))
    assert [tuple(shape) for shape in stimuli.shapes] == [(60, 80, 3), (60, 80, 3), (60, 80)]
    assert [stimulus.stimulus_data.shape for stimulus in stimuli] == [(60, 80, 3)] * 2 + [(60, 80)]
    ids = stimuli.attributes["image_id"]
    assert list(ids) == ["a.jpg", "sub/b.png", "gray.png"]
    names = ["007", "anna"] if rows is NAMED else None
    found = [
        (ids[n], names[s] if names else str(s), x, y)
        for n, s, x, y in zip(
            fixations.n, fixations.subjects, fixations.x, fixations.y, strict=True
        )
    ]
    assert found == [(row[0], row[1], row[3], row[4]) for row in rows]
    expected = [[np.nan if v is None else v for v in row[5:]] for row in rows]
    times = np.column_stack([fixations.t, fixations.duration])
    assert np.array_equal(times, np.reshape(expected, (-1, 2)), equal_nan=True)
    if rows is ROWS:
        assert fixations.train_ns.tolist() == [0, 0, 1]
        assert fixations.lengths.tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("rows", [ROWS, NAMED], ids=["numbers", "names and gaps"])
def test_what_the_library_writes_again_is_the_same_corpus(
    pysaliency: Any, tmp_path: Path, rows: list[Row]
) -> None:
    corpus = make_corpus(tmp_path, rows)
    write(corpus, tmp_path)
    for name in ("stimuli", "fixations"):
        pysaliency.read_hdf5(str(tmp_path / f"{name}.hdf5")).to_hdf5(
            str(tmp_path / f"{name}2.hdf5")
        )
    found = read(tmp_path, stimuli="stimuli2.hdf5", fixations="fixations2.hdf5")
    assert found.images.equals(corpus.images)
    if rows is NAMED:  # the library knows numbers only
        rows = [(r[0], "1" if r[1] == "anna" else "0", *r[2:]) for r in rows]
    assert rows_of(found) == rows


def test_a_filtered_part_keeps_its_place_in_the_scanpath(pysaliency: Any, tmp_path: Path) -> None:
    write(make_corpus(tmp_path), tmp_path)
    fixations = pysaliency.read_hdf5(str(tmp_path / "fixations.hdf5"))
    part = fixations[fixations.x > 5]
    part.to_hdf5(str(tmp_path / "part.hdf5"))
    assert rows_of(read(tmp_path, fixations="part.hdf5")) == ROWS[:2]


def test_the_library_s_own_data(pysaliency: Any, tmp_path: Path) -> None:
    pixels = [np.full((60, 80, 3), 7, np.uint8), np.arange(4800, dtype=np.uint8).reshape(60, 80)]
    pysaliency.Stimuli(pixels).to_hdf5(str(tmp_path / "stimuli.hdf5"))
    fixations = pysaliency.FixationTrains.from_fixation_trains(
        xs=[[1, 2, 3], [4]],
        ys=[[1, 2, 60], [4]],
        ts=[[0, 0.5, 1], [0]],
        ns=[1, 0],
        subjects=[0, 3],
        scanpath_fixation_attributes={"durations": [[0.1, 0.2, 0.3], [0.4]]},
        scanpath_attribute_mapping={"durations": "duration"},
    )
    fixations.to_hdf5(str(tmp_path / "fixations.hdf5"))
    corpus = read(tmp_path)
    assert rows_of(corpus) == [
        ("0.png", "3", 0, 4.0, 4.0, 0.0, 0.4),
        ("1.png", "0", 0, 1.0, 1.0, 0.0, 0.1),
        ("1.png", "0", 1, 2.0, 2.0, 0.5, 0.2),
    ]
    assert corpus.dropped == {"fixations outside the image": 1}
    for uri, expected in zip(corpus.images["uri"].to_pylist(), pixels, strict=True):
        with Image.open(uri) as image:
            assert np.array_equal(np.asarray(image), expected)


def test_the_library_s_fixations_without_history(pysaliency: Any, tmp_path: Path) -> None:
    write(make_corpus(tmp_path), tmp_path)
    fixations = pysaliency.Fixations.create_without_history([1.5, 2.5], [3.0, 4.0], [2, 0])
    fixations.to_hdf5(str(tmp_path / "flat.hdf5"))
    assert rows_of(read(tmp_path, fixations="flat.hdf5")) == [
        ("a.jpg", "1", 0, 2.5, 4.0, None, None),
        ("gray.png", "1", 0, 1.5, 3.0, None, None),
    ]


def test_stimuli_alone(h5py: Any, tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, [])
    write_stimuli(corpus, str(tmp_path / "stimuli.hdf5"))
    found = read(tmp_path, fixations="none")
    assert found.images.equals(corpus.images)
    assert found.fixations.num_rows == 0


X = np.array([[10.0, 79.5], [0.0, np.nan], [3.0, np.nan]])
Y = np.array([[5.5, 59.5], [0.0, np.nan], [4.0, np.nan]])
T = np.array([[0.1, 0.5], [0.0, np.nan], [0.2, np.nan]])
D = np.array([[0.25, 0.3], [0.1, np.nan], [0.2, np.nan]])
TRAINS = {
    "train_xs": X,
    "train_ys": Y,
    "train_ts": T,
    "train_ns": np.array([0, 0, 1]),
    "train_subjects": np.array([1, 12, 1]),
}
PATHS = {"xs": X, "ys": Y, "n": TRAINS["train_ns"], "length": np.array([2, 1, 1])}


def attribute_group(parent: Any, name: str, values: dict[str, Any]) -> None:
    group = parent.create_group(name)
    for key, value in values.items():
        group.create_dataset(key, data=value)
    group.attrs["__attributes__"] = np.bytes_(json.dumps(sorted(values)))


def layout(file: Any, kind: str, version: str) -> None:
    """The same fixations as each kind and version has them."""
    file.attrs["type"], file.attrs["version"] = np.bytes_(kind), np.bytes_(version)
    if kind == "ScanpathFixations":
        file = file.create_group("scanpaths")
        file.attrs["type"], file.attrs["version"] = np.bytes_("Scanpaths"), np.bytes_("1.0")
    file.attrs["__attributes__"] = np.bytes_(json.dumps(["subjects", "scanpath_index"]))
    if kind == "FixationTrains":
        datasets = dict(TRAINS)
        if version == "1.3":
            datasets["train_lengths"] = PATHS["length"]
        if version > "1.1":
            attribute_group(file, "scanpath_fixation_attributes", {"durations": D})
    elif kind == "Fixations":
        there = ~np.isnan(X)
        repeats = there.sum(axis=1)
        datasets = {
            **{name: values[there] for name, values in {"x": X, "y": Y, "t": T}.items()},
            "n": np.repeat(TRAINS["train_ns"], repeats),
            "subject" if version == "1.2" else "subjects": np.repeat(
                TRAINS["train_subjects"], repeats
            ),
            "x_hist": np.array([[np.nan], [10.0], [np.nan], [np.nan]]),
            "duration": D[there],
        }
        if version == "1.2":
            datasets["lengths"] = np.array([0, 1, 0, 0])
    else:
        datasets = dict(PATHS)
        attribute_group(file, "scanpath_attributes", {"subject": TRAINS["train_subjects"]})
        attribute_group(file, "fixation_attributes", {"ts": T, "durations": D})
    for name, values in datasets.items():
        file.create_dataset(name, data=values)


@pytest.mark.parametrize(
    ("kind", "version"),
    [
        *(("Fixations", version) for version in ("1.0", "1.1", "1.2")),
        *(("FixationTrains", version) for version in ("1.0", "1.1", "1.2", "1.3")),
        ("Scanpaths", "1.0"),
        ("ScanpathFixations", "1.0"),
    ],
)
def test_every_layout_of_fixations(h5py: Any, tmp_path: Path, kind: str, version: str) -> None:
    write_stimuli(make_corpus(tmp_path), str(tmp_path / "stimuli.hdf5"))
    with h5py.File(tmp_path / "fixations.hdf5", "w") as file:
        layout(file, kind, version)
    expected: list[Any] = list(ROWS)
    if kind == "FixationTrains" and version < "1.2":  # they had no durations
        expected = [(*row[:6], None) for row in ROWS]
    assert rows_of(read(tmp_path)) == expected


@pytest.mark.parametrize("version", ["1.0", "2.0", "2.1"])
def test_every_layout_of_file_stimuli(h5py: Any, tmp_path: Path, version: str) -> None:
    corpus = make_corpus(tmp_path)
    names = ["a.jpg", "sub/b.png", "gray.png"]
    if version == "1.0":
        names = [str(tmp_path / name) for name in names]
    with h5py.File(tmp_path / "stimuli.hdf5", "w") as file:
        file.attrs["type"], file.attrs["version"] = np.bytes_("FileStimuli"), np.bytes_(version)
        file.create_dataset("filenames", data=names, dtype=h5py.string_dtype())
        file.create_dataset("shapes", data=np.array([[60, 80, 3]] * 3))
        if version == "2.1":
            file.attrs["__attributes__"] = np.bytes_("[]")
        file.attrs["size"] = 3
    assert read(tmp_path, fixations="none").images.equals(corpus.images)


def break_file(h5py: Any, folder: Path, damage: str) -> None:
    fixations, stimuli = folder / "fixations.hdf5", folder / "stimuli.hdf5"
    if damage == "missing":
        fixations.unlink()
    elif damage == "truncated":
        fixations.write_bytes(fixations.read_bytes()[:500])
    elif damage == "swapped":
        fixations.write_bytes(stimuli.read_bytes())
    elif damage == "image":
        (folder / "a.jpg").unlink()
    elif damage == "resized":
        make_photo(1, 90, 60).save(folder / "a.jpg")
    else:
        with h5py.File(fixations, "r+") as file:
            if damage == "version":
                file.attrs["version"] = np.bytes_("9.0")
            elif damage == "type":
                del file.attrs["type"]
            elif damage == "field":
                del file["train_ys"]
            elif damage == "shape":
                del file["train_ys"]
                file.create_dataset("train_ys", data=np.zeros((3, 7)))
            elif damage == "n":
                file["train_ns"][0] = 3


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", r"fixations\.hdf5"),
        ("truncated", r"fixations\.hdf5"),
        ("swapped", r"fixations\.hdf5: it holds `FileStimuli`"),
        ("version", r"fixations\.hdf5: FixationTrains of version 9\.0"),
        ("type", r"fixations\.hdf5.*type"),
        ("field", r"fixations\.hdf5.*train_ys"),
        ("shape", r"fixations\.hdf5.*`y` \(3, 7\)"),
        ("n", r"fixations\.hdf5.*`n` names images beyond the 3"),
        ("image", r"a\.jpg"),
        ("resized", r"stimuli\.hdf5.*`shapes`.*a\.jpg"),
    ],
)
def test_what_is_broken_is_named(h5py: Any, tmp_path: Path, damage: str, message: str) -> None:
    write(make_corpus(tmp_path), tmp_path)
    break_file(h5py, tmp_path, damage)
    with pytest.raises(CorpusError, match=message) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def test_images_that_the_library_would_see_otherwise_are_refused(h5py: Any, tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    make_photo(0, 60, 80).save(tmp_path / "a.jpg", exif=exif)
    with pytest.raises(CorpusError, match=r"a\.jpg.*EXIF"):
        write_stimuli(corpus, str(tmp_path / "stimuli.hdf5"))
    assert not (tmp_path / "stimuli.hdf5").exists()


def test_without_h5py_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    for act in (
        lambda: read(tmp_path),
        lambda: write_stimuli(make_corpus(tmp_path), str(tmp_path / "s.hdf5")),
        lambda: write_scanpaths(make_corpus(tmp_path), str(tmp_path / "f.hdf5")),
    ):
        with pytest.raises(CorpusError, match=r"gazecore\[pysaliency\]"):
            act()
