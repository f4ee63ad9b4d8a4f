"""A folder, glob, image or list becomes rows: every image once, none lost, names untouched."""

import importlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gazecore.errors import InputError, NotFound
from gazecore.images.fetch import fetch
from gazecore.images.formats import Limits
from gazecore.images.listing import LISTED, absolute_input, list_images
from gazecore.images.lists import GUESSES, Columns
from gazecore.images.read import Reader
from gazecore.storage import Location
from tests.containers import write_parquet, write_tar

STRANGE = (
    "with space.jpg", "ünï-日本.jpg", "100%25.jpg", "a#b.jpg", "a?b.jpg", "[1].jpg", "star*.jpg",
    "quote's \"x\".jpg", "a+b&c=d.jpg", "{a,b}.jpg", "-dash.jpg", "~tilde.jpg", "back\\slash.jpg",
    "semi;colon:.jpg", "two::colons.jpg",
)  # fmt: skip


def listed(source: str | Path) -> list[dict[str, Any]]:
    batches = list(list_images(str(source)))
    assert all(batch.schema.equals(LISTED) for batch in batches)
    return [row for batch in batches for row in batch.to_pylist()]


def ids(source: str | Path) -> list[str]:
    return [row["image_id"] for row in listed(source)]


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def write_list(path: Path, uris: list[str], image_ids: list[str] | None = None) -> Path:
    columns = {"uri": uris} | ({"image_id": image_ids} if image_ids else {})
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    elif path.suffix == ".txt":
        path.write_text("".join(f"{uri}\n" for uri in uris))
    else:
        pd.DataFrame(columns).to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


@pytest.fixture
def memory(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URI of an empty directory in memory."""
    fs = fsspec.filesystem("memory")
    path = f"/{request.node.name.partition('[')[0]}"
    fs.makedirs(path)
    yield f"memory:/{path}"
    fs.rm(path, recursive=True)


def test_a_folder_is_listed_recursively(photos: Path) -> None:
    (photos / "a" / "notes.txt").write_text("no image")
    (photos / "a" / "photo.xmp").write_text("no image")
    (photos / "jpg").write_text("no image")
    (photos / "directory.jpg").mkdir()
    rows = listed(photos)
    expected = [f"a/photo-{i}.jpg" for i in (1, 3, 5, 7, 9)]
    expected += [f"b/photo-{i}.jpg" for i in (0, 2, 4, 6, 8)]
    assert [row["image_id"] for row in rows] == expected
    for row in rows:
        assert row["uri"] == str(photos / row["image_id"])
        assert row["size"] == os.path.getsize(row["uri"])
    assert rows == listed(photos)


def test_the_order_is_that_of_names_not_of_creation(tmp_path: Path) -> None:
    touch(tmp_path, "c.jpg", "a.jpg", "z/a.jpg", "b.jpg", "m/a.jpg")
    assert ids(tmp_path) == ["a.jpg", "b.jpg", "c.jpg", "m/a.jpg", "z/a.jpg"]


def test_upper_case_and_all_formats_are_images(tmp_path: Path) -> None:
    names = ["A.JPG", "b.Png", "c.TIFF", "d.webp", "e.avif", "f.jp2", "g.bmp", "h.gif", "i.ppm"]
    touch(tmp_path, *names, "x.pdf", "x.mp4", "x.svg")
    assert ids(tmp_path) == names


def test_a_changed_file_has_another_version(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    before = listed(tmp_path)[0]["version"]
    assert before == listed(tmp_path)[0]["version"]
    os.utime(tmp_path / "a.jpg", (1, 1))
    assert listed(tmp_path)[0]["version"] != before


@pytest.mark.parametrize("name", STRANGE)
def test_strange_names_are_listed_and_can_be_fetched(tmp_path: Path, name: str) -> None:
    folder = tmp_path / f"folder of {name}"
    touch(folder, name)
    for source in (folder, folder / name):
        (row,) = listed(source)
        assert row["image_id"] == name
        assert fetch(row["uri"], row["size"], Limits()) == name.encode()


def test_a_name_that_is_not_utf8_is_a_mistake_that_says_so(tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9.jpg")
    with open(path, "wb"):
        pass
    with pytest.raises(InputError, match="not UTF-8"):
        listed(tmp_path)


@pytest.mark.parametrize("target", ["nowhere.jpg", "link.jpg"], ids=["broken", "loop"])
def test_a_broken_link_does_not_end_the_listing(tmp_path: Path, target: str) -> None:
    touch(tmp_path, "a.jpg", "z.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / target)
    assert [i for i in ids(tmp_path) if i != "link.jpg"] == ["a.jpg", "z.jpg"]


def test_a_folder_without_images_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "notes.txt.bak").write_text("no image")
    with pytest.raises(InputError, match="no images"):
        listed(tmp_path)


def test_a_trailing_slash_and_a_relative_path_change_nothing(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    assert listed("photos/") == listed("./photos") == listed(photos)
    assert absolute_input("photos/") == absolute_input(str(photos)) == str(photos)


def test_a_glob(photos: Path) -> None:
    assert ids(photos / "a" / "*-[13].jpg") == ["photo-1.jpg", "photo-3.jpg"]
    assert ids(photos / "*" / "photo-?.jpg") == ids(photos)
    assert ids(photos / "**" / "*.jpg") == ids(photos)
    with pytest.raises(InputError, match="no images"):
        listed(photos / "*.png")
    row = listed(photos / "a" / "*-1.jpg")[0]
    assert (row["uri"], row["size"]) == (
        str(photos / "a" / "photo-1.jpg"),
        os.path.getsize(photos / "a" / "photo-1.jpg"),
    )


def test_one_image(photos: Path) -> None:
    path = photos / "a" / "photo-1.jpg"
    (row,) = listed(path)
    assert (row["image_id"], row["uri"]) == ("photo-1.jpg", str(path))
    assert row["size"] == path.stat().st_size


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".tsv", ".txt"])
def test_a_list(tmp_path: Path, suffix: str) -> None:
    uris = ["one.jpg", "sub/two 2.jpg", "/absolute/three.jpg", "s3://bucket/four#4.jpg"]
    rows = listed(write_list(tmp_path / f"list{suffix}", uris))
    assert [row["image_id"] for row in rows] == uris
    assert [row["uri"] for row in rows] == [
        str(tmp_path / "one.jpg"),
        str(tmp_path / "sub/two 2.jpg"),
        *uris[2:],
    ]
    assert {(row["size"], row["version"]) for row in rows} == {(None, None)}


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".tsv"])
def test_a_list_with_ids(tmp_path: Path, suffix: str) -> None:
    path = write_list(tmp_path / f"list{suffix}", ["a.jpg", "b.jpg"], ["007", "eight, 8"])
    assert ids(path) == ["007", "eight, 8"]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".tsv", ".txt"])
@pytest.mark.parametrize("count", [10_000, 25_001])
def test_a_long_list_loses_no_line(tmp_path: Path, suffix: str, count: int) -> None:
    # Long enough that readers of text cut it in blocks, too.
    uris = [f"s3://bucket/{'folder/' * 12}{i}.jpg" for i in range(count)]
    path = write_list(tmp_path / f"list{suffix}", uris)
    assert [row["uri"] for row in listed(path)] == uris


def test_a_long_folder_loses_no_file(tmp_path: Path) -> None:
    for i in range(10_001):
        os.close(os.open(tmp_path / f"{i:05d}.jpg", os.O_CREAT))
    assert ids(tmp_path) == [f"{i:05d}.jpg" for i in range(10_001)]


def test_lists_that_pandas_wrote(tmp_path: Path) -> None:
    frame = pd.DataFrame({"n": [1, 2], "uri": ["a.jpg", "b.jpg"], "image_id": [7, 8]})
    frame.to_parquet(tmp_path / "plain.parquet")
    assert ids(tmp_path / "plain.parquet") == ["7", "8"]
    frame.astype("category").to_parquet(tmp_path / "category.parquet")
    assert [row["uri"] for row in listed(tmp_path / "category.parquet")] == [
        str(tmp_path / "a.jpg"),
        str(tmp_path / "b.jpg"),
    ]


def test_text_lists_may_have_blank_lines_and_windows_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"a.jpg\r\n\r\n  b.jpg  \n\nc.jpg")
    assert ids(path) == ["a.jpg", "b.jpg", "c.jpg"]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt"])
def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path, suffix: str) -> None:
    path = write_list(tmp_path / f"list{suffix}", ["a.jpg", "b.jpg"])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert ids(path) == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".tsv"])
def test_a_missing_column_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"list{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.table({"link": ["a.jpg"], "size": [1]}), path)
    else:
        path.write_text("link\tsize\na.jpg\t1\n".replace("\t", "," if suffix == ".csv" else "\t"))
    with pytest.raises(
        InputError, match=r"none of the columns uri, url.* its columns are link, size"
    ):
        listed(path)
    for columns in (Columns("nothing"), Columns("link", "nothing")):
        with pytest.raises(InputError, match="no column `nothing`; its columns are link, size"):
            list(list_images(str(path), columns=columns))


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    else:
        pd.DataFrame(rows).to_csv(path, index=False)


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
@pytest.mark.parametrize("name", GUESSES)
def test_a_column_of_a_likely_name_is_taken_and_said(
    tmp_path: Path, suffix: str, name: str
) -> None:
    path = tmp_path / f"list{suffix}"
    write_rows(path, [{"caption": "a cat", name: f"{i}.jpg", "key": f"k{i}"} for i in range(3)])
    for ids, expected in ((None, ["0.jpg", "1.jpg", "2.jpg"]), ("key", ["k0", "k1", "k2"])):
        columns = Columns(ids=ids)
        rows = [row for b in list_images(str(path), columns=columns) for row in b.to_pylist()]
        assert [row["uri"] for row in rows] == [f"{tmp_path}/{i}.jpg" for i in range(3)]
        assert [row["image_id"] for row in rows] == expected
        said = f"images by column `{name}`" + (", ids by `key`" if ids else "")
        assert columns.took == ("" if name == "uri" and not ids else said)


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_any_columns_can_be_named_and_the_likelier_name_goes_first(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"list{suffix}"
    write_rows(path, [{"path": "p.jpg", "url": "u.jpg", "image_id": "i", "other one": "o.jpg"}])
    for columns, row in (
        (Columns(), ("i", "u.jpg")), (Columns("path"), ("i", "p.jpg")),
        (Columns("other one", "url"), ("u.jpg", "o.jpg")),
        (Columns("path", "path"), ("p.jpg", "p.jpg")),
    ):  # fmt: skip
        (batch,) = list_images(str(path), columns=columns)
        assert (batch["image_id"][0].as_py(), batch["uri"][0].as_py()) == (
            row[0], f"{tmp_path}/{row[1]}",
        )  # fmt: skip


def test_in_a_list_of_parquet_only_texts_are_guessed(tmp_path: Path) -> None:
    table = pa.table({"url": [1.5], "image": [[1, 2]], "path": ["a.jpg"]})
    pq.write_table(table, tmp_path / "list.parquet")
    assert [row["uri"] for row in listed(tmp_path / "list.parquet")] == [f"{tmp_path}/a.jpg"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_a_text_table_that_means_it_ill(tmp_path: Path, end: str, mark: str, start: str) -> None:
    """Lines within quotes, in the header too, and columns whose values change their kind."""
    header = mark.join(['"a', 'note"', "n", "uri", "image_id"]).replace(
        mark + 'note"', f'{end}note"'
    )
    lines = [header]
    for i in range(2000):
        note = f'"said ""{i}""{end}and{mark} more"' if i % 3 else "plain"
        value = "2020-01-01" if i < 1500 else f"x{i}"
        lines.append(mark.join([note, value, f'"{i:04d} a{mark}b.jpg"', f"{i:04d}"]))
    (tmp_path / "list.csv").write_bytes((start + end.join(lines) + end).encode())
    rows = listed(tmp_path / "list.csv")
    assert [row["image_id"] for row in rows] == [f"{i:04d}" for i in range(2000)]
    assert [row["uri"] for row in rows] == [f"{tmp_path}/{i:04d} a{mark}b.jpg" for i in range(2000)]


def test_texts_that_look_like_nothing_or_numbers_stay_texts(tmp_path: Path) -> None:
    names = ["NA", "null", "nan", "0012", "1e5", "true", "2020-01-01", "-", "None"]
    (tmp_path / "list.csv").write_text("uri\n" + "".join(f"{name}\n" for name in names))
    assert ids(tmp_path / "list.csv") == names


def test_a_list_names_members_of_containers(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", {"a/1.jpg": b"one", "a/2.jpg": b"two"})
    write_parquet(tmp_path / "x.parquet", {"1": b"row"})
    named = ["x.tar#a/2.jpg", "x.parquet#0", "x.tar#a/1.jpg", "x.tar#a/3.jpg"]
    rows = listed(write_list(tmp_path / "list.txt", named))
    assert [row["image_id"] for row in rows] == named
    reader = Reader(rows, Limits())
    assert [reader.read(i) for i in range(3)] == [b"two", b"row", b"one"]
    with pytest.raises(NotFound, match=r"no file 'a/3\.jpg' in .*x\.tar"):
        reader.read(3)


def test_a_storage_whose_package_is_missing_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    known = importlib.import_module("fsspec.registry")._registry
    monkeypatch.delitem(known, "hf", raising=False)
    with pytest.raises(InputError, match=r"hf://datasets/a/b.*huggingface_hub"):
        listed("hf://datasets/a/b")
    rows = listed(write_list(tmp_path / "list.txt", ["hf://datasets/a/b/c.jpg"]))
    with pytest.raises(NotFound, match="huggingface_hub"):
        fetch(rows[0]["uri"], None, Limits())


def test_an_empty_list(tmp_path: Path) -> None:
    for name in ("list.csv", "list.tsv", "list.parquet"):
        (tmp_path / name).write_text("")
        with pytest.raises(InputError, match=name):
            listed(tmp_path / name)
    (tmp_path / "list.txt").write_text("")
    with pytest.raises(InputError, match=r"no images in .*list\.txt"):
        listed(tmp_path / "list.txt")


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize("column", ["uri", "image_id"])
def test_an_empty_field_is_refused(tmp_path: Path, suffix: str, column: str) -> None:
    path = tmp_path / f"list{suffix}"
    columns: dict[str, list[str | None]] = {"uri": ["a.jpg", "b.jpg"], "image_id": ["a", "b"]}
    columns[column][1] = None
    frame = pd.DataFrame(columns)
    if suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False)
    with pytest.raises(InputError, match=column):
        listed(path)


@pytest.mark.parametrize("name", ["list.parquet", "list.csv", "list.txt"])
def test_a_damaged_list_is_a_mistake(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b'uri,image_id\n"\xff\xfe\n1,2,3,4\n')
    with pytest.raises(InputError, match=name):
        listed(tmp_path / name)


def test_a_column_of_another_kind_is_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "list.parquet"
    pq.write_table(pa.table({"uri": [["a.jpg"], ["b.jpg"]]}), path)
    with pytest.raises(InputError, match="list"):
        listed(path)


@pytest.mark.parametrize("name", ["nothing", "nothing.jpg", "nothing.csv", "no/where/at/all"])
def test_what_does_not_exist_is_a_mistake(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=name):
        listed(tmp_path / name)


def test_an_unknown_protocol_is_a_mistake() -> None:
    with pytest.raises(InputError, match="nosuch://"):
        listed("nosuch://bucket/photos")


def test_a_folder_in_memory(memory: str) -> None:
    fs = fsspec.filesystem("memory")
    root = memory.removeprefix("memory:/")
    for name in ("z.jpg", "b/[2] 100%.jpg", "a/c.PNG", "a.jpg", "notes.txt"):
        fs.pipe_file(f"{root}/{name}", name.encode())
    rows = listed(memory)
    assert sorted(row["image_id"] for row in rows) == sorted(
        ["a.jpg", "z.jpg", "a/c.PNG", "b/[2] 100%.jpg"]
    )
    assert rows == listed(memory)
    for row in rows:
        assert fetch(row["uri"], row["size"], Limits()) == row["image_id"].encode()
        assert row["size"] == len(row["image_id"])
    assert ids(f"{memory}/a/*.PNG") == ["c.PNG"]
    assert ids(f"{memory}/a.jpg") == ["a.jpg"]


def test_a_list_in_memory(memory: str) -> None:
    fs = fsspec.filesystem("memory")
    root = memory.removeprefix("memory:/")
    fs.pipe_file(f"{root}/a.jpg", b"a")
    fs.pipe_file(f"{root}/list.csv", f"uri\na.jpg\n{memory}/a.jpg\n".encode())
    rows = listed(f"{memory}/list.csv")
    assert [row["image_id"] for row in rows] == ["a.jpg", f"{memory}/a.jpg"]
    assert [fetch(row["uri"], None, Limits()) for row in rows] == [b"a", b"a"]


OUTSIDE = {
    "/etc/passwd": "file", "//etc/passwd": "file", "file:///etc/passwd": "file",
    "FILE:///etc/passwd": "file", "local:///etc/passwd": "file", "s3://other/a.jpg": "s3",
    "http://127.0.0.1/a.jpg": "http", "ssh://host/a.jpg": "ssh", "reference://a": "reference",
    "simplecache::file:///etc/passwd": "simplecache::file", "mem://a": "mem", "dir://x": "dir",
    "zip://a.jpg::file:///etc/x.zip": "zip", "c://etc/passwd": "c",
}  # fmt: skip


@pytest.mark.parametrize("uri", OUTSIDE)
@pytest.mark.parametrize("suffix", [".csv", ".txt", ".parquet"])
def test_a_list_elsewhere_names_nothing_but_its_own_storage(
    memory: str, tmp_path: Path, uri: str, suffix: str
) -> None:
    path = write_list(tmp_path / f"list{suffix}", ["a.jpg", uri])
    fsspec.filesystem("memory").put_file(path, f"{memory.removeprefix('memory:/')}/list{suffix}")
    source = f"{memory}/list{suffix}"
    with pytest.raises(InputError) as caught:
        listed(source)
    for said in (source.removeprefix("memory:"), uri, f"--allow {OUTSIDE[uri]}"):
        assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    rows = [row for batch in list_images(source, [OUTSIDE[uri]]) for row in batch.to_pylist()]
    assert rows[1]["uri"] == uri


@pytest.mark.parametrize(
    "uri", ["../other/a.jpg", "a::b.jpg", "x::/etc/passwd", "::file:///etc/passwd"]
)
def test_what_is_relative_stays_on_the_storage_of_its_list(memory: str, uri: str) -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe_file(f"{memory.removeprefix('memory:/')}/list.txt", f"{uri}\n".encode())
    if "://" in uri:
        with pytest.raises(InputError, match="may not name"):
            listed(f"{memory}/list.txt")
        return
    (row,) = listed(f"{memory}/list.txt")
    location = Location(row["uri"])
    assert not location.is_local
    assert row["uri"].startswith("memory:///")


def test_a_name_in_a_bucket_is_never_a_chain_of_storages(memory: str, tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    fs = fsspec.filesystem("memory")
    key = f"{memory.removeprefix('memory:/')}/x::{tmp_path}/secret.jpg"
    fs.pipe_file(key, b"its own")
    (row,) = listed(memory)
    assert fetch(row["uri"], None, Limits()) == b"its own"


def test_a_local_list_names_storages_but_nothing_that_opens_others(tmp_path: Path) -> None:
    fine = ["s3://b/a.jpg", "gs://b/a.jpg", "https://h/a.jpg", "/a.jpg", "file:///a.jpg", "no://x"]
    assert [row["uri"] for row in listed(write_list(tmp_path / "list.txt", fine))] == fine
    for uri in ("github://a", "reference://a", "zip://a", "ssh://h/a", "memory://a", "dask://a"):
        with pytest.raises(InputError, match=f"{uri}.*--allow"):
            listed(write_list(tmp_path / "list.txt", ["a.jpg", uri]))


@pytest.mark.parametrize("uri", ["s3://planted-id:planted@b/a.jpg", "https://u:planted@h/a.jpg"])
def test_a_password_in_a_list_is_refused_and_not_repeated(tmp_path: Path, uri: str) -> None:
    for source in (write_list(tmp_path / "list.csv", ["a.jpg", uri]), uri):
        with pytest.raises(InputError, match="password") as caught:
            listed(source)
        assert "planted" not in str(caught.value)


def test_of_a_signed_url_the_id_has_no_signature(tmp_path: Path) -> None:
    uris = ["https://h/a.jpg?X-Amz-Date=1&X-Amz-Signature=planted", "https://h/b.jpg?page=2",
            "s3://b/what?key=1.jpg"]  # fmt: skip
    rows = listed(write_list(tmp_path / "list.txt", uris))
    assert [row["uri"] for row in rows] == uris
    assert [row["image_id"] for row in rows] == ["https://h/a.jpg?***", *uris[1:]]
    assert "planted" not in absolute_input(uris[0])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("semicolons.csv", b'\xef\xbb\xbf"uri";"image_id"\r\n"a.jpg";"mine"\r\n'),
        ("tabs.csv", b"uri\timage_id\na.jpg\tmine\n"),
        ("commas.tsv", b"uri,image_id\na.jpg,mine\n"),
        ("spaced.csv", b"uri , image_id\na.jpg,mine\n"),
        ("utf16.csv", "uri,image_id\na.jpg,mine\n".encode("utf-16")),
        ("lines.jsonl", b'{"uri": "a.jpg", "image_id": "mine", "n": 1}\n\n'),
        ("lines.ndjson", b'\xef\xbb\xbf{"image_id": "mine", "uri": "a.jpg"}'),
    ],
)
def test_a_list_of_any_country_and_program_is_read(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    assert [(row["image_id"], row["uri"]) for row in listed(tmp_path / name)] == [
        ("mine", f"{tmp_path}/a.jpg")
    ]


def test_other_columns_of_a_list_do_not_matter(tmp_path: Path) -> None:
    """Not what is in them, nor that it changes after Arrow has looked at a megabyte."""
    lines = "".join(f"{i}.jpg,1,{i}\n" for i in range(200_000))
    (tmp_path / "list.csv").write_text(f"uri,note,note\n{lines}last.jpg,see remark,x\n")
    found = ids(tmp_path / "list.csv")
    assert len(found) == 200_001
    assert found[-1] == "last.jpg"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("two.csv", b"uri,uri\na.jpg,b.jpg\n", "2 columns `uri`"),
        ("two.csv", b"uri,image_id, image_id\na.jpg,b,c\n", "2 columns `image_id`"),
        ("latin.csv", "uri\ncafé.jpg\n".encode("latin-1"), "not UTF-8.*save it as UTF-8"),
        ("latin.txt", "café.jpg\n".encode("latin-1"), "not UTF-8.*save it as UTF-8"),
        ("null.csv", b'uri,image_id\na.jpg,a\n"",b\n', "row 2 has no uri"),
        ("null.csv", b"uri,image_id\na.jpg,a\nb.jpg,b\nc.jpg,\n", "row 3 has no image_id"),
        ("null.jsonl", b'{"uri": "a.jpg"}\n{"uri": null}\n', "row 2 has no uri"),
        ("text.jsonl", b'{"uri": "a.jpg"}\nb.jpg\n', "line 2 is no JSON object"),
        ("number.jsonl", b'{"uri": 7}\n', "line 1: uri must be text"),
        ("list.jsonl", b'["a.jpg"]\n', "line 1 is no JSON object"),
        ("deep.jsonl", b"[" * 100_000 + b"\n", "line 1 is no JSON object"),
        ("late.jsonl", b'{"uri": "a"}\n{"uri": "b", "image_id": "x"}\n', "line 2 has an image_id"),
    ],
)
def test_a_list_that_cannot_be_read_says_where_and_what(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        listed(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_row_without_a_uri_is_named_in_parquet_beyond_the_first_batch(tmp_path: Path) -> None:
    uris = [*(f"{i}.jpg" for i in range(25_000)), None]
    pq.write_table(pa.table({"uri": uris}), tmp_path / "list.parquet")
    with pytest.raises(InputError, match="row 25001 has no uri"):
        listed(tmp_path / "list.parquet")


def test_two_columns_of_one_name_in_parquet_are_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["uri", "uri"])
    pq.write_table(table, tmp_path / "list.parquet")
    with pytest.raises(InputError, match="2 columns `uri`"):
        listed(tmp_path / "list.parquet")


LITTER = (
    "._good.jpg", "__MACOSX/._good.jpg", "a/@eaDir/good.jpg/THUMB_XL.jpg", ".thumbnails/good.jpg",
    "$RECYCLE.BIN/x.png", "a/.Trashes/501/x.png",
)  # fmt: skip
UNREAD = ("a layer.psd", "a/raw.CR2", "b.svg")


def test_what_systems_leave_among_photographs_is_left_out_and_counted(tmp_path: Path) -> None:
    touch(tmp_path, "good.jpg", "a/good.jpg", "notes.txt", *LITTER, *UNREAD)
    os.mkfifo(tmp_path / "pipe.jpg")
    left_out = Counter[str]()
    found = [b["image_id"].to_pylist() for b in list_images(str(tmp_path), left_out=left_out)]
    assert found == [["good.jpg", "a/good.jpg"]]
    assert left_out == {
        "._*": 1, "in __MACOSX": 1, "in @eaDir": 1, "in .thumbnails": 1, "in $RECYCLE.BIN": 1,
        "in .Trashes": 1, ".psd (not read here)": 1, ".cr2 (not read here)": 1,
        ".svg (not read here)": 1, "no regular file": 1, ".txt (no image)": 1,
    }  # fmt: skip


def test_what_is_left_out_can_be_included_by_its_name(tmp_path: Path) -> None:
    touch(tmp_path, "good.jpg", *LITTER, *UNREAD)
    wanted = ("._*", "@eaDir", "*.psd")
    batches = list_images(str(tmp_path), include=wanted)
    assert {i for b in batches for i in b["image_id"].to_pylist()} == {
        "good.jpg", "._good.jpg", "__MACOSX/._good.jpg", "a/@eaDir/good.jpg/THUMB_XL.jpg",
        "a layer.psd",
    }  # fmt: skip


def test_what_is_excluded_is_counted_by_its_glob_whatever_is_included(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "2.png", "a/raw/1.jpg", "a/raw/2.jpg", "a/b/3.jpg", "a/b/3.psd", "r~")
    left_out = Counter[str]()
    (batch,) = list_images(
        str(tmp_path), (), ["*.psd", "r*"], left_out, ["raw", "a/b/*.jpg", "?.png"]
    )
    assert batch["image_id"].to_pylist() == ["1.jpg", "r~", "a/b/3.psd"]
    assert left_out == {
        "by --exclude raw": 2, "by --exclude a/b/*.jpg": 1, "by --exclude ?.png": 1,
    }  # fmt: skip


def test_the_listed_folder_itself_may_have_any_name(tmp_path: Path) -> None:
    touch(tmp_path, "__MACOSX/.thumbnails/a.jpg")
    assert ids(tmp_path / "__MACOSX/.thumbnails") == ["a.jpg"]


def test_a_folder_of_what_is_not_read_says_so(tmp_path: Path) -> None:
    touch(tmp_path, *UNREAD)
    with pytest.raises(InputError, match=r"no images in .* \(left out: 1 \.cr2 \(not read here\)"):
        list(list_images(str(tmp_path), left_out=Counter()))
