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
    with pytest.raises(CorpusError, match="save it as UTF-8"):
        read_table(written(folder, "a.csv", lines, "latin-1"))
