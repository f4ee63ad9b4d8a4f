"""Images in tar, zip and Parquet are read by few requests, and with a file's promises."""

import contextlib
import errno
import gzip
import io
import random
import re
import struct
import tarfile
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import stamina

from gazecore.errors import (
    ImageError,
    InputError,
    NotFound,
    RunFailed,
    StorageError,
    StorageUnavailable,
    TooLarge,
)
from gazecore.images.containers import place_in, ranges
from gazecore.images.formats import Limits
from gazecore.images.listing import list_images
from gazecore.images.lists import Columns
from gazecore.images.read import Reader, read
from tests.containers import (
    KINDS,
    TABLES,
    Counted,
    jpegs,
    write_arrow,
    write_container,
    write_folder,
    write_parquet,
    write_tar,
    write_zip,
)

ARCHIVES = ("tar", "tar.gz", "zip")
LINKS = "links, devices and sparse files in archives"


@pytest.fixture(autouse=True)
def no_waiting() -> Iterator[None]:
    """Retries as often as ever, but at once."""
    stamina.set_testing(True, attempts=10, cap=True)
    yield
    stamina.set_testing(False)


@pytest.fixture
def counted() -> Iterator[type[Counted]]:
    fsspec.register_implementation("counted", Counted, clobber=True)
    yield Counted
    Counted().clear()


def listed(source: str | Path, left_out: Counter[str] | None = None) -> list[dict[str, Any]]:
    batches = list_images(str(source), left_out=left_out)
    return [row for batch in batches for row in batch.to_pylist()]


def outcomes(rows: list[dict[str, Any]], limits: Limits = Limits()) -> list[bytes | str]:
    """What reading each row gives: its bytes or its error's code."""
    reader = Reader(rows, limits)

    def one(index: int) -> bytes | str:
        try:
            return reader.read(index)
        except ImageError as error:
            return error.code

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(one, range(len(rows))))
    reader.close()
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_container_is_a_folder_of_its_images(tmp_path: Path, kind: str) -> None:
    images = jpegs(40)
    write_container(tmp_path / f"x.{kind}", images)
    rows = listed(tmp_path / f"x.{kind}")
    names = [str(i) for i in range(40)] if kind in TABLES else list(images)
    assert [row["image_id"] for row in rows] == names
    assert [row["uri"] for row in rows] == [f"{tmp_path}/x.{kind}#{name}" for name in names]
    assert rows == listed(tmp_path / f"x.{kind}")
    if kind not in TABLES:
        assert [row["size"] for row in rows] == [len(data) for data in images.values()]
    assert outcomes(rows) == list(images.values())
    # As a list names them, from which nobody knows where they lie.
    bare = [{"uri": row["uri"], "size": None, "version": None} for row in rows]
    assert outcomes(bare) == list(images.values())
    # As those that failed are tried again: without their sizes.
    assert outcomes([{**row, "size": None} for row in rows]) == list(images.values())
    for index in (0, 17, 39):
        assert read(rows[index]["uri"]) == images[f"a/{index:04d}.jpg"]


def test_a_folder_and_a_glob_hold_containers_beside_files(tmp_path: Path) -> None:
    images = jpegs(5)
    for kind in KINDS:
        write_container(tmp_path / f"{kind}.{kind}", images)
    write_folder(tmp_path / "loose", images)
    pq.write_table(pa.table({"uri": ["b.jpg"]}), tmp_path / "list.parquet")
    left_out = Counter[str]()
    rows = listed(tmp_path, left_out)
    assert {row["image_id"].rpartition("a/")[0] for row in rows if row["size"]} == {
        "loose/", "tar.tar#", "tar.gz.tar.gz#", "zip.zip#",
    }  # fmt: skip
    assert len(rows) == 30
    assert left_out == {"tables without a column of images": 1}
    assert Counter(outcomes(rows)) == dict.fromkeys(images.values(), 6)
    assert [r["image_id"] for r in listed(f"{tmp_path}/*.tar")] == [f"tar.tar#{n}" for n in images]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_names_of_all_kinds_of_tar(tmp_path: Path, form: int) -> None:
    names = ["a.jpg", "x" * 90 + "/" + "b" * 95 + ".jpg", "with space.jpg", "a#b.jpg", "a?b.jpg"]
    if form != tarfile.USTAR_FORMAT:
        names += ["ü" * 120 + ".jpg", "d/" * 100 + "日本.jpg"]
    images = dict(zip(names, jpegs(len(names)).values(), strict=True))
    write_tar(tmp_path / "x.tar", images, format=form)
    rows = listed(tmp_path / "x.tar")
    assert [row["image_id"] for row in rows] == names
    assert outcomes(rows) == list(images.values())
    assert [read(row["uri"]) for row in rows] == list(images.values())


def test_of_a_sample_of_webdataset_the_image_is_taken(tmp_path: Path) -> None:
    image = jpegs(1)["a/0000.jpg"]
    files = {
        "./a/7.jpg": image, "./a/7.seg.png": b"mask", "./a/7.json": b"{}",
        "./a/8.json": b"{}", "./a/8.png": image, "./a/9.cls": b"1", "./a/9.left.jpg": image,
        # No samples: photographs with dots in their names.
        "2020.01.01.jpg": image, "2020.01.02.jpg": image, "cat.jpg": image, "cat.edited.jpg": image,
    }  # fmt: skip
    write_tar(tmp_path / "x.tar", files)
    left_out = Counter[str]()
    assert [row["image_id"] for row in listed(tmp_path / "x.tar", left_out)] == [
        "a/7.jpg", "a/8.png", "a/9.left.jpg", "2020.01.01.jpg", "2020.01.02.jpg", "cat.jpg",
        "cat.edited.jpg",
    ]  # fmt: skip
    assert left_out == {
        "beside the image of their sample": 1, ".json (no image)": 2, ".cls (no image)": 1,
    }  # fmt: skip
    wanted = [
        b["image_id"].to_pylist() for b in list_images(f"{tmp_path}/x.tar", (), ["*.seg.png"])
    ]
    assert "a/7.seg.png" in wanted[0]


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_what_is_no_file_in_a_tar_or_leads_out_of_it_is_left_out_and_counted(
    tmp_path: Path, kind: str
) -> None:
    image = jpegs(1)["a/0000.jpg"]
    with tarfile.open(tmp_path / f"x.{kind}", "w:gz" if kind == "tar.gz" else "w") as archive:
        for name in ("good.jpg", "/etc/abs.jpg", "../up.jpg", "a/../../up.jpg", "._good.jpg"):
            info = tarfile.TarInfo(name)
            info.size = len(image)
            archive.addfile(info, io.BytesIO(image))
        for name, what in (("s.jpg", tarfile.SYMTYPE), ("h.jpg", tarfile.LNKTYPE),
                           ("c.jpg", tarfile.CHRTYPE), ("f.jpg", tarfile.FIFOTYPE)):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.linkname = what, "/etc/passwd"
            archive.addfile(info)
        folder = tarfile.TarInfo("folder.jpg")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    left_out = Counter[str]()
    assert [row["image_id"] for row in listed(tmp_path / f"x.{kind}", left_out)] == ["good.jpg"]
    assert left_out == {LINKS: 4, "names that lead out of their archives": 3, "._*": 1}
    for name in ("s.jpg", "../up.jpg", "/etc/abs.jpg", "nothing.jpg", ""):
        with pytest.raises(NotFound):
            read(f"{tmp_path}/x.{kind}#{name}")


def test_links_in_a_zip_are_left_out(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("good.jpg", b"x")
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("../up.jpg", b"x")
    left_out = Counter[str]()
    assert [row["image_id"] for row in listed(tmp_path / "x.zip", left_out)] == ["good.jpg"]
    assert left_out == {LINKS: 1, "names that lead out of their archives": 1}


@pytest.mark.parametrize("kind", ARCHIVES)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_of_members_of_one_name_the_last_is_the_image(tmp_path: Path, kind: str) -> None:
    first, last, other = jpegs(3).values()
    path = tmp_path / f"x.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for data in (first, other, last):
                archive.writestr("o.jpg" if data is other else "a.jpg", data)
    else:
        with tarfile.open(path, "w:gz" if kind == "tar.gz" else "w") as tar:
            for name, data in (("a.jpg", first), ("o.jpg", other), ("./a.jpg", last)):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    left_out = Counter[str]()
    rows = listed(path, left_out)
    assert {row["image_id"]: row["size"] for row in rows} == {
        "o.jpg": len(other),
        "a.jpg": len(last),
    }
    assert outcomes(rows) == [other, last]
    assert left_out == {"replaced by a later member of the same name": 1}


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_a_tar_that_is_cut_anywhere_loses_what_is_cut_and_says_so(
    tmp_path: Path, kind: str
) -> None:
    images = jpegs(6)
    write_tar(tmp_path / f"whole.{kind}", images)
    whole = (tmp_path / f"whole.{kind}").read_bytes()
    rows = listed(tmp_path / f"whole.{kind}")
    places = [place for row in rows if (place := place_in(row["version"]))]
    write_folder(tmp_path / "in", {"good.jpg": b"x"})
    for cut in [*range(1, len(whole), 997), *(place.end + 512 for place in places)]:
        (tmp_path / "in" / f"x.{kind}").write_bytes(whole[:cut])
        rows = listed(tmp_path / "in")
        found = dict(zip([row["image_id"] for row in rows], outcomes(rows), strict=True))
        assert found.pop("good.jpg") == b"x"
        complete = [n for n, data in found.items() if isinstance(data, bytes)]
        assert all(found[name] == images[name.partition("#")[2]] for name in complete)
        assert complete == [f"x.{kind}#{name}" for name in list(images)[: len(complete)]]
        # A tar may end without its blocks of zeros, but not within a file or a header.
        ends = {0, *(place.end + -place.end % 512 for place in places)}
        is_fine = len(complete) == len(images) or (kind == "tar" and cut in ends)
        assert is_fine or "storage_error" in found.values()
        assert set(found.values()) - {*images.values()} <= {"storage_error"}


def test_damage_in_the_middle_of_a_tar_is_a_failed_row_and_no_silent_end(tmp_path: Path) -> None:
    images = jpegs(6)
    write_tar(tmp_path / "x.tar", images)
    data = bytearray((tmp_path / "x.tar").read_bytes())
    place = listed(tmp_path / "x.tar")[3]["version"].rpartition("@")[2]
    at = int(place.partition("+")[0])
    data[at : at + 512] = b"\xff" * 512
    (tmp_path / "x.tar").write_bytes(data)
    rows = listed(tmp_path / "x.tar")
    assert [row["image_id"] for row in rows] == [*list(images)[:3], ""]
    assert outcomes(rows) == [*list(images.values())[:3], "storage_error"]
    with pytest.raises(StorageError, match="the tar is broken"):
        read(rows[-1]["uri"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("data", [b"", b"no container", b"PK\3\4" + bytes(600), b"\x1f\x8b" * 300])
def test_what_is_no_container_is_a_failed_row_among_others_and_a_mistake_alone(
    tmp_path: Path, kind: str, data: bytes
) -> None:
    write_folder(tmp_path, {"good.jpg": b"x", f"x.{kind}": data})
    rows = listed(tmp_path)
    assert dict(zip([r["image_id"] for r in rows], outcomes(rows), strict=True)) == {
        "good.jpg": b"x", f"x.{kind}#": "storage_error",
    }  # fmt: skip
    with pytest.raises(InputError, match=f"x.{kind}"):
        listed(tmp_path / f"x.{kind}")


def test_a_damaged_row_group_does_not_cost_the_others(tmp_path: Path) -> None:
    images = jpegs(21)
    write_parquet(tmp_path / "x.parquet", images, rows=7)
    chunk = pq.read_metadata(tmp_path / "x.parquet").row_group(1).column(1)
    data = bytearray((tmp_path / "x.parquet").read_bytes())
    at = chunk.dictionary_page_offset or chunk.data_page_offset
    data[at : at + 400] = b"\xff" * 400
    (tmp_path / "x.parquet").write_bytes(data)
    values = list(images.values())
    assert outcomes(listed(tmp_path / "x.parquet")) == [
        *values[:7], *["storage_error"] * 7, *values[14:]
    ]  # fmt: skip


@pytest.mark.parametrize("form", ["stream", "file"])
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_forms_of_arrow(tmp_path: Path, form: str, compression: str | None) -> None:
    images, path = jpegs(23), tmp_path / "x.arrow"
    table = pa.table({"n": list(range(23)), "photo": pa.array(images.values(), pa.large_binary())})
    options = pa.ipc.IpcWriteOptions(compression=compression)
    new = pa.ipc.new_stream if form == "stream" else pa.ipc.new_file
    with new(path, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=5)
    rows = [r for b in list_images(str(path), columns=Columns(ids="n")) for r in b.to_pylist()]
    assert [row["image_id"] for row in rows] == [str(i) for i in range(23)]
    assert outcomes(rows) == list(images.values())


def test_arrow_that_is_cut_or_damaged_loses_what_is_behind(tmp_path: Path) -> None:
    images = jpegs(30)
    write_arrow(tmp_path / "whole.arrow", images)
    whole = (tmp_path / "whole.arrow").read_bytes()
    write_folder(tmp_path / "in", {"good.jpg": b"x"})
    path = tmp_path / "in" / "x.arrow"
    lost = set()
    for cut in range(0, len(whole) - 8, 1171):
        path.write_bytes(whole[:cut])
        rows = listed(tmp_path / "in")
        found = outcomes(rows)
        assert found[0] == b"x"
        good = [value for value in found[1:] if isinstance(value, bytes)]
        assert good == list(images.values())[: len(good)]
        assert set(found[1 + len(good) :]) <= {"storage_error"}
        lost.add(len(good))
    assert lost == {0, 7, 14, 21, 28}
    damaged = bytearray(whole)
    rng = random.Random(4)
    for _ in range(30):
        damaged[rng.randrange(len(whole))] ^= rng.randrange(1, 256)
        path.write_bytes(damaged)
        assert outcomes(listed(tmp_path / "in"))[0] == b"x"


def test_rows_of_parquet_without_an_image_fail_alone(tmp_path: Path) -> None:
    good = jpegs(1)["a/0000.jpg"]
    for values in (
        [good, None, b"", good],
        [{"bytes": b, "path": "p"} for b in (good, None, b"", good)],
    ):
        kind = None if isinstance(values[0], dict) else pa.binary()
        pq.write_table(pa.table({"image": pa.array(values, kind)}), tmp_path / "x.parquet")
        assert outcomes(listed(tmp_path / "x.parquet")) == [good, "not_found", b"", good]
    for name in ("9", "x", "", "note/1", "-1", "9" * 50):
        with pytest.raises(ImageError):
            read(f"{tmp_path}/x.parquet#{name}")


def test_a_column_of_images_is_found_by_its_kind_and_name(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"mask": [b"m"], "image": [b"i"], "n": [1]}), path)
    assert outcomes(listed(path)) == [b"i"]
    assert read(f"{path}#mask/0") == b"m"
    pq.write_table(pa.table({"odd": pa.array([b"o"], pa.large_binary()), "n": [1]}), path)
    assert outcomes(listed(path)) == [b"o"]
    pq.write_table(pa.table({"one": [b"1"], "two": [b"2"]}), path)
    with pytest.raises(InputError, match=r"x\.parquet has several columns of bytes, one, two"):
        listed(path)
    pq.write_table(pa.table({"uri": ["a.jpg"], "embedding": [b"2"]}), path)
    assert [row["uri"] for row in listed(path)] == [f"{tmp_path}/a.jpg"]


def test_the_columns_of_images_and_ids_can_be_named(tmp_path: Path) -> None:
    images, path = jpegs(12), tmp_path / "x.parquet"
    structs = [{"bytes": data, "path": name} for name, data in images.items()]
    pq.write_table(pa.table({"image": [b"no"] * 12, "photo": structs, "n": list(range(12))}), path)
    for name, ids in (("photo.path", list(images)), ("n", [str(i) for i in range(12)])):
        columns = Columns("photo", name)
        rows = [r for b in list_images(str(path), columns=columns) for r in b.to_pylist()]
        assert [row["image_id"] for row in rows] == ids
        assert rows[3]["uri"] == f"{path}#photo/3"
        assert outcomes(rows) == list(images.values())
        assert columns.took == f"images by the bytes in column `photo`, ids by `{name}`"
    with pytest.raises(InputError, match="no column `key`; its columns are image, photo, n"):
        list(list_images(str(path), columns=Columns("photo", "key")))


def test_what_is_excluded_is_left_out_of_archives_too(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", dict.fromkeys(("a/1.jpg", "b/1.jpg", "b/2.png"), b"x"))
    left_out = Counter[str]()
    (batch,) = list_images(str(tmp_path), exclude=["b/*.jpg", "*.png"], left_out=left_out)
    assert batch["image_id"].to_pylist() == ["x.tar#a/1.jpg"]
    assert left_out == {"by --exclude b/*.jpg": 1, "by --exclude *.png": 1}


@pytest.mark.parametrize("kind", KINDS)
def test_a_member_over_the_cap_is_too_large_and_costs_no_other(
    tmp_path: Path, kind: str, counted: type[Counted]
) -> None:
    images = {
        **jpegs(3, "a"),
        "b/large.jpg": random.Random(1).randbytes(2 * 10**6),
        **jpegs(3, "c"),
    }
    write_container(tmp_path / f"x.{kind}", images)
    counted.objects[f"x.{kind}"] = (tmp_path / f"x.{kind}").read_bytes()
    rows = listed(f"counted://x.{kind}")
    counted.asked.clear()
    limits = Limits(max_bytes=10**6)
    values = [data if len(data) < 10**6 else "too_large" for data in images.values()]
    assert outcomes(rows, limits) == values
    if kind in ("tar", "zip"):
        assert sum(end - start for _, start, end in counted.asked) < 10**5
    bare = [{"uri": row["uri"], "size": None, "version": None} for row in rows]
    assert outcomes(bare, limits) == values


@pytest.mark.parametrize("kind", KINDS)
def test_many_members_take_few_requests(tmp_path: Path, kind: str, counted: type[Counted]) -> None:
    rng = random.Random(2)
    images = {f"{i:04d}.jpg": rng.randbytes(20_000) for i in range(1000)}
    path = tmp_path / f"x.{kind}"
    if kind in TABLES:
        (write_parquet if kind == "parquet" else write_arrow)(path, images, rows=100)
    else:
        write_container(path, images)
    counted.objects[path.name] = path.read_bytes()
    rows = listed(f"counted://{path.name}")
    listing = len(counted.asked)
    assert listing <= 16
    counted.asked.clear()
    found = [data for start in range(0, 1000, 250) for data in outcomes(rows[start : start + 250])]
    assert found == list(images.values())
    assert len(counted.asked) <= (40 if kind in TABLES else 12)
    read_bytes = sum(end - start for _, start, end in counted.asked)
    assert read_bytes < 1.3 * path.stat().st_size


@pytest.mark.parametrize("kind", ["tar.gz", "parquet"])
def test_a_shard_goes_on_where_the_one_before_it_ended(
    tmp_path: Path, kind: str, counted: type[Counted]
) -> None:
    """So that what is read in order is not read from its begin for each shard."""
    images = {f"{i:03d}.jpg": random.Random(i).randbytes(50_000) for i in range(200)}
    path = tmp_path / f"x.{kind}"
    if kind == "parquet":
        write_parquet(path, images, rows=200)
    else:
        write_tar(path, images)
    counted.objects[path.name] = path.read_bytes()
    rows = listed(f"counted://{path.name}")
    counted.asked.clear()
    found = [data for start in range(0, 200, 10) for data in outcomes(rows[start : start + 10])]
    assert found == list(images.values())
    assert sum(end - start for _, start, end in counted.asked) < 1.2 * path.stat().st_size


@pytest.mark.parametrize("kind", KINDS)
def test_what_passes_is_waited_out_and_a_body_that_is_cut_is_read_again(
    tmp_path: Path, kind: str, counted: type[Counted]
) -> None:
    images = jpegs(30)
    write_container(tmp_path / f"x.{kind}", images)
    counted.objects[f"x.{kind}"] = (tmp_path / f"x.{kind}").read_bytes()
    for trouble in range(2):
        counted.errors = [OSError(errno.EIO, "trouble")] * 3
        counted.cuts = 2 * trouble
        rows = listed(f"counted://x.{kind}")
        counted.errors = [OSError(errno.EIO, "trouble")] * 3
        counted.cuts = 2 * trouble
        assert outcomes(rows) == list(images.values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_storage_that_does_not_answer_says_nothing_of_the_images(
    tmp_path: Path, kind: str, counted: type[Counted]
) -> None:
    write_container(tmp_path / f"x.{kind}", jpegs(30))
    counted.objects[f"x.{kind}"] = (tmp_path / f"x.{kind}").read_bytes()
    rows = listed(f"counted://x.{kind}")
    counted.errors = [OSError(errno.EIO, "trouble")] * 10**4
    reader = Reader(rows, Limits())
    for index in (0, 1, 29):
        with pytest.raises(StorageUnavailable):
            reader.read(index)
    with pytest.raises(RunFailed, match="tries again"):
        listed(f"counted://x.{kind}")
    counted.errors = []
    assert len([data for data in outcomes(rows) if isinstance(data, bytes)]) == 30


@pytest.mark.parametrize("kind", ARCHIVES)
def test_an_archive_that_changed_since_it_was_planned_is_read_as_it_is_now(
    tmp_path: Path, kind: str
) -> None:
    images, path = jpegs(12), tmp_path / f"x.{kind}"
    write_container(path, images)
    rows = listed(path)
    now = dict(reversed(images.items()))
    del now["a/0003.jpg"]
    now["a/0005.jpg"] = b"another, of another size"
    write_container(path, now)
    assert outcomes(rows) == [now.get(name, "not_found") for name in images]
    path.unlink()
    assert set(outcomes(rows)) == {"not_found"}


@pytest.mark.parametrize("kind", ["tar.gz", *TABLES])
def test_what_stayed_open_is_opened_anew_where_it_was_replaced(tmp_path: Path, kind: str) -> None:
    images, path = jpegs(30), tmp_path / f"x.{kind}"
    write_container(path, images)
    rows = listed(path)
    assert outcomes(rows[:9]) == list(images.values())[:9]
    other = jpegs(30, "b").values()
    now = dict(zip(images, reversed(other), strict=True))
    write_container(path, now)
    assert outcomes(listed(path)[9:]) == list(now.values())[9:]


def test_a_file_may_be_named_like_a_member(tmp_path: Path) -> None:
    names = ["a.tar#b.jpg", "x.tar#y/b.jpg", "p.parquet#1.jpg", "z.zip#"]
    write_folder(tmp_path, {name: name.encode() for name in names})
    rows = listed(tmp_path)
    assert sorted(row["image_id"] for row in rows) == sorted(names[:3])
    assert outcomes(rows) == [row["image_id"].encode() for row in rows]


def test_what_a_zip_says_of_a_member_is_not_believed(tmp_path: Path) -> None:
    """A bomb says that it is small; the member after it is read all the same."""
    data, path = jpegs(1)["a/0000.jpg"], tmp_path / "x.zip"
    write_zip(path, {"bomb.jpg": bytes(50 * 10**6), "good.jpg": data})
    assert outcomes(listed(path), Limits(max_bytes=10**6)) == ["too_large", data]
    raw = path.read_bytes()
    path.write_bytes(raw.replace(struct.pack("<I", 50 * 10**6), struct.pack("<I", 1000)))
    rows = listed(path)
    assert rows[0]["size"] == 1000
    assert outcomes(rows) == ["decode_error", data]
    write_zip(path, {"a.jpg": data, "b.jpg": data}, zipfile.ZIP_STORED)
    flipped = bytearray(path.read_bytes())
    flipped[flipped.index(data) + 100] ^= 0xFF
    path.write_bytes(flipped)
    assert outcomes(listed(path)) == ["decode_error", data]


def test_stored_encrypted_and_odd_members_of_a_zip(tmp_path: Path) -> None:
    data = jpegs(1)["a/0000.jpg"]
    write_zip(tmp_path / "stored.zip", {"a.jpg": data}, zipfile.ZIP_STORED)
    assert outcomes(listed(tmp_path / "stored.zip")) == [data]
    write_zip(tmp_path / "odd.zip", {"a.jpg": data}, zipfile.ZIP_LZMA)
    assert outcomes(listed(tmp_path / "odd.zip")) == ["storage_error"]
    raw = bytearray((tmp_path / "stored.zip").read_bytes())
    raw[6] |= 1
    (tmp_path / "locked.zip").write_bytes(raw)
    with pytest.raises(StorageError, match="encrypted"):
        read(f"{tmp_path}/locked.zip#a.jpg")
    stream = io.BytesIO()
    stream.seekable = lambda: False  # type: ignore[method-assign]
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg", data)  # sizes and checksum come after the bytes
        archive.writestr("ü.jpg", data)
    (tmp_path / "streamed.zip").write_bytes(b"a program that unpacks itself" + stream.getvalue())
    assert outcomes(listed(tmp_path / "streamed.zip")) == [data, data]


def test_a_compressed_bomb_is_given_up_and_its_members_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "_FREE", 10**6)
    data, path = jpegs(1)["a/0000.jpg"], tmp_path / "x.tar.gz"
    write_tar(path, {"good.jpg": data, "bomb.jpg": bytes(10**8), "late.jpg": data})
    rows = listed(path)
    assert outcomes(rows, Limits(max_bytes=10**6)) == [data, "too_large", "storage_error"]
    with pytest.raises(StorageError, match="unpacks to more than 100 times"):
        read(rows[-1]["uri"])


def test_a_header_of_a_tar_is_not_believed_to_be_large(tmp_path: Path) -> None:
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 2 * 10**9
    with gzip.open(tmp_path / "x.tar.gz", "wb", compresslevel=1) as file:
        file.write(info.tobuf(tarfile.USTAR_FORMAT) + bytes(10**6))
    with pytest.raises(InputError, match="header of 2000000000 bytes"):
        listed(tmp_path / "x.tar.gz")


def test_damage_in_a_compressed_tar_is_seen(tmp_path: Path) -> None:
    images, path = jpegs(200), tmp_path / "x.tar.gz"
    write_tar(path, images)
    data = bytearray(path.read_bytes())
    half = len(data) // 2
    data[half : half + 50] = bytes(50)
    path.write_bytes(data)
    rows = listed(path)
    found = outcomes(rows)
    assert found[-1] == "storage_error"
    good = [value for value in found if isinstance(value, bytes)]
    assert 20 < len(good) < 180
    assert good[:20] == list(images.values())[:20]


def test_a_container_in_a_container_is_counted(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", {"a.zip": b"PK", "b.jpg": b"x"})
    left_out = Counter[str]()
    assert [row["image_id"] for row in listed(tmp_path / "x.tar", left_out)] == ["b.jpg"]
    assert left_out == {"containers in archives": 1}


def test_a_member_too_large_is_an_image_error_by_its_name_alone(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", {"a.jpg": bytes(2000)})
    with pytest.raises(TooLarge, match="max-bytes"):
        read(f"{tmp_path}/x.tar#a.jpg", Limits(max_bytes=1000))


class Site(BaseHTTPRequestHandler):
    """One file, whole or by parts."""

    protocol_version = "HTTP/1.1"
    content: ClassVar[bytes] = b""
    gives_parts: ClassVar[bool] = True

    def do_HEAD(self) -> None:
        self._answer(200, Site.content, False)

    def do_GET(self) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted and Site.gives_parts:
            self._answer(206, Site.content[int(wanted[1]) : int(wanted[2]) + 1], True)
        else:
            self._answer(200, Site.content, True)

    def _answer(self, status: int, body: bytes, has_body: bool) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if has_body:
            with contextlib.suppress(OSError):
                self.wfile.write(body)

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # of clients that hang up
            super().handle()

    def log_message(self, *how: Any) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    Site.content, Site.gives_parts = b"", True
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("kind", KINDS)
def test_a_container_on_a_web_server_is_read_by_parts(tmp_path: Path, kind: str, site: str) -> None:
    images = {f"{i}.jpg": random.Random(i).randbytes(30_000) for i in range(20)}
    write_container(tmp_path / f"x.{kind}", images)
    Site.content = (tmp_path / f"x.{kind}").read_bytes()
    rows = listed(f"{site}/x.{kind}?page=1")
    assert rows[5]["uri"].startswith(f"{site}/x.{kind}?page=1#")
    assert outcomes(rows) == list(images.values())
    Site.gives_parts = False
    if kind in ("tar", "zip"):
        assert set(outcomes(rows[10:])) == {"storage_error"}
    if kind in ("zip", "parquet"):  # of which the end is read first
        with pytest.raises(InputError, match=r"gives no parts of files|support range requests"):
            listed(f"{site}/x.{kind}")
