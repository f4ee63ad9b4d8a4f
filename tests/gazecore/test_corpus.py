"""Recorded fixations: the importer, the stored corpus, and splits."""

import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from struct import pack
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gazecore.corpus.cat2000 import read_cat2000
from gazecore.corpus.mit1003 import read_mit1003
from gazecore.corpus.osie import read_osie
from gazecore.corpus.salicon import read_salicon
from gazecore.corpus.schema import FIXATIONS, IMAGES, Corpus, load_corpus
from gazecore.corpus.splits import duplicate_groups, folds, thumbnail
from gazecore.errors import CorpusError
from gazecore.storage import Location
from tests.conftest import make_photo

Scanpath = tuple[list[float], list[float], list[float]]


def cells(items: list[Any]) -> np.ndarray:
    """A MATLAB cell array."""
    array = np.empty((1, len(items)), dtype=object)
    array[0, :] = items
    return array


def subject(x: list[float], y: list[float], duration: list[float]) -> dict[str, Any]:
    return {"fix_x": np.array(x), "fix_y": np.array(y), "fix_duration": np.array(duration)}


def write_osie(folder: Path, images: dict[str, list[Scanpath]]) -> Path:
    """A folder in OSIE's layout; every image is 80x60."""
    (folder / "stimuli").mkdir()
    for seed, name in enumerate(images):
        make_photo(seed, 80, 60).save(folder / "stimuli" / name)
    structs = [
        {"img": name, "subjects": cells([subject(*scanpath) for scanpath in scanpaths])}
        for name, scanpaths in images.items()
    ]
    scipy.io.savemat(folder / "fixations.mat", {"fixations": cells(structs)})
    return folder


TWO: dict[str, list[Scanpath]] = {
    "1001.jpg": [
        ([10.0, 20.5, 79.999], [5.0, 6.25, 59.999], [250.0, 300.0, 125.0]),
        ([], [], []),
        ([1.0], [2.0], [90.0]),
    ],
    "1002.jpg": [
        ([0.0, -0.001, 80.0, 40.0], [0.0, 5.0, 5.0, 60.0], [100.0, 100.0, 100.0, 100.0]),
        ([30.0, 31.0], [30.0, 31.0], [200.0, 210.0]),
        ([40.0, np.nan, 42.0], [5.0, 5.0, 5.0], [10.0, 20.0, 30.0]),
    ],
}


def test_osie_layout(tmp_path: Path) -> None:
    corpus = read_osie(str(write_osie(tmp_path, TWO)))
    assert corpus.images.schema.equals(IMAGES)
    assert corpus.fixations.schema.equals(FIXATIONS)
    assert corpus.images.to_pylist() == [
        {
            "image_id": name,
            "uri": str(tmp_path / "stimuli" / name),
            "height": 60,
            "width": 80,
        }
        for name in TWO
    ]
    rows = [tuple(row.values()) for row in corpus.fixations.to_pylist()]
    assert rows == [
        ("1001.jpg", "1", 0, 10.0, 5.0, None, 0.25),
        ("1001.jpg", "1", 1, 20.5, 6.25, None, 0.3),
        ("1001.jpg", "1", 2, 79.999, 59.999, None, 0.125),
        ("1001.jpg", "3", 0, 1.0, 2.0, None, 0.09),
        ("1002.jpg", "1", 0, 0.0, 0.0, None, 0.1),
        ("1002.jpg", "2", 0, 30.0, 30.0, None, 0.2),
        ("1002.jpg", "2", 1, 31.0, 31.0, None, 0.21),
        ("1002.jpg", "3", 0, 40.0, 5.0, None, 0.01),
        ("1002.jpg", "3", 2, 42.0, 5.0, None, 0.03),
    ]


def test_fixations_outside_their_image_are_counted(tmp_path: Path) -> None:
    corpus = read_osie(str(write_osie(tmp_path, TWO)))
    assert corpus.dropped == {
        "fixations outside the image": 3,
        "fixations whose position is not a number": 1,
    }
    given_in_all = sum(len(x) for scanpaths in TWO.values() for x, _, _ in scanpaths)
    assert corpus.fixations.num_rows + sum(corpus.dropped.values()) == given_in_all


@pytest.mark.parametrize("x", [[3.0], [3.0, 4.0]])
def test_one_image_and_one_subject(tmp_path: Path, x: list[float]) -> None:
    y, duration = [5.0] * len(x), [100.0] * len(x)
    corpus = read_osie(str(write_osie(tmp_path, {"only.jpg": [(x, y, duration)]})))
    assert corpus.image_ids == ["only.jpg"]
    assert corpus.fixations["x"].to_pylist() == x
    assert corpus.fixations["subject"].to_pylist() == ["1"] * len(x)


def test_an_image_without_any_fixation_stays(tmp_path: Path) -> None:
    corpus = read_osie(str(write_osie(tmp_path, {"a.jpg": [([], [], [])] * 2, "b.jpg": []})))
    assert corpus.image_ids == ["a.jpg", "b.jpg"]
    assert corpus.fixations.num_rows == 0
    assert {k: v.shape for k, v in corpus.points().items()} == {"a.jpg": (0, 2), "b.jpg": (0, 2)}


def test_a_rotated_stimulus_has_its_upright_size(tmp_path: Path) -> None:
    write_osie(tmp_path, {"a.jpg": [([10.0], [70.0], [1.0])]})
    exif = Image.Exif()
    exif[0x0112] = 6
    make_photo(0, 80, 60).save(tmp_path / "stimuli" / "a.jpg", exif=exif)
    corpus = read_osie(str(tmp_path))
    assert [corpus.images[name][0].as_py() for name in ("height", "width")] == [80, 60]
    assert corpus.fixations.num_rows == 1


@pytest.mark.parametrize("field", ["fix_x", "fix_y", "fix_duration"])
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    write_osie(tmp_path, TWO)
    broken = subject([1.0], [1.0], [1.0])
    del broken[field]
    whole = {"img": "1001.jpg", "subjects": cells([subject([1.0], [1.0], [1.0])])}
    part = {"img": "1002.jpg", "subjects": cells([broken])}
    scipy.io.savemat(tmp_path / "fixations.mat", {"fixations": cells([whole, part])})
    with pytest.raises(CorpusError, match=rf"fixations\.mat.*2.*{field}"):
        read_osie(str(tmp_path))


@pytest.mark.parametrize("field", ["fix_x", "fix_y", "fix_duration"])
@pytest.mark.parametrize("values", [np.ones((2, 2)), np.array([1j]), "left"])
def test_what_is_no_row_of_numbers_is_named(tmp_path: Path, field: str, values: Any) -> None:
    write_osie(tmp_path, TWO)
    broken = {**subject([1.0], [1.0], [1.0]), field: values}
    struct = {"img": "1001.jpg", "subjects": cells([broken])}
    scipy.io.savemat(tmp_path / "fixations.mat", {"fixations": cells([struct])})
    with pytest.raises(CorpusError, match=rf"fixations\.mat: fixations\{{1\}}: {field} is"):
        read_osie(str(tmp_path))


def test_no_images_at_all_are_no_corpus(tmp_path: Path) -> None:
    write_osie(tmp_path, TWO)
    scipy.io.savemat(tmp_path / "fixations.mat", {"fixations": cells([])})
    with pytest.raises(CorpusError, match=r"fixations\.mat: fixations is empty"):
        read_osie(str(tmp_path))


def test_images_that_the_fixations_do_not_name_are_counted(tmp_path: Path) -> None:
    write_osie(tmp_path, TWO)
    make_photo(1, 80, 60).save(tmp_path / "stimuli" / "1003.jpg")
    (tmp_path / "stimuli" / "Thumbs.db").write_bytes(b"")
    dropped = read_osie(str(tmp_path)).dropped
    assert dropped["images that fixations.mat does not name"] == 1


def png_header(width: int, height: int) -> bytes:
    """A PNG of this size without any pixels."""
    chunks = [(b"IHDR", pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IEND", b"")]
    framed = [
        pack(">I", len(body)) + kind + body + pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


@pytest.mark.parametrize("content", [b"", b"text", png_header(60_000, 60_000), png_header(0, 0)])
def test_a_hostile_stimulus_is_named(tmp_path: Path, content: bytes) -> None:
    write_osie(tmp_path, TWO)
    (tmp_path / "stimuli" / "1002.jpg").write_bytes(content)
    with pytest.raises(CorpusError, match=r"stimuli/1002\.jpg") as caught:
        read_osie(str(tmp_path))
    assert "object" not in str(caught.value)


@pytest.mark.parametrize("field", ["img", "subjects"])
def test_a_missing_field_of_an_image_is_named(tmp_path: Path, field: str) -> None:
    struct = {"img": "1001.jpg", "subjects": cells([subject([1.0], [1.0], [1.0])])}
    write_osie(tmp_path, TWO)
    del struct[field]
    scipy.io.savemat(tmp_path / "fixations.mat", {"fixations": cells([struct])})
    with pytest.raises(CorpusError, match=rf"fixations\.mat.*{field}"):
        read_osie(str(tmp_path))


def test_another_variable_is_no_corpus(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "fixations.mat", {"something": np.zeros(3)})
    with pytest.raises(CorpusError, match=r"fixations\.mat.*fixations"):
        read_osie(str(tmp_path))


def test_numbers_instead_of_structs_are_no_corpus(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "fixations.mat", {"fixations": np.ones(3)})
    with pytest.raises(CorpusError, match=r"fixations\.mat"):
        read_osie(str(tmp_path))


@pytest.mark.parametrize(
    "lengths", [(3, 2, 3), (3, 3, 2), (0, 1, 1)], ids=["fix_y", "fix_duration", "fix_x"]
)
def test_unequal_lengths_are_named(tmp_path: Path, lengths: tuple[int, int, int]) -> None:
    x, y, duration = ([1.0] * length for length in lengths)
    write_osie(tmp_path, {"1001.jpg": [([1.0], [1.0], [1.0]), (x, y, duration)]})
    numbers = f"{lengths[0]}, {lengths[1]} and {lengths[2]}"
    with pytest.raises(CorpusError, match=rf"1001\.jpg, subject 2.*{numbers}"):
        read_osie(str(tmp_path))


def test_a_missing_stimulus_is_named(tmp_path: Path) -> None:
    write_osie(tmp_path, TWO)
    (tmp_path / "stimuli" / "1002.jpg").unlink()
    with pytest.raises(CorpusError, match=r"stimuli/1002\.jpg"):
        read_osie(str(tmp_path))


def test_a_stimulus_that_is_no_image_is_named(tmp_path: Path) -> None:
    write_osie(tmp_path, TWO)
    (tmp_path / "stimuli" / "1002.jpg").write_text("no image")
    with pytest.raises(CorpusError, match=r"stimuli/1002\.jpg"):
        read_osie(str(tmp_path))


def test_one_image_twice_is_refused(tmp_path: Path) -> None:
    write_osie(tmp_path, TWO)
    struct = {"img": "1001.jpg", "subjects": cells([subject([1.0], [1.0], [1.0])])}
    scipy.io.savemat(tmp_path / "fixations.mat", {"fixations": cells([struct, struct])})
    with pytest.raises(CorpusError, match=r"1001\.jpg"):
        read_osie(str(tmp_path))


@pytest.mark.parametrize(
    "data",
    [b"", b"not a mat file", b"not a mat file, but longer than its header\n" * 10, b"\0" * 200],
    ids=["empty", "short text", "text", "zeros"],
)
def test_what_is_no_mat_file_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "fixations.mat").write_bytes(data)
    with pytest.raises(CorpusError, match=r"fixations\.mat"):
        read_osie(str(tmp_path))


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.95])
def test_a_truncated_mat_file_is_named(tmp_path: Path, compressed: bool, share: float) -> None:
    write_osie(tmp_path, TWO)
    path = tmp_path / "fixations.mat"
    content = scipy.io.loadmat(path)["fixations"]
    scipy.io.savemat(path, {"fixations": content}, do_compression=compressed)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CorpusError, match=r"fixations\.mat"):
        read_osie(str(tmp_path))


def test_a_folder_that_is_no_corpus_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"nowhere/fixations\.mat"):
        read_osie(str(tmp_path / "nowhere"))


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "osie").mkdir()
    corpus = read_osie(str(write_osie(tmp_path / "osie", TWO)))
    corpus.save(Location(str(tmp_path / "corpus")))
    assert sorted(p.name for p in (tmp_path / "corpus").iterdir()) == [
        "fixations.parquet",
        "images.parquet",
    ]
    loaded = load_corpus(str(tmp_path / "corpus"))
    assert loaded.images.equals(corpus.images)
    assert loaded.fixations.equals(corpus.fixations)


@pytest.mark.parametrize("name", ["images", "fixations"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "text", "column", "null", "kind"])
def test_a_damaged_corpus_is_named(tmp_path: Path, name: str, damage: str) -> None:
    (tmp_path / "osie").mkdir()
    corpus = read_osie(str(write_osie(tmp_path / "osie", TWO)))
    corpus.save(Location(str(tmp_path / "corpus")))
    path = tmp_path / "corpus" / f"{name}.parquet"
    table = pq.read_table(path)
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "text":
        path.write_text("not parquet")
    else:
        values: pa.Array = pa.nulls(table.num_rows, pa.string())
        if damage == "kind":
            values = pa.array([["a"]] * table.num_rows)
        table = table.drop_columns("image_id")
        if damage != "column":
            table = table.add_column(0, "image_id", values)
        pq.write_table(table, path)
    with pytest.raises(CorpusError, match=rf"corpus.*{name}\.parquet"):
        load_corpus(str(tmp_path / "corpus"))


def corpus_of(points: dict[str, list[tuple[float, float]]]) -> Corpus:
    images = [{"image_id": name, "uri": f"/{name}", "height": 100, "width": 200} for name in points]
    # Interleaved, as no importer promises an order.
    rows = sorted(
        (i, name, x, y) for name, fixations in points.items() for i, (x, y) in enumerate(fixations)
    )
    fixations = [
        {"image_id": name, "subject": "1", "index": i, "x": x, "y": y} for i, name, x, y in rows
    ]
    return Corpus(
        pa.Table.from_pylist(images, schema=IMAGES),
        pa.Table.from_pylist(fixations, schema=FIXATIONS),
    )


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.text("abc", min_size=1, max_size=3),
        st.lists(st.tuples(st.floats(0, 199), st.floats(0, 99)), max_size=4),
        max_size=5,
    )
)
def test_points_are_those_of_each_image(points: dict[str, list[tuple[float, float]]]) -> None:
    found = corpus_of(points).points()
    assert list(found) == list(points)
    assert {name: [tuple(p) for p in values.tolist()] for name, values in found.items()} == points
    assert all(values.shape == (len(points[name]), 2) for name, values in found.items())


def test_duplicates_share_a_group() -> None:
    photos = [make_photo(seed, 320, 240) for seed in (1, 2, 3)]
    again = photos[0].resize((160, 120), Image.Resampling.LANCZOS)
    thumbnails = np.stack([thumbnail(image) for image in [*photos, again, photos[1]]])
    assert thumbnails.shape == (5, 256)
    assert duplicate_groups(thumbnails).tolist() == [0, 1, 2, 0, 1]


def test_no_images_make_no_groups() -> None:
    assert duplicate_groups(np.empty((0, 256), dtype=np.float32)).tolist() == []


def test_duplicates_are_those_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    thumbnails = rng.uniform(0, 255, (300, 1)) + rng.uniform(-2, 2, (300, 256))
    thumbnails = thumbnails.astype(np.float32)
    expected = np.arange(300)
    for i, one in enumerate(thumbnails):
        if expected[i] == i:
            expected[i + 1 :][np.abs(thumbnails[i + 1 :] - one).max(axis=1, initial=0) <= 4] = i
    assert 100 < len(set(expected)) < 290
    assert duplicate_groups(thumbnails).tolist() == expected.tolist()


@settings(max_examples=60, deadline=None)
@given(
    groups=st.lists(st.integers(0, 30), min_size=1, max_size=60),
    count=st.integers(1, 10),
    seed=st.integers(0, 100),
)
def test_folds_keep_groups_together_and_are_seeded(
    groups: list[int], count: int, seed: int
) -> None:
    found = folds(np.array(groups), count, seed)
    assert found.shape == (len(groups),)
    assert set(found.tolist()) <= set(range(count))
    of_group = dict(zip(groups, found.tolist(), strict=True))
    assert [of_group[group] for group in groups] == found.tolist()
    assert np.array_equal(found, folds(np.array(groups), count, seed))


@pytest.mark.parametrize(("images", "count"), [(700, 10), (1003, 10), (7, 3), (2, 5)])
def test_folds_of_single_images_are_equal_in_size(images: int, count: int) -> None:
    found = folds(np.arange(images), count, seed=0)
    sizes = np.bincount(found, minlength=count)
    assert sizes.sum() == images
    assert np.ptp(sizes) <= 1


def test_another_seed_gives_other_folds() -> None:
    one, other = (folds(np.arange(100), 5, seed) for seed in (0, 1))
    assert not np.array_equal(one, other)
    assert not np.array_equal(one, np.arange(100) % 5)


@pytest.mark.corpora
def test_osie_has_its_known_figures(shared: Path) -> None:
    corpus = read_osie(str(shared / "osie"))
    assert corpus.images.num_rows == 700
    assert corpus.fixations.num_rows == 98_321
    assert sum(corpus.dropped.values()) == 0
    assert set(corpus.images["height"].to_pylist()) == {600}
    assert set(corpus.images["width"].to_pylist()) == {800}
    assert len(set(corpus.fixations["subject"].to_pylist())) == 15
    assert 0.1 < float(np.mean(corpus.fixations["duration"].to_numpy())) < 1


@pytest.mark.corpora
def test_the_same_picture_twice_in_osie_is_one_group(shared: Path) -> None:
    paths = sorted((shared / "osie" / "stimuli").glob("*.jpg"))
    thumbnails = []
    for path in paths:
        with Image.open(path) as image:
            image.draft("L", (100, 75))
            thumbnails.append(thumbnail(image))
    groups = duplicate_groups(np.stack(thumbnails))
    names = [path.stem for path in paths]
    assert groups[names.index("1279")] == groups[names.index("1374")]
    assert max(Counter(groups.tolist()).values()) == 2
    assert len(set(groups.tolist())) > 690


@pytest.mark.corpora
def test_mit1003_has_its_known_figures(shared: Path) -> None:
    corpus = read_osie(str(shared / "mit1003"))
    assert corpus.images.num_rows == 1003
    assert corpus.fixations.num_rows == 104_171
    assert sum(corpus.dropped.values()) == 0
    x, y = (corpus.fixations[name].to_numpy() for name in ("x", "y"))
    assert float(x.mean()) == pytest.approx(487.13683496521253, abs=1e-9)
    assert float(y.mean()) == pytest.approx(392.72728829760155, abs=1e-9)


@pytest.mark.parametrize("read", [read_osie, read_salicon, read_cat2000, read_mit1003])
def test_matlabs_hdf5_files_are_named_with_the_remedy(
    tmp_path: Path, read: Callable[..., Corpus]
) -> None:
    """MATLAB v7.3: HDF5 behind 512 bytes of its own."""
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    image = {read_cat2000: "Art/001.jpg", read_mit1003: "1.jpeg"}.get(read, "1.jpg")
    folders = {
        read_osie: ("stimuli", "fixations.mat"),
        read_salicon: ("images/train", "fixations/train/1.mat"),
        read_cat2000: ("trainSet/Stimuli", "trainSet/FIXATIONLOCS/Art/001.mat"),
        read_mit1003: ("ALLSTIMULI", "DATA/a/1.mat"),
    }[read]
    photo = tmp_path / folders[0] / image
    photo.parent.mkdir(parents=True)
    size = {read_salicon: (640, 480), read_cat2000: (1920, 1080)}.get(read, (64, 48))
    make_photo(1, *size).save(photo)
    mat = tmp_path / folders[1]
    mat.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(mat, "w", userblock_size=512) as file:
        file["fixations"] = [1.0]
    with mat.open("r+b") as raw:
        header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Jan  1 00:00:00 2024"
        raw.write(header.ljust(116) + b"\0" * 8 + b"\x00\x02IM")
    more = [str(tmp_path / "copies")] if read is read_cat2000 else []
    with pytest.raises(CorpusError, match=r"MATLAB v7\.3 file.*save it with -v7"):
        read(str(tmp_path), *more)
