"""MIT1003's original distribution: fixations from gaze samples, and files that are broken."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from gazecore.corpus.mit1003 import Mit1003Options, fixations_of, read_mit1003
from gazecore.errors import CorpusError
from tests.conftest import make_photo

LONG = "i" + "istatic_outdoor_street_" * 3 + "p1010764"  # MATLAB cuts its variable to 63


def gaze(*stations: tuple[float, float, int], jump: int = 6) -> np.ndarray:
    """Samples (n, 3) that rest at each (x, y) for some time, with ramps of `jump` samples."""
    rows = [np.tile(stations[0][:2], (stations[0][2], 1))]
    for (x, y, _), (to_x, to_y, count) in itertools.pairwise(stations):
        share = np.arange(1, jump)[:, None] / jump
        rows += [
            np.array([x, y]) + share * np.array([to_x - x, to_y - y]),
            np.tile((to_x, to_y), (count, 1)),
        ]
    samples = np.concatenate(rows)
    return np.column_stack([samples, np.zeros(len(samples))])


def write_trial(path: Path, eye_data: Any, name: str | None = None) -> None:
    """One user's file of one image, as the distribution has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.empty((1, 1), dtype=[("eyeData", object)])
    data[0, 0] = (eye_data,)
    struct = {"DATA": data, "imgName": "x"}
    scipy.io.savemat(path, {(name or path.stem)[:63]: struct}, long_field_names=True)


def write_mit1003(root: Path, trials: dict[str, dict[str, np.ndarray]]) -> Path:
    """`trials`: stem to user to samples. Images are 400x300."""
    (root / "ALLSTIMULI").mkdir()
    for stem, users in trials.items():
        make_photo(1, 400, 300).save(root / "ALLSTIMULI" / f"{stem}.jpeg")
        for user, samples in users.items():
            write_trial(root / "DATA" / user / f"{stem}.mat", samples)
    return root


THREE = gaze((200, 150, 60), (50, 60, 70), (300, 200, 80))


def test_fixations_are_cut_at_the_saccades() -> None:
    start, end = fixations_of(THREE[:, 0], THREE[:, 1])
    assert len(start) == 3
    assert start[0] == 0
    assert end[-1] == len(THREE)
    assert all(end[:-1] < start[1:])
    centres = [np.median(THREE[a:b, 0]) for a, b in zip(start, end, strict=True)]
    assert centres == [200, 50, 300]
    # Six steps of 29 pixels, into samples 60 to 65; the mean of four is above 0 from 60 to 68. So
    # the speed five samples ahead is higher from 55, and the last fall is at 68.
    assert start.tolist() == [0, 69, 144]
    assert end.tolist() == [55, 130, 220]


@pytest.mark.parametrize("n", [1, 4, 6, 7, 8, 200])
def test_a_gaze_that_rests_is_one_fixation(n: int) -> None:
    start, end = fixations_of(np.full(n, 5.0), np.full(n, 6.0))
    assert (start.tolist(), end.tolist()) == ([0], [n])


def test_a_slow_drift_is_no_saccade() -> None:
    x = np.linspace(0, 400, 400)
    assert fixations_of(x, x)[0].tolist() == [0]


def test_a_short_stop_joins_the_saccades_around_it() -> None:
    short = gaze((200, 150, 60), (50, 60, 12), (300, 200, 80))
    longer = gaze((200, 150, 60), (50, 60, 40), (300, 200, 80))
    assert len(fixations_of(short[:, 0], short[:, 1])[0]) == 2
    assert len(fixations_of(longer[:, 0], longer[:, 1])[0]) == 3


def test_a_short_last_fixation_belongs_to_the_saccade() -> None:
    samples = gaze((200, 150, 60), (50, 60, 14))
    start, end = fixations_of(samples[:, 0], samples[:, 1])
    assert (start.tolist(), end.tolist()) == ([0], [55])


def test_a_corpus_of_scanpaths(tmp_path: Path) -> None:
    write_mit1003(
        tmp_path, {LONG: {"ajs": THREE, "CNG": THREE}, "iplain": {"ajs": THREE, "CNG": THREE}}
    )
    (tmp_path / "DATA" / ".DS_Store").write_bytes(b"x")
    corpus = read_mit1003(str(tmp_path))
    assert corpus.image_ids == [f"{LONG}.jpeg", "iplain.jpeg"]
    rows = [tuple(row.values()) for row in corpus.fixations.to_pylist()]
    assert rows[:2] == [
        (f"{LONG}.jpeg", "CNG", 1, 50.0, 60.0, 70 / 240, 61 / 240),
        (f"{LONG}.jpeg", "CNG", 2, 300.0, 200.0, 145 / 240, 76 / 240),
    ]
    assert len(rows) == 8
    assert corpus.dropped == {
        "first fixations of a scanpath": 4,
        "fixations outside the image": 0,
    }


def test_the_first_fixation_can_be_kept(tmp_path: Path) -> None:
    write_mit1003(tmp_path, {"i": {"a": THREE}})
    corpus = read_mit1003(str(tmp_path), Mit1003Options(keep_first=True))
    assert corpus.fixations["index"].to_pylist() == [0, 1, 2]
    assert corpus.fixations["t"].to_pylist()[0] == 1 / 240
    assert sum(corpus.dropped.values()) == 0


def test_blinks_and_the_border_are_left_out_and_counted(tmp_path: Path) -> None:
    samples = gaze(
        (200, 150, 60), (-300, -300, 60), (0, 200, 60), (399.5, 299.5, 60), (400, 20, 60)
    )
    corpus = read_mit1003(str(write_mit1003(tmp_path, {"i": {"a": samples}})))
    assert corpus.fixations["x"].to_pylist() == [399.5]
    assert corpus.fixations["index"].to_pylist() == [3]
    assert corpus.dropped["fixations outside the image"] == 3
    assert corpus.dropped["first fixations of a scanpath"] == 1


def test_a_first_fixation_outside_takes_no_other_with_it(tmp_path: Path) -> None:
    samples = gaze((-200, -150, 60), (50, 60, 60), (300, 200, 60))
    corpus = read_mit1003(str(write_mit1003(tmp_path, {"i": {"a": samples}})))
    assert corpus.fixations["index"].to_pylist() == [1, 2]


def test_samples_that_were_not_seen_do_not_move_the_median(tmp_path: Path) -> None:
    samples = THREE.copy()
    samples[80:90, :2] = np.nan
    corpus = read_mit1003(str(write_mit1003(tmp_path, {"i": {"a": samples}})))
    assert corpus.fixations["x"].to_pylist() == [50, 300]


def test_a_trial_that_was_never_seen_and_files_without_an_image_are_counted(tmp_path: Path) -> None:
    write_mit1003(tmp_path, {"i": {"a": THREE, "b": np.full((50, 3), np.nan)}})
    write_trial(tmp_path / "DATA" / "a" / "gone.mat", THREE)
    make_photo(1, 400, 300).save(tmp_path / "ALLSTIMULI" / "other.jpg")
    assert read_mit1003(str(tmp_path), Mit1003Options(keep_first=True)).dropped == {
        "first fixations of a scanpath": 0,
        "fixations outside the image": 0,
        "fixations whose position is not a number": 1,
        "files of fixations without an image": 1,
        "images that are no .jpeg": 1,
    }


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("name", r"i\.mat.*variable `i`"),
        ("field", r"i\.mat.*eyeData is missing"),
        ("text", r"i\.mat.*eyeData is not numeric"),
        ("column", r"i\.mat.*eyeData has the shape"),
        ("empty", r"i\.mat.*eyeData is empty"),
        ("truncated", r"i\.mat"),
        ("missing", r"i\.mat"),
        ("image", r"i\.jpeg"),
        ("users", "DATA"),
    ],
)
def test_what_is_broken_is_named(tmp_path: Path, damage: str, message: str) -> None:
    write_mit1003(tmp_path, {"i": {"a": THREE}})
    trial = tmp_path / "DATA" / "a" / "i.mat"
    if damage == "name":
        write_trial(trial, THREE, name="other")
    elif damage == "field":
        scipy.io.savemat(trial, {"i": {"DATA": {"samples": THREE}}})
    elif damage in ("text", "column", "empty"):
        values = {"text": "no numbers", "column": np.ones((9, 1)), "empty": np.ones((0, 3))}
        write_trial(trial, values[damage])
    elif damage == "truncated":
        trial.write_bytes(trial.read_bytes()[:200])
    elif damage == "image":
        (tmp_path / "ALLSTIMULI" / "i.jpeg").write_bytes(b"no image")
    else:
        trial.unlink()
        if damage == "users":
            trial.parent.rmdir()
    with pytest.raises(CorpusError, match=message) as caught:
        read_mit1003(str(tmp_path))
    assert "\n" not in str(caught.value)
