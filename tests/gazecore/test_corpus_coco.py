"""COCO-FreeView's and COCO-Search18's layout: a list of scanpaths, and images in folders."""

import json
from pathlib import Path
from typing import Any

import pytest

from gazecore.corpus.coco import CocoOptions, read_coco
from gazecore.corpus.pysaliency_hdf5 import export_corpus, read_pysaliency
from gazecore.errors import CorpusError
from gazecore.storage import Location
from tests.conftest import make_photo

PADDED, OWN, OTHER = "000000400966.jpg", "000000000139.jpg", "000000000285.jpg"


def scanpath(name: str, subject: int, **more: Any) -> dict[str, Any]:
    """As the files have them; the first fixation is at the display's centre."""
    return {
        "name": name, "subject": subject, "condition": "freeview", "split": "train",
        "X": [840.0, 420.0, 1679.5, 1700.0], "Y": [525.0, 262.5, 1049.5, 10.0],
        "T": [211, 180, 345, 99], "length": 4, **more,
    }  # fmt: skip


@pytest.fixture
def freeview(tmp_path: Path) -> Path:
    for folder, name, width, height in (
        ("images/clock", PADDED, 1680, 1050),
        ("images/sink", PADDED, 1680, 1050),
        ("images/clock", OWN, 640, 426),
    ):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        make_photo(1, width, height).save(tmp_path / folder / name)
    scanpaths = [
        scanpath(PADDED, 1),
        scanpath(PADDED, 2, split="valid"),
        scanpath(OWN, 1),
        scanpath(OTHER, 1),
    ]
    (tmp_path / "COCOFreeView_fixations_trainval.json").write_text(json.dumps(scanpaths))
    return tmp_path


def test_scanpaths_on_the_padded_images_are_as_they_are(freeview: Path) -> None:
    corpus = read_coco(str(freeview))
    assert corpus.image_ids == [PADDED, OWN]
    rows = [r for r in corpus.fixations.to_pylist() if r["image_id"] == PADDED]
    assert [(r["subject"], r["index"], r["x"], r["y"], r["t"], r["duration"]) for r in rows] == [
        ("1", 1, 420.0, 262.5, None, 0.18),
        ("1", 2, 1679.5, 1049.5, None, 0.345),
        ("2", 1, 420.0, 262.5, None, 0.18),
        ("2", 2, 1679.5, 1049.5, None, 0.345),
    ]
    assert corpus.dropped["first fixations of a scanpath"] == 3
    assert corpus.dropped["fixations outside the image"] == 4  # the bars of OWN's image, too
    assert corpus.dropped["scanpaths without an image"] == 1
    first = read_coco(str(freeview), CocoOptions(keep_first=True)).fixations.to_pylist()[0]
    assert (first["index"], first["x"], first["y"]) == (0, 840.0, 525.0)


def test_scanpaths_are_chosen_and_follow_each_other(freeview: Path) -> None:
    valid = read_coco(str(freeview), CocoOptions(split="valid"))
    assert set(valid.fixations["subject"].to_pylist()) == {"2"}
    assert valid.image_ids == [PADDED]
    search = [
        scanpath(PADDED, 1, condition="present", task="clock", bbox=[1, 2, 3, 4], correct=1),
        scanpath(PADDED, 1, condition="present", task="sink", bbox=[1, 2, 3, 4], correct=1),
    ]
    (freeview / "TP").mkdir()
    (freeview / "TP" / "fixations.json").write_text(json.dumps(search))
    options = CocoOptions(scanpaths="TP/fixations.json")
    both = read_coco(str(freeview), options)
    assert both.fixations["index"].to_pylist() == [1, 2, 5, 6]
    one = read_coco(str(freeview), CocoOptions(scanpaths="TP/fixations.json", task="sink"))
    assert one.fixations["index"].to_pylist() == [1, 2]


def test_it_goes_through_pysaliencys_files(freeview: Path, tmp_path: Path) -> None:
    pytest.importorskip("h5py", reason="h5py is not installed")
    corpus = read_coco(str(freeview))
    export_corpus(corpus, Location(str(tmp_path / "hdf5")))
    again = read_pysaliency(str(tmp_path / "hdf5"), str(tmp_path / "copies"))
    assert again.image_ids == corpus.image_ids
    key = [("image_id", "ascending"), ("subject", "ascending"), ("index", "ascending")]
    for column in ("x", "y", "duration", "subject"):
        values = [c.fixations.sort_by(key)[column].to_pylist() for c in (corpus, again)]
        assert values[0] == values[1]


@pytest.mark.parametrize(
    ("content", "options", "named"),
    [
        ("{", CocoOptions(), "trainval.json"),
        ('{"a": 1}', CocoOptions(), "no list of scanpaths"),
        ('[{"name": "a.jpg"}]', CocoOptions(), "scanpath 0: 'subject'"),
        (json.dumps([scanpath(PADDED, 1, T=[1])]), CocoOptions(), "4, 4 and 1 values"),
        (json.dumps([scanpath(PADDED, 1, X="far")]), CocoOptions(), "scanpath 0"),
        (json.dumps([scanpath(OTHER, 1)]), CocoOptions(), "none of the images of 1 scanpath"),
        (json.dumps([scanpath(PADDED, 1)]), CocoOptions(split="test"), "split: train"),
        ("[]", CocoOptions(), "no scanpath of any kind"),
        ("[]", CocoOptions(scanpaths="gone.json"), "gone.json"),
    ],
)
def test_what_is_wrong_is_named(
    freeview: Path, content: str, options: CocoOptions, named: str
) -> None:
    (freeview / "COCOFreeView_fixations_trainval.json").write_text(content)
    with pytest.raises(CorpusError, match=named) as error:
        read_coco(str(freeview), options)
    assert len(str(error.value).splitlines()) == 1


def test_the_file_is_to_be_named_where_there_are_several(freeview: Path) -> None:
    (freeview / "more.json").write_text("[]")
    with pytest.raises(CorpusError, match=r"2 JSON files: name the one"):
        read_coco(str(freeview))
