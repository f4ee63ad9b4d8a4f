"""Tables of fixations: mapped columns, where images come from, and broken tables."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from gazecore.corpus.table import TableOptions, read_table
from gazecore.errors import CorpusError, InputError
from tests.conftest import make_photo
from tests.gazecore import oracle

COLUMNS: dict[str, list[Any]] = {
    "image": ["a.png", "b/c.png", "a.png", "a.png", "a.png"],
    "subject": [1, 1, 2, 1, 1],
    "x": [0.0, 5.5, 79.5, None, 80.0],
    "y": [0.0, 6.25, 59.0, 3.0, 3.0],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b/c.png", "unseen.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        make_photo(1, 80, 60).save(tmp_path / name)
    return tmp_path


def write(path: Path, columns: dict[str, list[Any]]) -> str:
    table = pa.table(columns)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        separator = "\t" if path.suffix == ".tsv" else ","
        pa.csv.write_csv(table, path, pa.csv.WriteOptions(delimiter=separator))
    return str(path)


@pytest.mark.parametrize("suffix", ["parquet", "csv", "tsv"])
def test_rows_become_fixations(folder: Path, suffix: str) -> None:
    corpus = read_table(write(folder / f"fixations.{suffix}", COLUMNS))
    assert corpus.image_ids == ["a.png", "unseen.png", "b/c.png"]
    rows = sorted(tuple(row.values()) for row in corpus.fixations.to_pylist())
    assert rows == [
        ("a.png", "1", 0, 0.0, 0.0, None, None),
        ("a.png", "2", 0, 79.5, 59.0, None, None),
        ("b/c.png", "1", 0, 5.5, 6.25, None, None),
    ]
    assert corpus.dropped == {"fixations outside the image": 1, "rows without x or y": 1}


def test_columns_are_mapped_and_images_come_from_a_list(folder: Path) -> None:
    (folder / "list.csv").write_text("image_id,uri\n001,a.png\n")
    columns = {
        "stimulus": ["001", "001"],
        "viewer": ["007", "x"],
        "FX": [1, 2],
        "FY": [3, 4],
        "n": [4, 2],
        "start": [0.5, None],
        "length": [0.25, 0.125],
    }
    options = TableOptions(
        images=str(folder / "list.csv"),
        image="stimulus",
        subject="viewer",
        x="FX",
        y="FY",
        index="n",
        t="start",
        duration="length",
    )
    corpus = read_table(write(folder / "t.csv", columns), options)
    assert [tuple(row.values()) for row in corpus.fixations.to_pylist()] == [
        ("001", "007", 4, 1.0, 3.0, 0.5, 0.25),
        ("001", "x", 2, 2.0, 4.0, None, 0.125),
    ]
    assert corpus.images["uri"].to_pylist() == [str(folder / "a.png")]


def test_the_order_of_rows_counts_within_image_and_subject(folder: Path) -> None:
    columns = {"image": ["a.png"] * 5, "subject": list("aabab"), "x": [9, 8, 7, 6, 5], "y": [1] * 5}
    corpus = read_table(write(folder / "t.parquet", columns))
    assert corpus.fixations["index"].to_pylist() == [0, 1, 0, 2, 1]
    assert corpus.fixations["x"].to_pylist() == [9, 8, 7, 6, 5]


@pytest.mark.parametrize("column", list(COLUMNS))
def test_a_missing_column_is_named_with_its_flag(folder: Path, column: str) -> None:
    columns = {name: values for name, values in COLUMNS.items() if name != column}
    with pytest.raises(CorpusError, match=rf"t\.csv.*`{column}`.*--table\.{column}"):
        read_table(write(folder / "t.csv", columns))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": ["d.png"] * 5}, "no image d.png"),
        ({"image": [None, *COLUMNS["image"][1:]]}, "`image`: a row has none"),
        ({"subject": [None, 1, 1, 1, 1]}, "`subject`: a row has none"),
        ({"x": ["left"] * 5}, "`x`.*left"),
        ({"y": [[1.0]] * 5}, "`y`"),
    ],
)
def test_wrong_values_are_named(folder: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(CorpusError, match=rf"t\.parquet.*{message}") as caught:
        read_table(write(folder / "t.parquet", {**COLUMNS, **change}))
    assert "\n" not in str(caught.value)


def test_a_row_without_index_is_named(folder: Path) -> None:
    path = write(folder / "t.parquet", {**COLUMNS, "n": [1, 2, 3, 4, None]})
    with pytest.raises(CorpusError, match="`n`: a row has none"):
        read_table(path, TableOptions(index="n"))


@pytest.mark.parametrize("last", [1.5, 1e12, -3e9])
def test_an_index_that_is_no_whole_number_is_named(folder: Path, last: float) -> None:
    path = write(folder / "t.parquet", {**COLUMNS, "n": [1.0, 2.0, 3.0, 4.0, last]})
    with pytest.raises(CorpusError, match="`n`: not all are whole numbers"):
        read_table(path, TableOptions(index="n"))


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.xlsx"])
def test_what_is_no_table_is_named(folder: Path, name: str) -> None:
    with pytest.raises(CorpusError, match=name):
        read_table(str(folder / name))
    (folder / name).write_bytes(b'\x00\xff"')
    with pytest.raises(CorpusError, match=name):
        read_table(str(folder / name))


def test_a_file_that_is_no_image_and_a_folder_that_is_not_there(folder: Path) -> None:
    path = write(folder / "t.csv", COLUMNS)
    with pytest.raises(InputError, match="nowhere"):
        read_table(path, TableOptions(images=str(folder / "nowhere")))
    (folder / "a.png").write_bytes(b"text")
    with pytest.raises(CorpusError, match=r"a\.png"):
        read_table(path)


POINTS = [(10.5, 20.25), (40.0, 30.0), (79.0, 59.0)]


def written(folder: Path, name: str, lines: list[str], encoding: str = "utf-8") -> str:
    (folder / name).write_text("\n".join(lines) + "\n", encoding=encoding)
    return str(folder / name)


@pytest.mark.parametrize(
    ("name", "lines", "encoding"),
    [
        ("a.csv", ["image;subject;x;y", "a.png;v;10,5;20,25", "a.png;v;40,0;30,0",
                   "a.png;v;79;59"], "utf-8"),
        ("a.csv", ["image;subject;x;y", *(f"a.png;v;{x};{y}" for x, y in POINTS)], "utf-8-sig"),
        ("a.tsv", ["image\tsubject\tx\ty", *(f"a.png\tv\t{x}\t{y}" for x, y in POINTS)], "utf-16"),
        ("a.csv", ["image, subject, x, y", *(f"a.png,v,{x},{y}" for x, y in POINTS)], "utf-8"),
        ("a.csv", ["image,subject,x,y,note", "a.png,v,.,.,blink",
                   *(f"a.png,v,{x},{y}," for x, y in POINTS), "a.png,v,NA,3,"], "utf-8"),
    ],
    ids=["decimal-commas", "semicolons", "utf-16", "spaces", "dots"],
)  # fmt: skip
def test_a_table_of_any_tracker_and_country_is_read(
    folder: Path, name: str, lines: list[str], encoding: str
) -> None:
    corpus = read_table(written(folder, name, lines, encoding))
    found = [(row["x"], row["y"]) for row in corpus.fixations.to_pylist()]
    assert found == POINTS
    assert corpus.dropped["rows without x or y"] == len(lines) - 1 - len(POINTS)


def test_shares_of_the_image_are_refused_as_pixels_and_taken_on_request(folder: Path) -> None:
    lines = ["image,subject,x,y", "a.png,v,0.5,0.25", "a.png,v,1,1", "a.png,v,0,0"]
    path = written(folder, "a.csv", lines)
    with pytest.raises(CorpusError, match=r"within 0 and 1.*--table\.positions shares"):
        read_table(path)
    corpus = read_table(path, TableOptions(positions="shares"))
    assert [(row["x"], row["y"]) for row in corpus.fixations.to_pylist()] == [
        (40, 15), (79.5, 59.5), (0, 0),
    ]  # fmt: skip
    pixels = written(folder, "b.csv", ["image,subject,x,y", "a.png,v,40,15"])
    with pytest.raises(CorpusError, match="no shares"):
        read_table(pixels, TableOptions(positions="shares"))


def test_milliseconds_are_refused_as_seconds_and_taken_on_request(folder: Path) -> None:
    lines = ["image,subject,x,y,t,duration", "a.png,v,4,5,1500,250", "a.png,v,4,5,2000,."]
    path = written(folder, "a.csv", lines)
    with pytest.raises(CorpusError, match=r"250 s.*--table\.times ms"):
        read_table(path, TableOptions(t="t", duration="duration"))
    corpus = read_table(path, TableOptions(t="t", duration="duration", times="ms"))
    assert corpus.fixations["t"].to_pylist() == [1.5, 2]
    assert corpus.fixations["duration"].to_pylist() == [0.25, None]


def test_a_table_that_is_no_utf8_names_the_remedy(folder: Path) -> None:
    lines = ["image,subject,x,y", "a.png,Zoé,4,5"]
    with pytest.raises(CorpusError, match=r"not UTF-8 text.*--table\.encoding latin-1"):
        read_table(written(folder, "a.csv", lines, "latin-1"))


def points_of(path: str, **options: Any) -> list[tuple[float, float]]:
    rows = read_table(path, TableOptions(**options)).fixations.to_pylist()
    return [(row["x"], row["y"]) for row in rows]


@pytest.mark.parametrize(
    ("options", "x", "y"),
    [
        # An image of 80 x 60 on a screen of 320 x 200: its pixel (20, 15).
        ({"shown": "centred"}, 140, 85),
        ({"shown": "fit"}, 80, 50),  # 10/3 times as large: bars of 26.7 on both sides
        ({"shown": "stretched"}, 80, 50),
        ({"shown": "stretched", "positions": "shares"}, 0.25, 0.25),
        ({"shown": "centred", "origin": "bottom-left"}, 140, 115),
        ({"shown": "centred", "origin": "centre"}, -20, 15),
        ({"shown": "centred", "origin": "centre", "positions": "shares"}, -0.0625, 0.075),
    ],
)
def test_positions_on_a_screen_become_those_on_the_image(
    folder: Path, options: dict[str, Any], x: float, y: float
) -> None:
    expected = (16, 15) if options["shown"] == "fit" else (20, 15)  # (80 - 26.7) / (10 / 3) = 16
    path = written(folder, "a.csv", ["image,subject,x,y", f"a.png,v,{x},{y}"])
    [found] = points_of(path, screen=(320, 200), **options)
    assert found == pytest.approx(expected)


def test_bars_beside_an_image_are_outside_of_it(folder: Path) -> None:
    path = written(folder, "a.csv", ["image,subject,x,y", "a.png,v,26,50", "a.png,v,27,50"])
    corpus = read_table(path, TableOptions(screen=(320, 200), shown="fit"))
    assert corpus.fixations.num_rows == 1
    assert corpus.dropped["fixations outside the image"] == 1


def test_an_image_larger_than_the_screen_was_not_shown_at_its_own_size(folder: Path) -> None:
    path = written(folder, "a.csv", ["image,subject,x,y", "a.png,v,26,5"])
    with pytest.raises(CorpusError, match=r"80x60 .*larger than.* 40x30.*--table\.shown fit"):
        read_table(path, TableOptions(screen=(40, 30)))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"shown": "fit"}, "--table.screen"),
        ({"screen": (0, 9)}, "--table.screen"),
        ({"delimiter": "::"}, "--table.delimiter"),
        ({"delimiter": "é"}, "--table.delimiter"),
    ],
)
def test_options_that_make_no_sense_are_named(
    folder: Path, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(InputError, match=named):
        read_table(written(folder, "a.csv", ["image,subject,x,y"]), TableOptions(**options))


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_marks_of_missing_numbers_are_whatever_the_tracker_wrote(folder: Path, suffix: str) -> None:
    columns = {
        "image": ["a.png"] * 4, "subject": ["v"] * 4,
        "x": [-1, 5.5, -32768, 7], "y": [-1, 6, 9, 8.5], "d": [0.2, -1, 0.25, 0.3],
    }  # fmt: skip
    path = write(folder / f"t.{suffix}", columns)
    corpus = read_table(path, TableOptions(missing="-1 -32768", duration="d"))
    rows = [(row["x"], row["y"], row["duration"]) for row in corpus.fixations.to_pylist()]
    assert rows == [(5.5, 6, None), (7, 8.5, 0.3)]
    assert corpus.dropped == {"fixations outside the image": 0, "rows without x or y": 2}


def test_words_for_missing_numbers_can_be_given(folder: Path) -> None:
    lines = ["image,subject,x,y", "a.png,v,lost,lost", "a.png,v,-,-", "a.png,v,5,6"]
    path = written(folder, "a.csv", lines)
    with pytest.raises(CorpusError, match="lost"):
        read_table(path)
    assert points_of(path, missing="lost") == [(5, 6)]


@pytest.mark.parametrize(
    ("name", "lines", "options"),
    [
        ("a.csv", ['image,subject,x,y', 'a.png,v,"10,5","20,25"'], {"decimal": "comma"}),
        ("a.txt", ["image subject x y", "a.png v 10.5 20.25"], {"delimiter": "space"}),
        ("a.asc", ["image\tsubject\tx\ty", "a.png\tv\t10.5\t20.25"], {"delimiter": "tab"}),
        ("a.csv", ["image:subject:x:y", "a.png:v:10.5:20.25"], {"delimiter": ":"}),
    ],
)  # fmt: skip
def test_how_a_table_is_written_can_be_said(
    folder: Path, name: str, lines: list[str], options: dict[str, Any]
) -> None:
    path = written(folder, name, lines)
    with pytest.raises(CorpusError, match=name):
        read_table(path)
    assert points_of(path, **options) == [(10.5, 20.25)]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16-le", "mac-roman"])
def test_a_table_in_another_encoding_is_read_on_request(folder: Path, encoding: str) -> None:
    lines = ["image,subject,x,y", "a.png,Zoé,10,5"]
    path = written(folder, "a.csv", lines, encoding)
    with pytest.raises(CorpusError) as error:
        read_table(path)
    assert len(str(error.value).splitlines()) == 1
    corpus = read_table(path, TableOptions(encoding=encoding))
    assert corpus.fixations["subject"].to_pylist() == ["Zoé"]


def test_an_encoding_that_is_none_and_text_that_is_cut_are_named(folder: Path) -> None:
    path = written(folder, "a.csv", ["image,subject,x,y", "a.png,Zoé,10,5"], "utf-16")
    with pytest.raises(CorpusError, match=r"--table\.encoding klingon"):
        read_table(path, TableOptions(encoding="klingon"))
    Path(path).write_bytes(Path(path).read_bytes()[:-1])
    with pytest.raises(CorpusError, match="or cut"):
        read_table(path)


@pytest.mark.parametrize(
    ("values", "times", "remedy"),
    [
        ((250, 300, 200), "s", "--table.times ms"),
        ((250_000, 300_000, 200_000), "s", "--table.times us"),
        ((250_000, 300_000, 200_000), "ms", "--table.times us"),
        ((0.25, 0.3, 0.2), "ms", "--table.times s"),
        ((250, 300, 200), "us", "--table.times ms"),
        ((3e9, 3e9, 3e9), "s", "is that its duration?"),
        ((0, 0, 0), "s", "is that its duration?"),
    ],
)
def test_durations_in_another_unit_name_the_one_that_fits(
    folder: Path, values: tuple[float, ...], times: Any, remedy: str
) -> None:
    lines = ["image,subject,x,y,d", *(f"a.png,v,4,5,{value}" for value in values)]
    path = written(folder, "a.csv", lines)
    with pytest.raises(CorpusError) as error:
        read_table(path, TableOptions(duration="d", times=times))
    assert remedy in str(error.value)
    if remedy.startswith("--"):
        unit = remedy.split()[1]
        said: dict[str, Any] = {"duration": "d", "times": unit}
        durations = read_table(path, TableOptions(**said)).fixations["duration"]
        assert durations.to_pylist() == pytest.approx([0.25, 0.3, 0.2])


def test_pysaliency_has_the_same_fixations(folder: Path, tmp_path: Path) -> None:
    lines = [
        "image,subject,x,y",
        *(f"{i},v,{x},{y}" for i in ("a.png", "b/c.png") for x, y in POINTS),
    ]
    corpus = read_table(written(folder, "a.csv", lines))
    assert oracle.read_back(corpus, tmp_path / "hdf5") == oracle.points_of(corpus)
