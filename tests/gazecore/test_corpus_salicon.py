"""SALICON's layouts: `.mat` files, JSON, and broken ones of both."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from gazecore.corpus.salicon import SaliconOptions, read_salicon
from gazecore.errors import CorpusError
from tests.conftest import make_photo

NAMES = ["COCO_train2014_000000000009", "COCO_train2014_000000000025"]
JSON = SaliconOptions(annotations="fixations_train2014.json")
Worker = dict[str, Any]


def worker(fixations: Any, location: Any = ((1, 1),), timestamp: Any = (0,)) -> Worker:
    return {
        "location": np.array(location, dtype=float),
        "timestamp": np.array(timestamp, dtype=float)[:, None],
        "fixations": np.array(fixations),
    }


def write_mat(path: Path, workers: list[Worker], resolution: Any = (480, 640)) -> None:
    """One image's file: a struct array with one element a worker."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(workers[0]) if workers else ["location", "timestamp", "fixations"]
    gaze = np.empty((len(workers), 1), dtype=[(name, object) for name in names])
    for row, one in enumerate(workers):
        gaze[row, 0] = tuple(one.values())
    content = {"image": path.stem, "resolution": np.array([resolution]), "gaze": gaze}
    scipy.io.savemat(path, content)


@pytest.fixture
def salicon(tmp_path: Path) -> Path:
    (tmp_path / "images" / "train").mkdir(parents=True)
    for name in NAMES:
        make_photo(2, 640, 480).save(tmp_path / "images" / "train" / f"{name}.jpg")
    folder = tmp_path / "fixations" / "train"
    first = worker(
        [[1, 1], [640, 480], [641, 5], [0, 5]], [[10, 20], [30.5, 500], [40, 50]], [0, 15, 1500]
    )
    # uint16 as in the release: 0 - 1 must not wrap around.
    first["fixations"] = first["fixations"].astype(np.uint16)
    write_mat(folder / f"{NAMES[0]}.mat", [first, worker(np.empty((0, 2)))])
    write_mat(folder / f"{NAMES[1]}.mat", [worker([[320, 240]])])
    return tmp_path


def test_fixations_of_mat_files_count_from_one(salicon: Path) -> None:
    corpus = read_salicon(str(salicon))
    assert corpus.image_ids == [f"{name}.jpg" for name in NAMES]
    rows = [tuple(row.values()) for row in corpus.fixations.to_pylist()]
    assert rows == [
        (f"{NAMES[0]}.jpg", "1", 0, 0.0, 0.0, None, None),
        (f"{NAMES[0]}.jpg", "1", 1, 639.0, 479.0, None, None),
        (f"{NAMES[1]}.jpg", "1", 0, 319.0, 239.0, None, None),
    ]
    assert corpus.dropped == {"fixations outside the image": 2}


def test_what_belongs_to_nothing_is_counted(salicon: Path) -> None:
    (salicon / "images" / "train" / f"{NAMES[1]}.jpg").unlink()
    corpus = read_salicon(str(salicon))
    assert corpus.dropped["files of fixations without an image"] == 1
    make_photo(2, 640, 480).save(salicon / "images" / "train" / f"{NAMES[1]}.jpg")
    only = document(images=document()["images"][:1], annotations=[])
    (salicon / "fixations_train2014.json").write_text(json.dumps(only))
    corpus = read_salicon(str(salicon), JSON)
    assert corpus.dropped["images that fixations_train2014.json does not name"] == 1


def test_mouse_samples_have_times(salicon: Path) -> None:
    corpus = read_salicon(str(salicon), SaliconOptions(points="mouse"))
    rows = [tuple(row.values())[1:6] for row in corpus.fixations.to_pylist()]
    assert rows == [
        ("1", 0, 9.0, 19.0, 0.0),
        ("1", 2, 39.0, 49.0, 1.5),
        ("2", 0, 0.0, 0.0, 0.0),
        ("1", 0, 0.0, 0.0, 0.0),
    ]
    assert sum(corpus.dropped.values()) == 1


def test_the_test_split_is_images_only(salicon: Path) -> None:
    (salicon / "images" / "train").rename(salicon / "images" / "test")
    corpus = read_salicon(str(salicon), SaliconOptions(split="test"))
    assert (corpus.images.num_rows, corpus.fixations.num_rows) == (2, 0)


def document(**changes: Any) -> dict[str, Any]:
    images = [
        {"id": i, "file_name": f"{name}.jpg", "height": 480, "width": 640}
        for i, name in zip((9, 25), NAMES, strict=True)
    ]
    annotations = [
        {"id": 1, "image_id": 9, "worker_id": 4, "fixations": [[1, 1], [480, 640], [481, 2]]},
        {"id": 2, "image_id": 25, "worker_id": 4, "fixations": []},
        {"id": 3, "image_id": 9, "fixations": [[100, 600]]},
    ]
    return {"info": {}, "images": images, "annotations": annotations, **changes}


def test_json_holds_rows_and_columns(salicon: Path) -> None:
    (salicon / "fixations_train2014.json").write_text(json.dumps(document()))
    corpus = read_salicon(str(salicon), JSON)
    assert corpus.images.num_rows == 2
    rows = [tuple(row.values())[:5] for row in corpus.fixations.to_pylist()]
    assert rows == [
        (f"{NAMES[0]}.jpg", "4", 0, 0.0, 0.0),
        (f"{NAMES[0]}.jpg", "4", 1, 639.0, 479.0),
        (f"{NAMES[0]}.jpg", "2", 0, 599.0, 99.0),
    ]
    assert corpus.dropped == {"fixations outside the image": 1}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", r"9\.mat"),
        ("truncated", r"9\.mat.*resolution"),
        ("resolution", r"9\.mat: resolution is \[640, 480\]"),
        ("fixations", r"9\.mat: gaze\(1\).*fixations"),
        ("shape", r"9\.mat: gaze\(1\)\.fixations has the shape"),
        ("turned", r"9\.mat: gaze\(1\)\.fixations has the shape \(2, 9\)"),
        ("size", r"9\.jpg has 480x640"),
        ("folder", "images/train"),
    ],
)
def test_what_is_broken_is_named(salicon: Path, damage: str, message: str) -> None:
    mat = salicon / "fixations" / "train" / f"{NAMES[0]}.mat"
    if damage == "missing":
        mat.unlink()
    elif damage == "truncated":
        mat.write_bytes(mat.read_bytes()[:150])
    elif damage == "resolution":
        write_mat(mat, [worker([[1, 1]])], (640, 480))
    elif damage == "fixations":
        broken = worker([[1, 1]])
        del broken["fixations"]
        write_mat(mat, [broken])
    elif damage == "shape":
        write_mat(mat, [worker([[1], [2], [3], [4]])])
    elif damage == "turned":
        write_mat(mat, [worker(np.ones((2, 9)))])
    elif damage == "size":
        make_photo(1, 480, 640).save(salicon / "images" / "train" / f"{NAMES[0]}.jpg")
    else:
        (salicon / "images").rename(salicon / "pictures")
    with pytest.raises(CorpusError, match=message) as caught:
        read_salicon(str(salicon))
    assert "\n" not in str(caught.value)


def test_times_that_do_not_fit_are_named(salicon: Path) -> None:
    mat = salicon / "fixations" / "train" / f"{NAMES[0]}.mat"
    write_mat(mat, [worker([[1, 1]], [[1, 1], [2, 2]], [0])])
    with pytest.raises(CorpusError, match=r"9\.mat: gaze\(1\): 2 locations but 1 in timestamp"):
        read_salicon(str(salicon), SaliconOptions(points="mouse"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "2014.json is not readable JSON"),
        ("[]", "2014.json: `images`"),
        (json.dumps(document(images=[{"id": 9}])), "file_name"),
        (json.dumps(document(annotations=[{"image_id": 9}])), "fixations"),
        (json.dumps(document(annotations=[{"image_id": 8, "fixations": []}])), "no image 8"),
        (json.dumps(document(annotations=[{"image_id": [9], "fixations": []}])), "no image"),
        (json.dumps(document(images=document()["images"] * 2)), "two of them have one id"),
        (json.dumps(document(images=[])), "images is empty"),
        (
            json.dumps(document(annotations=[{"image_id": 9, "fixations": [[1], [2]]}])),
            "annotation 0: fixations has the shape",
        ),
        (
            json.dumps(document(annotations=[{"image_id": 9, "fixations": [["a", "b"]]}])),
            "annotation 0: fixations is not numeric",
        ),
    ],
)
def test_broken_json_is_named(salicon: Path, content: str, message: str) -> None:
    (salicon / "fixations_train2014.json").write_text(content)
    with pytest.raises(CorpusError, match=message) as caught:
        read_salicon(str(salicon), JSON)
    assert "\n" not in str(caught.value)


def test_json_has_no_mouse_traces(salicon: Path) -> None:
    options = SaliconOptions(annotations="fixations_train2014.json", points="mouse")
    with pytest.raises(CorpusError, match="no mouse traces"):
        read_salicon(str(salicon), options)
