"""CAT2000's layout: maps of pooled fixations, the test set, and files that are broken."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from PIL import Image, ImageOps

from gazecore.corpus.cat2000 import Cat2000Options, read_cat2000
from gazecore.corpus.schema import Corpus
from gazecore.errors import CorpusError

TEST = Cat2000Options(split="test")


def save_image(path: Path, width: int = 1920, height: int = 1080, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (width, height), (90, 120, 30))
    image.paste((250, 10, 10), (0, 0, width // 3, height // 2))
    image.save(path, **options)


def save_map(path: Path, points: list[tuple[int, int]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros((1080, 1920), dtype=np.uint8)
    for x, y in points:
        values[y, x] = 1
    scipy.io.savemat(path, {"fixLocs": values}, do_compression=True)


def read(root: Path, options: Cat2000Options | None = None) -> Corpus:
    return read_cat2000(str(root), str(root / "copies"), options)


@pytest.fixture
def train(tmp_path: Path) -> Path:
    maps = {
        "Action/001": [(1919, 0), (0, 1079), (7, 0)],
        "Action/002": [],
        "Sketch/001": [(960, 540)],
    }
    for name, points in maps.items():
        save_image(tmp_path / "trainSet" / "Stimuli" / f"{name}.jpg")
        save_map(tmp_path / "trainSet" / "FIXATIONLOCS" / f"{name}.mat", points)
    save_image(tmp_path / "trainSet" / "Stimuli" / "Action" / "Output" / "001_SaliencyMap.jpg")
    return tmp_path


def test_maps_become_fixations(train: Path) -> None:
    corpus = read(train)
    assert corpus.image_ids == ["Action/001.jpg", "Action/002.jpg", "Sketch/001.jpg"]
    assert {(r["height"], r["width"]) for r in corpus.images.to_pylist()} == {(1080, 1920)}
    rows = [tuple(row.values()) for row in corpus.fixations.to_pylist()]
    assert rows == [
        ("Action/001.jpg", "pooled", 0, 7.0, 0.0, None, None),
        ("Action/001.jpg", "pooled", 1, 1919.0, 0.0, None, None),
        ("Action/001.jpg", "pooled", 2, 0.0, 1079.0, None, None),
        ("Sketch/001.jpg", "pooled", 0, 960.0, 540.0, None, None),
    ]
    assert sum(corpus.dropped.values()) == 0
    assert not (train / "copies").exists()


def test_the_test_set_is_images_and_a_wrong_rotation_is_mended(tmp_path: Path) -> None:
    stimuli = tmp_path / "testSet" / "Stimuli" / "Pattern"
    exif = Image.Exif()
    exif[0x0112] = 6
    save_image(stimuli / "133.jpg")
    save_image(stimuli / "134.jpg", exif=exif)
    corpus = read(tmp_path, TEST)
    assert corpus.fixations.num_rows == 0
    assert corpus.images["uri"].to_pylist() == [
        str(stimuli / "133.jpg"),
        str(tmp_path / "copies" / "Pattern" / "134.jpg"),
    ]
    with (
        Image.open(corpus.images["uri"][1].as_py()) as copy,
        Image.open(stimuli / "134.jpg") as old,
    ):
        seen = ImageOps.exif_transpose(copy)
        assert seen.size == (1920, 1080)
        assert np.array_equal(np.asarray(seen), np.asarray(old))


def test_maps_without_an_image_are_counted(train: Path) -> None:
    save_map(train / "trainSet" / "FIXATIONLOCS" / "Action" / "003.mat", [(1, 1)])
    save_map(train / "trainSet" / "FIXATIONLOCS" / "Social" / "001.mat", [(1, 1)])
    assert read(train).dropped["files of fixations without an image"] == 2


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("size", r"001\.jpg has 1080x1920 pixels"),
        ("image", r"001\.jpg"),
        ("missing", r"Action/001\.mat"),
        ("variable", r"Action/001\.mat.*fixLocs"),
        ("shape", r"Action/001\.mat.*fixLocs.*\(1080, 1919\)"),
        ("text", r"Action/001\.mat.*fixLocs"),
        ("density", r"Action/001\.mat.*fixLocs is not binary"),
        ("folder", "Stimuli"),
    ],
)
def test_what_is_broken_is_named(train: Path, damage: str, message: str) -> None:
    stimulus = train / "trainSet" / "Stimuli" / "Action" / "001.jpg"
    mat = train / "trainSet" / "FIXATIONLOCS" / "Action" / "001.mat"
    values: dict[str, Any] = {
        "variable": {"fixations": np.zeros((1080, 1920), np.uint8)},
        "shape": {"fixLocs": np.zeros((1080, 1919), np.uint8)},
        "text": {"fixLocs": "nothing"},
        "density": {"fixLocs": np.arange(1080 * 1920, dtype=np.uint8).reshape(1080, 1920) % 3},
    }
    if damage == "size":
        save_image(stimulus, 1080, 1920)
    elif damage == "image":
        stimulus.write_bytes(b"no image")
    elif damage == "missing":
        mat.unlink()
    elif damage == "folder":
        (train / "trainSet").rename(train / "elsewhere")
    else:
        scipy.io.savemat(mat, values[damage])
    with pytest.raises(CorpusError, match=message) as caught:
        read(train)
    assert "\n" not in str(caught.value)
