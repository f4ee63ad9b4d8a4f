"""EyeLink's ASC files: the lines that `edf2asc` writes, and what becomes of them."""

from pathlib import Path
from typing import Any

import pytest

from gazecore.corpus.eyelink import EyelinkOptions, read_eyelink
from gazecore.corpus.pysaliency_hdf5 import read_pysaliency
from gazecore.errors import CorpusError, InputError
from tests.conftest import make_photo
from tests.gazecore import oracle

SCREEN = (320, 240)

HEAD = """\
** CONVERTED FROM s01.edf using edfapi 4.2.1 Linux Jan  1 2021 standalone Sep 27 2019
** DATE: Tue May  4 12:00:00 2021
** TYPE: EDF_FILE BINARY EVENT SAMPLE TAGGED
** VERSION: EYELINK II 1
** SOURCE: EYELINK CL
** EYELINK II CL v5.15 Jan 24 2018

MSG\t1000 !CAL CALIBRATION HV9 R RIGHT  GOOD
MSG\t1010 DISPLAY_COORDS 0 0 319 239
"""


def fixation(eye: str, start: int, duration: int, x: str, y: str) -> str:
    """As `edf2asc` writes it, with the blanks and tabs that it has."""
    end = start + duration - 1
    return (
        f"SFIX {eye}   {start}\nEFIX {eye}   {start}\t{end}\t{duration}\t{x:>7}\t{y:>7}\t   1024\n"
    )


def recording(start: int, end: int, body: str, eyes: str = "RIGHT") -> str:
    columns = "\t".join(eyes.split())
    return (
        f"START\t{start} \t{columns}\tSAMPLES\tEVENTS\n"
        "PRESCALER\t1\nVPRESCALER\t1\nPUPIL\tAREA\n"
        f"EVENTS\tGAZE\t{columns}\tRATE\t1000.00\tTRACKING\tCR\tFILTER\t2\tINPUT\n"
        f"SAMPLES\tGAZE\t{columns}\tRATE\t1000.00\tTRACKING\tCR\tFILTER\t2\tINPUT\n"
        f"{start}\t  160.0\t  120.0\t 1024.0\t  127.0\t...\n"
        f"{body}"
        f"{end - 1}\t   .\t   .\t    0.0\t  127.0\t.C.\n"
        f"END\t{end} \tSAMPLES\tEVENTS\tRES\t  26.68\t  23.91\n"
    )


def trial(start: int, image: str, body: str = "", **more: Any) -> str:
    """A trial whose image, of half the screen's size, appears 100 ms after the recording began."""
    shown = (
        fixation("R", start + 20, 120, "160.0", "120.0")
        + f"MSG\t{start + 100} !V CLEAR 128 128 128\n"
        + f"MSG\t{start + 104} -4 !V IMGLOAD CENTER ../../images/{image} 160 120\n"
        if image
        else ""
    )
    body = shown + (
        f"SSACC R  {start + 140}\n"
        f"ESACC R  {start + 140}\t{start + 159}\t20\t  160.0\t  120.0\t   90.0\t   75.0\t4.0\t200\n"
        + fixation("R", start + 160, 250, "90.0", "75.0")
        + f"SBLINK R {start + 420}\nEBLINK R {start + 420}\t{start + 479}\t60\n"
        + fixation("R", start + 500, 200, "239.5", "179.5")
        + body
    )  # fmt: skip
    return (
        f"MSG\t{start - 5} TRIALID {start}\n"
        + recording(start, start + 1000, body, **more)
        + f"MSG\t{start + 1001} !V TRIAL_VAR condition free\nMSG\t{start + 1002} TRIAL_RESULT 0\n"
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png", "unseen.png"):
        make_photo(1, 160, 120).save(tmp_path / "images" / name)
    return tmp_path


def write(folder: Path, text: str, name: str = "s01.asc", encoding: str = "utf-8") -> str:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(text.encode(encoding))
    return str(folder)


def rows_of(source: str, **options: Any) -> list[tuple[Any, ...]]:
    corpus = read_eyelink(source, EyelinkOptions(**options))
    return [tuple(row.values()) for row in corpus.fixations.to_pylist()]


EXPECTED = [(0, 10.0, 15.0, 0.052, 0.25), (1, 159.5, 119.5, 0.392, 0.2)]
"""Index, x, y, t since the image appeared (108 ms after START, by the offset), duration."""


def test_fixations_are_on_the_image_that_was_shown(folder: Path) -> None:
    write(folder, HEAD + trial(2000, "a.png") + trial(5000, "b.png") + trial(9000, "a.png"))
    write(folder, HEAD + trial(2000, "b.png"), "more/s02.asc")
    corpus = read_eyelink(str(folder))
    assert corpus.image_ids == ["images/b.png", "images/a.png"]
    rows = [tuple(row.values()) for row in corpus.fixations.to_pylist()]
    again = [(2 + EXPECTED[0][0], *EXPECTED[0][1:]), (2 + EXPECTED[1][0], *EXPECTED[1][1:])]
    assert [r for r in rows if r[:2] == ("images/a.png", "s01")] == [
        ("images/a.png", "s01", *row) for row in EXPECTED + again
    ]
    assert {r[1] for r in rows} == {"s01", "more/s02"}
    assert corpus.dropped == {
        "fixations outside the image": 0,
        "fixations while no image was shown": 4,  # the one on the cross, in each trial
        "images that no recording shows": 1,
    }


def test_a_file_alone_is_read_with_the_images_beside_it(folder: Path) -> None:
    write(folder, HEAD + trial(2000, "a.png"))
    write(folder, HEAD + trial(2000, "b.png"), "s02.asc")
    rows = rows_of(str(folder / "s01.asc"))
    assert rows == [("images/a.png", "s01", *row) for row in EXPECTED]


BOTH = {"eyes": "LEFT\tRIGHT", "body": fixation("L", 2300, 90, "100.0", "75.0")}


@pytest.mark.parametrize(
    ("options", "eyes", "durations", "other"),
    [
        ({}, "LEFT RIGHT", [0.25, 0.2], 1),
        ({"eye": "left"}, "LEFT RIGHT", [0.09], 3),
        ({"eye": "left"}, "RIGHT", [0.25, 0.2], 1),
        ({}, "LEFT", [0.09], 3),
    ],
)
def test_one_eye_is_read(
    folder: Path, options: dict[str, Any], eyes: str, durations: list[float], other: int
) -> None:
    body = fixation("L", 2300, 90, "100.0", "75.0")
    write(folder, HEAD + trial(2000, "a.png", body, eyes=eyes))
    corpus = read_eyelink(str(folder), EyelinkOptions(**options))
    assert corpus.fixations["duration"].to_pylist() == durations
    assert corpus.dropped["fixations of the other eye"] == other


def test_positions_that_are_missing_are_counted(folder: Path) -> None:
    lost = fixation("R", 2800, 50, ".", ".") + fixation("R", 2900, 50, "-9999.0", "10.0")
    write(folder, HEAD + trial(2000, "a.png", lost))
    corpus = read_eyelink(str(folder))
    assert corpus.fixations.num_rows == 2
    assert corpus.dropped["fixations whose position is not a number"] == 1
    assert corpus.dropped["fixations outside the image"] == 1


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("!V TRIAL_VAR image a.png", {}),
        ("!V TRIAL_VAR image a", {}),
        (r"!V TRIAL_VAR image C:\experiment\images\a.png", {}),
        ("!V IMGLOAD CENTER images/a.png", {}),
        ("!V IMGLOAD CENTER images/a.png 160 120", {}),
        ("!V IMGLOAD CENTER images/a.png 160 120 160 120", {}),
        ("!V IMGLOAD TOP_LEFT images/a.png 80 60", {}),
        ("!V IMGLOAD TOP_LEFT images/a.png 80 60 160 120", {}),
        ("PICTURE=a.png shown", {"message": r"PICTURE=(\S+)"}),
    ],
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_message_outside_of_the_recording_names_the_image_of_the_trial(
    folder: Path, message: str, options: dict[str, Any], when: str
) -> None:
    text = trial(2000, "")
    if when == "after":
        text = text.replace(
            "MSG\t3002 TRIAL_RESULT", f"MSG\t3002 {message}\nMSG\t3002 TRIAL_RESULT"
        )
    else:
        text = text.replace("START\t", f"MSG\t1998 {message}\nSTART\t")
    assert message in text
    rows = rows_of(write(folder, HEAD + text + trial(8000, "b.png")), **options)
    on_a = [row[2:] for row in rows if row[0] == "images/a.png"]
    assert on_a == [(0, 10, 15, 0.16, 0.25), (1, 159.5, 119.5, 0.5, 0.2)]  # t since START


@pytest.mark.parametrize(
    ("message", "options", "expected"),
    [
        # The screen's (90, 75), on an image of 160 x 120 all over it, or twice as large, or moved.
        ("FILL a.png", {}, (45, 37.5)),
        ("CENTER a.png 160 120 320 240", {}, (45, 37.5)),
        ("TOP_LEFT a.png 0 0 320 240", {}, (45, 37.5)),
        ("TOP_LEFT a.png 70 60", {}, (20, 15)),
        ("CENTER a.png 150 120 160 120", {}, (20, 15)),
        ("CENTER a.png 150 120 160 120", {"shown": "centred"}, (10, 15)),
        ("CENTER a.png 160 120", {"shown": "stretched"}, (45, 37.5)),
        ("CENTER a.png 160 120", {"shown": "fit", "screen": (640, 240)}, None),
    ],
)
def test_where_images_stood_is_as_the_message_or_the_option_says(
    folder: Path, message: str, options: dict[str, Any], expected: tuple[float, float] | None
) -> None:
    text = trial(2000, "").replace("START\t", f"MSG\t1998 !V IMGLOAD {message}\nSTART\t")
    rows = rows_of(write(folder, HEAD + text), **options)
    first = rows[0][3:5] if rows[0][2] == 0 else None  # (90, 75) is in the left bar of the last
    assert first == expected


def test_coordinates_of_the_screen_need_not_begin_at_0(folder: Path) -> None:
    head = HEAD.replace("DISPLAY_COORDS 0 0 319 239", "GAZE_COORDS -10.00 -5.00 309.00 234.00")
    text = trial(2000, "").replace("START\t", "MSG\t1998 !V TRIAL_VAR image a.png\nSTART\t")
    assert rows_of(write(folder, head + text))[0][3:5] == (20, 20)


def test_a_file_without_trials_has_one_a_recording(folder: Path) -> None:
    text = trial(2000, "a.png") + trial(5000, "b.png")
    text = "\n".join(line for line in text.splitlines() if "TRIAL" not in line)
    rows = rows_of(write(folder, HEAD + text + "\n"))
    assert [row[0] for row in rows] == ["images/a.png"] * 2 + ["images/b.png"] * 2


def test_one_recording_may_hold_several_trials(folder: Path) -> None:
    def shown(start: int, image: str) -> str:
        return f"MSG\t{start} TRIALID 1\nMSG\t{start + 1} !V IMGLOAD CENTER {image} 160 120\n"

    body = (
        shown(2100, "a.png")
        + fixation("L", 2111, 200, "160.0", "120.0")
        + f"SFIX L   2400\n{shown(2500, 'b.png')}"  # a fixation that the second trial ends
        + fixation("L", 2400, 300, "90.0", "75.0").partition("\n")[2]
        + fixation("L", 2721, 200, "160.0", "120.0")
    )
    rows = rows_of(write(folder, HEAD + recording(2000, 9000, body, eyes="LEFT")))
    assert [(row[0][-5:], row[2], *row[5:]) for row in rows] == [
        ("a.png", 0, 0.01, 0.2), ("a.png", 1, 0.299, 0.3), ("b.png", 0, 0.22, 0.2),
    ]  # fmt: skip


def test_trials_and_images_that_are_not_known_are_counted(folder: Path) -> None:
    text = trial(2000, "a.png") + trial(5000, "gone.png") + trial(9000, "")
    corpus = read_eyelink(write(folder, HEAD + text))
    assert corpus.image_ids == ["images/a.png"]
    assert corpus.dropped["fixations on an image that is not there"] == 2
    assert corpus.dropped["fixations of trials that name no image"] == 2


@pytest.mark.parametrize(
    ("text", "options", "named"),
    [
        (HEAD + trial(2000, "gone.png"), {}, r"gone\.png; --eyelink\.images"),
        (HEAD + trial(2000, ""), {}, "names no image"),
        (HEAD + trial(2000, "a.png")[:-120], {}, "is cut: .* in line 11"),
        (HEAD + "EFIX R   2000\t21", {}, "line 10.*is cut"),
        (HEAD + fixation("R", 2000, 9, "far", "1.0"), {}, "line 11.*far"),
        (HEAD + "START\tsoon\n", {}, "line 10"),
        (HEAD, {}, "no fixations"),
        (HEAD + trial(2000, "a.png").replace("EVENTS\tGAZE", "EVENTS\tHREF"), {}, "GAZE"),
        (trial(2000, "a.png"), {}, r"--eyelink\.screen"),
        (HEAD + trial(2000, "a.png"), {"screen": (99, 99)}, r"--eyelink\.shown fit"),
        (HEAD + trial(2000, "a.png"), {"message": "("}, r"--eyelink\.message"),
        (HEAD + trial(2000, "a.png"), {"message": "a"}, "one group"),
        (HEAD + trial(2000, "a.png"), {"images": "nowhere"}, r"nowhere.*--eyelink\.images"),
    ],
)
def test_what_is_wrong_is_named_in_a_line(
    folder: Path, text: str, options: dict[str, Any], named: str
) -> None:
    with pytest.raises((CorpusError, InputError), match=named) as error:
        read_eyelink(write(folder, text), EyelinkOptions(**options))
    assert len(str(error.value).splitlines()) == 1


def test_folders_without_asc_files_are_named_with_what_makes_them(folder: Path) -> None:
    for source in (folder, folder / "nowhere"):
        with pytest.raises(CorpusError, match=r"no ASC files$"):
            read_eyelink(str(source))
    (folder / "s01.edf").touch()
    with pytest.raises(CorpusError, match="edf2asc"):
        read_eyelink(str(folder))
    with pytest.raises(CorpusError, match=r"s09\.asc"):
        read_eyelink(str(folder / "s09.asc"))


def test_a_name_of_two_images_is_refused_and_a_folder_tells_them_apart(folder: Path) -> None:
    (folder / "other").mkdir()
    make_photo(2, 160, 120).save(folder / "other" / "a.png")
    text = trial(2000, "a.png")
    assert rows_of(write(folder, HEAD + text))[0][0] == "images/a.png"
    write(folder, HEAD + text.replace("../../images/a.png", "a.png"))
    with pytest.raises(CorpusError, match=r"images/a\.png, other/a\.png.*--eyelink\.images"):
        read_eyelink(str(folder))
    assert rows_of(str(folder), images=str(folder / "other"))[0][0] == "a.png"


def test_other_encodings_are_named_and_read(folder: Path) -> None:
    text = HEAD + "MSG\t1999 gegenüber\n" + trial(2000, "a.png")
    source = write(folder, text, encoding="latin-1")
    with pytest.raises(CorpusError, match=r"s01\.asc.*--eyelink\.encoding latin-1"):
        read_eyelink(source)
    assert len(rows_of(source, encoding="latin-1")) == 2
    write(folder, text, encoding="utf-16")
    assert len(rows_of(source)) == 2


def test_pysaliency_has_the_same_fixations_and_gives_them_back(
    folder: Path, tmp_path: Path
) -> None:
    write(folder, HEAD + trial(2000, "a.png") + trial(5000, "b.png"))
    corpus = read_eyelink(str(folder))
    assert oracle.read_back(corpus, tmp_path / "hdf5") == oracle.points_of(corpus)
    again = read_pysaliency(str(tmp_path / "hdf5"), str(tmp_path / "copies"))
    assert again.image_ids == corpus.image_ids
    for column in corpus.fixations.column_names:
        assert again.fixations[column].to_pylist() == corpus.fixations[column].to_pylist()


def test_files_of_a_tracker_at_2000_hz_with_its_calibration_are_read(folder: Path) -> None:
    head = (
        "MSG\t1372889.0 !CAL\n>>>>>>> CALIBRATION (HV9,P-CR) FOR LEFT: <<<<<<<<<\n"
        "MSG\t1372889.0 !CAL Cal coeff:(X=a+bx+cy+dxx+eyy,Y=f+gx+goaly+ixx+jyy)\n"
        "     -0  187.55  7.0443  0.53469  0.55406\nINPUT\t1372900.0\t0\n"
        "MSG\t1372900.0 GAZE_COORDS 0.00 0.00 319.00 239.00\n"
        "MSG 1372901.5 TRIALID 1\r\n"
    )
    body = (
        "MSG\t1373000.5 -11 !V IMGLOAD FILL ../../images/a.png\r\n"
        "EFIX L   1373111.5\t1373243.5\t132.5\t  141.0\t  132.2\t    791\r\n"
    )
    write(folder, head + recording(1373000, 1374000, body, eyes="LEFT"))
    [row] = rows_of(str(folder))
    assert row == ("images/a.png", "s01", 0, 70.5, pytest.approx(66.1), 0.1, 0.1325)


def test_a_word_within_a_message_begins_no_trial(folder: Path) -> None:
    text = "MSG\t2000 STOP TRIALID 9\n" + trial(2000, "a.png").replace("TRIALID", "PREPARED")
    assert len(rows_of(write(folder, HEAD + text))) == 2
