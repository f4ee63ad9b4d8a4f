"""Eye tracking in BIDS datasets: files as the specification's examples have them."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from gazecore.corpus.bids import BidsOptions, read_bids
from gazecore.corpus.pysaliency_hdf5 import read_pysaliency
from gazecore.errors import CorpusError, InputError
from tests.conftest import make_photo
from tests.gazecore import oracle

PHYSIO: dict[str, Any] = {
    "PhysioType": "eyetrack", "SampleCoordinateSystem": "gaze-on-screen", "StartTime": 0,
    "SamplingFrequency": 100, "RecordedEye": "right", "Manufacturer": "SR-Research",
    "Columns": ["timestamp", "x_coordinate", "y_coordinate", "pupil_size"],
    "timestamp": {"Units": "ms", "Origin": "System startup"},
    "x_coordinate": {"LongName": "Gaze position (x)", "Units": "pixel"},
    "y_coordinate": {"LongName": "Gaze position (y)", "Units": "pixel"},
}  # fmt: skip
PHYSIOEVENTS: dict[str, Any] = {
    "Columns": ["onset", "duration", "trial_type", "blink", "message"],
    "OnsetSource": "timestamp",
    "Description": "Messages logged by the measurement device",
}
EVENTS: dict[str, Any] = {
    "TaskName": "view",
    "StimulusPresentation": {
        "ScreenDistance": 0.6, "ScreenOrigin": ["top", "left"], "ScreenSize": [0.4, 0.3],
        "ScreenResolution": [320, 240],
    },
}  # fmt: skip
SHOWN = "onset\tduration\tstim_file\n0.1\t0.9\ta.png\n1.0\tn/a\tn/a\n1.5\tn/a\timages/b.png\n"
FOUND = """\
7186771\tn/a\tn/a\tn/a\t"RECCFG CR 100 2 0 R
7186900\t100\tfixation\t0\tn/a
7187000\t150\tsaccade\t1\tn/a
7187150\t300\tfixation\t0\tn/a
7187500\t20\tfixation\t0\tn/a
7188600\t200\tfixation\t0\tn/a
"""
"""The samples begin at 7186900, which is 0 s; the image appears at 7187000."""


def pack(text: str) -> bytes:
    return gzip.compress(text.encode())


def samples(start: float = 7186900, step: float = 10) -> str:
    """Gaze at (90, 75), 90 px to the right of it from 1.5 s on; the eyes are shut at 600 ms."""
    lines = []
    for i in range(300):
        time = f"{start + i * step:.6f}".rstrip("0").rstrip(".")
        position = "n/a\tn/a" if 58 <= i <= 62 else f"{180 if i >= 150 else 90}.0\t75.0"
        lines.append(f"{time}\t{position}\t4612.0\n")
    return "".join(lines)


RUN = "sub-01/beh/sub-01_task-view_"
EYE = f"{RUN}recording-eye1_"
FILES: dict[str, Any] = {
    "dataset_description.json": {"Name": "view", "BIDSVersion": "1.11.0"},
    "task-view_physio.json": {k: v for k, v in PHYSIO.items() if k != "StartTime"},
    "task-view_physioevents.json": PHYSIOEVENTS,
    "task-view_events.json": EVENTS,
    f"{EYE}physio.json": {"StartTime": 0},
    f"{EYE}physio.tsv.gz": pack(samples()),
    f"{EYE}physioevents.tsv.gz": pack(FOUND),
    f"{RUN}events.tsv": SHOWN,
}  # fmt: skip


def write(folder: Path, files: dict[str, Any]) -> str:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.unlink()
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "stimuli" / "images").mkdir(parents=True)
    for name in ("a.png", "images/b.png", "unseen.png"):
        make_photo(1, 160, 120).save(tmp_path / "stimuli" / name)
    write(tmp_path, FILES)
    return tmp_path


def rows_of(source: Path | str, **options: Any) -> list[tuple[Any, ...]]:
    corpus = read_bids(str(source), BidsOptions(**options))
    return [
        tuple(round(v, 9) if isinstance(v, float) else v for v in row.values())
        for row in corpus.fixations.to_pylist()
    ]


# Centred on the screen, the image's left upper corner is at (80, 60).
ON_A = ("a.png", "01", 0, 10.0, 15.0, 0.15, 0.3)
ON_B = ("images/b.png", "01", 0, 100.0, 15.0, 0.2, 0.2)


def test_fixations_are_at_the_mean_of_their_samples_on_the_image_of_then(folder: Path) -> None:
    corpus = read_bids(str(folder))
    assert rows_of(folder) == [ON_A, ON_B]
    assert corpus.image_ids == ["a.png", "images/b.png"]
    assert corpus.dropped == {
        "fixations outside the image": 0,
        "fixations while no image was shown": 1,
        "fixations whose position is not a number": 1,  # at 600 ms
        "images that no recording shows": 1,
    }


def test_positions_of_the_events_themselves_come_first(folder: Path) -> None:
    columns = [*PHYSIOEVENTS["Columns"], "x_coordinate", "y_coordinate"]
    found = "".join(
        f"{line}\t{'n/a' if number == 5 else 85}\t{'n/a' if number == 5 else 66}\n"
        for number, line in enumerate(FOUND.splitlines())
    )
    write(folder, {
        f"{EYE}physioevents.json": {"Columns": columns},
        f"{EYE}physioevents.tsv.gz": pack(found),
    })  # fmt: skip
    assert [row[3:5] for row in rows_of(folder)] == [(5, 6), (5, 6), (100, 15)]


@pytest.mark.parametrize(
    ("start", "step", "units", "factor"),
    [
        (7186900, 10, "ms", 1),
        (7186900, 10, None, 1),  # as SamplingFrequency says
        (7186.9, 0.01, "s", 1e-3),
        (7186.9, 0.01, None, 1e-3),
        (7186900000, 10000, "us", 1e3),
    ],
)
@pytest.mark.parametrize("seconds", [False, True], ids=["clock", "seconds"])
def test_clocks_of_any_unit_are_read(
    folder: Path, start: float, step: float, units: str | None, factor: float, seconds: bool
) -> None:
    told = {"Units": units} if units else {"Description": "a counter"}
    found = []
    for line in FOUND.splitlines():
        onset, duration, *others = line.split("\t")
        if duration != "n/a":
            duration = f"{float(duration) * (1e-3 if seconds else factor):.9f}"
        found.append("\t".join([f"{float(onset) * factor:.6f}", duration, *others]))
    write(folder, {
        f"{EYE}physio.json": {"StartTime": 0, "timestamp": told},
        f"{EYE}physio.tsv.gz": pack(samples(start, step)),
        f"{EYE}physioevents.tsv.gz": pack("\n".join(found)),
    })  # fmt: skip
    assert rows_of(folder) == [ON_A, ON_B]


def test_start_times_and_a_common_clock_place_the_images(folder: Path) -> None:
    later = "onset\tduration\tstim_file\n5.1\t0.9\ta.png\n6.5\t0\timages/b.png\n"
    write(folder, {f"{EYE}physio.json": {"StartTime": 5}, f"{RUN}events.tsv": later})
    assert rows_of(folder) == [ON_A, ON_B]
    same = "onset\tduration\tstim_file\n7187.0\t0.9\ta.png\n7188.4\t0.5\timages/b.png\n"
    write(folder, {
        f"{RUN}events.json": {"OnsetSource": "timestamp"}, f"{RUN}events.tsv": same,
    })  # fmt: skip
    assert rows_of(folder) == [ON_A, ON_B]


def test_older_names_of_the_clock_are_read(folder: Path) -> None:
    told = {k: v for k, v in PHYSIOEVENTS.items() if k != "OnsetSource"}
    write(folder, {"task-view_physioevents.json": told | {"ForeignIndexColumn": "timestamp"}})
    assert rows_of(folder) == [ON_A, ON_B]


def test_runs_sessions_and_subjects_follow_and_other_data_is_left_alone(folder: Path) -> None:
    for run in ("sub-01/ses-2/beh/sub-01_ses-2_task-view_run-1_", "sub-02/beh/sub-02_task-view_"):
        write(folder, {
            f"{run}recording-eye1_physio.json": {"StartTime": 0},
            f"{run}recording-eye1_physio.tsv.gz": FILES[f"{EYE}physio.tsv.gz"],
            f"{run}recording-eye1_physioevents.tsv.gz": pack(FOUND),
            f"{run}events.tsv": SHOWN,
        })  # fmt: skip
    write(folder, {
        "derivatives/sub-01_task-view_recording-eye1_physioevents.tsv.gz": b"not read",
        "sub-01/beh/sub-01_task-view_recording-heart_physio.tsv.gz": b"not read",
    })  # fmt: skip
    rows = rows_of(folder)
    assert {row[1] for row in rows} == {"01", "02"}
    on_a = [row for row in rows if row[:2] == ("a.png", "01")]
    assert [row[2] for row in on_a] == [0, 2]  # 1 was at nobody's position
    assert len(rows) == 6


def test_events_of_a_task_may_lie_above_all_runs(folder: Path) -> None:
    write(folder, {f"{RUN}events.tsv": None, "task-view_events.tsv": SHOWN})
    assert rows_of(folder) == [ON_A, ON_B]


def test_of_several_recordings_one_is_read(folder: Path) -> None:
    second = f"{RUN}recording-eye2_"
    write(folder, {
        f"{second}physio.json": {"StartTime": 0},
        f"{second}physio.tsv.gz": FILES[f"{EYE}physio.tsv.gz"],
        f"{second}physioevents.tsv.gz": pack("7187150\t110\tfixation\t0\tn/a\n"),
    })  # fmt: skip
    assert rows_of(folder) == [ON_A, ON_B]
    assert [row[6] for row in rows_of(folder, recording="eye2")] == [0.11]
    with pytest.raises(CorpusError, match=r"eye1, eye2: --bids\.recording"):
        rows_of(folder, recording="eye3")


def test_a_task_can_be_chosen(folder: Path) -> None:
    assert rows_of(folder, task="view") == [ON_A, ON_B]
    with pytest.raises(CorpusError, match="of the task rest"):
        rows_of(folder, task="rest")


@pytest.mark.parametrize(
    ("origin", "options", "expected"),
    [
        (["top", "left"], {"shown": "fit"}, (45, 37.5)),
        (["top", "left"], {"shown": "stretched"}, (45, 37.5)),
        (["bottom", "left"], {}, (10, 105)),
        (["top", "left"], {"screen": (300, 220)}, (20, 25)),
    ],
)
def test_the_screen_is_as_the_metadata_or_the_option_says(
    folder: Path, origin: list[str], options: dict[str, Any], expected: tuple[float, float]
) -> None:
    told = EVENTS | {
        "StimulusPresentation": EVENTS["StimulusPresentation"] | {"ScreenOrigin": origin}
    }
    write(folder, {"task-view_events.json": told})
    assert rows_of(folder, **options)[0][3:5] == expected


def without(told: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in told.items() if name != key}


@pytest.mark.parametrize(
    ("files", "options", "named"),
    [
        ({f"{EYE}physio.tsv.gz": None}, {}, r"eye1_physio\.tsv\.gz is missing"),
        ({"task-view_physio.json": None}, {}, r"physio\.tsv\.gz: no \*_physio\.json.* Columns"),
        ({"task-view_physioevents.json": None}, {}, "must name one of its columns"),
        ({"task-view_physioevents.json": {"OnsetSource": "timestamp"}}, {},
         r"no \*_physioevents\.json.* Columns"),
        ({f"{EYE}physio.json": None}, {}, "StartTime"),
        ({f"{EYE}physio.json": "{"}, {}, r"eye1_physio\.json"),
        ({f"{EYE}physio.json": "[]"}, {}, "no JSON object"),
        ({f"{RUN}events.tsv": None}, {}, r"no \*_events\.tsv"),
        ({f"{RUN}events.tsv": "onset\tduration\n1\t1\n"}, {}, "no column `stim_file`"),
        ({f"{RUN}events.tsv": SHOWN.replace("0.1", "soon")}, {}, "no column `onset`"),
        ({f"{RUN}events.tsv": SHOWN.replace("a.png", "c.png").replace("b.png", "d.png")}, {},
         r"such as c\.png; --bids\.images"),
        ({f"{RUN}events.tsv": "onset\tduration\tstim_file\n900\t1\ta.png\n"}, {},
         r"none of the 1 image .*StartTime from 8086"),
        ({"task-view_events.json": None}, {}, r"--bids\.screen"),
        ({"task-view_events.json": {"StimulusPresentation": {"ScreenResolution": [0, 1]}}}, {},
         r"--bids\.screen"),
        ({f"{RUN}events.json": {"StimulusPresentation": {
            "ScreenResolution": [320, 240], "ScreenOrigin": ["middle"]}}}, {}, "ScreenOrigin"),
        ({}, {"screen": (99, 99)}, r"--bids\.shown fit"),
        ({}, {"images": "nowhere"}, r"nowhere.*--bids\.images"),
        ({f"{EYE}physioevents.tsv.gz": None}, {}, "fixations in them must have been found"),
        ({f"{EYE}physioevents.tsv.gz": pack(FOUND)[:-9]}, {}, r"physioevents\.tsv\.gz: Compressed"),
        ({f"{EYE}physio.tsv.gz": FILES[f"{EYE}physio.tsv.gz"][:200]}, {},
         r"_physio\.tsv\.gz: Compressed"),
        ({f"{EYE}physio.tsv.gz": samples().encode()}, {}, r"_physio\.tsv\.gz: Not a gzip"),
        ({f"{EYE}physio.tsv.gz": pack("1\t2\n")}, {}, r"_physio\.tsv\.gz: .*columns"),
        ({f"{EYE}physio.tsv.gz": pack("")}, {}, "`timestamp`"),
        ({f"{EYE}physio.tsv.gz": pack("2\t1\t1\t1\n1\t1\t1\t1\n")}, {}, "falls from row to row"),
        ({f"{EYE}physio.tsv.gz": pack("2\tleft\t1\t1\n")}, {}, "no numbers in a column `x_coord"),
        ({f"{EYE}physioevents.tsv.gz": pack("7187150\tlong\tfixation\t0\tn/a\n")}, {},
         "no column `duration`"),
        ({f"{EYE}physioevents.tsv.gz": pack("7187150\t30000\tfixation\t0\tn/a\n")}, {},
         "30 s.* Units"),
        ({f"{EYE}physio.json": PHYSIO | {"x_coordinate": {"Units": "deg"}}}, {}, "in deg"),
        ({f"{EYE}physio.json": PHYSIO | {"timestamp": {"Units": "days"}}}, {}, "Units such as ms"),
        ({f"{EYE}physio.json": PHYSIO | {"SampleCoordinateSystem": "gaze-in-world"}}, {},
         "gaze-in-world"),
        ({f"{EYE}physioevents.json": {"OnsetSource": "n/a"}}, {}, "not n/a"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_in_a_line(
    folder: Path, files: dict[str, Any], options: dict[str, Any], named: str
) -> None:
    with pytest.raises((CorpusError, InputError), match=named) as error:
        read_bids(write(folder, files), BidsOptions(**options))
    assert len(str(error.value).splitlines()) == 1


def test_a_run_in_which_the_tracker_found_nothing_is_no_error(folder: Path) -> None:
    second = "sub-02/beh/sub-02_task-view_recording-eye1_"
    write(folder, {
        f"{second}physio.json": {"StartTime": 0},
        f"{second}physio.tsv.gz": FILES[f"{EYE}physio.tsv.gz"],
        f"{second}physioevents.tsv.gz": pack(""),
        "sub-02/beh/sub-02_task-view_events.tsv": SHOWN,
    })  # fmt: skip
    assert rows_of(folder) == [ON_A, ON_B]


def test_pysaliency_has_the_same_fixations_and_gives_them_back(
    folder: Path, tmp_path: Path
) -> None:
    corpus = read_bids(str(folder))
    assert oracle.read_back(corpus, tmp_path / "hdf5") == oracle.points_of(corpus)
    again = read_pysaliency(str(tmp_path / "hdf5"), str(tmp_path / "copies"))
    assert again.image_ids == corpus.image_ids
    for column in corpus.fixations.column_names:
        assert again.fixations[column].to_pylist() == corpus.fixations[column].to_pylist()
