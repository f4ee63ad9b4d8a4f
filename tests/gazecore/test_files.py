"""A run's files are read many at a time, whole where they are small, from any storage."""

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from gazecore.images import s3
from gazecore.results import files
from gazecore.results.files import Folder, Object, list_files
from gazecore.results.query import query
from gazecore.results.run import Run, begin_run
from gazecore.results.status import run_status
from gazecore.shards.directory import shard_name
from gazecore.shards.planning import update_plan
from gazecore.storage import Location
from tests.chaos.proxy import FaultyProxy
from tests.gazecore.test_results import SETTINGS, commit, listing, names

SHARDS = 250


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    run = begin_run(Location("memory://objects/run"), SETTINGS)
    update_plan(run, listing(*names(2 * SHARDS)))
    commit(run)
    yield run
    fsspec.filesystem("memory").rm("/objects", recursive=True)


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A storage that takes its time: what is asked of it, and how much of that at once."""
    seen: dict[str, Any] = {"paths": [], "now": 0, "most": 0}
    lock, real = threading.Lock(), MemoryFileSystem.cat_file

    def slow(self: Any, path: str, **options: Any) -> bytes:
        with lock:
            seen["paths"].append(path)
            seen["now"] += 1
            seen["most"] = max(seen["most"], seen["now"])
        time.sleep(0.03)
        with lock:
            seen["now"] -= 1
        data: bytes = real(self, path, **options)
        return data

    monkeypatch.setattr(MemoryFileSystem, "cat_file", slow)
    return seen


def test_small_files_are_read_many_at_a_time_and_once(run: Run, requests: dict[str, Any]) -> None:
    started = time.monotonic()
    assert query(run, "SELECT count(*) FROM scores")[0].to_pylist() == [2 * SHARDS]
    assert time.monotonic() - started < SHARDS * 0.03 / 2
    assert requests["most"] >= 16
    asked = [path for path in requests["paths"] if "/scores/" in path]
    assert len(asked) == len(set(asked)) == SHARDS


def test_a_question_that_needs_few_files_reads_few(run: Run, requests: dict[str, Any]) -> None:
    assert query(run, "SELECT image_id FROM scores LIMIT 1").num_rows == 1
    assert len(requests["paths"]) < SHARDS / 2


def test_two_tables_are_read_beside_each_other(run: Run, requests: dict[str, Any]) -> None:
    sql = (
        "SELECT count(*) FROM scores a JOIN densities USING (image_id) JOIN scores USING (image_id)"
    )
    assert query(run, sql)[0].to_pylist() == [2 * SHARDS]


def test_the_status_reads_many_at_a_time(run: Run, requests: dict[str, Any]) -> None:
    assert run_status(run).ok == 2 * SHARDS
    assert requests["most"] >= 16


def test_files_that_are_forgotten_are_read_again(
    run: Run, requests: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_AHEAD", 2)
    listed = list_files(run.scores)
    with ThreadPoolExecutor(4) as pool:
        folder = Folder(listed, pool)
        for file in [*listed, *listed[::-1], *listed[::7]]:
            with folder.open(file.name) as opened:
                assert opened.read() == fsspec.filesystem("memory").cat(file.object.path)


@pytest.mark.parametrize("whole", [0, 2**20])
def test_any_reader_sees_the_same_bytes(
    s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Any, whole: int
) -> None:
    monkeypatch.setattr(files, "WHOLE", whole)
    data = os.urandom(100_000)
    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    bucket = boto3.resource("s3").Bucket(f"any-reader-{whole}")
    bucket.create()
    places = ["memory://objects-any", str(tmp_path), f"s3://{bucket.name}/a b"]
    for place in places:
        (Location(place) / "x.parquet").publish(data)
        (Location(place) / "note.txt").publish(b"no table")
        with ThreadPoolExecutor(2) as pool:
            [file] = list_files(Location(place))
            assert file.size == len(data)
            with Folder([file], pool).open("x.parquet") as opened:
                assert opened.seek(-10, os.SEEK_END) == len(data) - 10
                assert opened.read(100) == data[-10:]
                assert opened.read(1) == b""
                opened.seek(5)
                assert [opened.read(7), opened.read(3)] == [data[5:12], data[12:15]]
                assert opened.tell() == 15
                assert opened.read() == data[15:]
        assert Object(Location(place) / "x.parquet").read_bytes() == data
        with pytest.raises(FileNotFoundError):
            Object(Location(place) / "y.parquet").read_bytes()
    assert list_files(Location(f"s3://{bucket.name}/nothing")) == []
    bucket.objects.all().delete()
    bucket.delete()
    fsspec.filesystem("memory").rm("/objects-any", recursive=True)


def test_trouble_on_s3_passes(s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultyProxy(s3_server["AWS_ENDPOINT_URL"]) as proxy:
        for name, value in {**s3_server, "AWS_ENDPOINT_URL": proxy.url}.items():
            monkeypatch.setenv(name, value)
        bucket = boto3.resource("s3").Bucket("trouble-that-passes")
        bucket.create()
        bucket.put_object(Key="x.parquet", Body=b"0123456789")
        monkeypatch.setattr(s3, "_buckets", {})
        faults = iter(["reset", "slow_down"])
        proxy.force = lambda method, path: next(faults, None) if "x.parquet" in path else None
        one = Object(Location("s3://trouble-that-passes/x.parquet"))
        assert one.read_bytes() == b"0123456789"
        assert next(faults, None) is None
        assert one.read_range(3, 6) == b"345"
        bucket.objects.all().delete()
        bucket.delete()


def test_a_folder_of_thousands_on_s3_is_listed_whole(
    s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As s3fs lists it: with gaps of thousands, other names, folders, numbers of seven digits."""
    monkeypatch.setattr(files, "_PAGE", 10)
    real = s3.Bucket.pages
    asked: list[str] = []

    def small(self: s3.Bucket, prefix: str, after: str) -> Iterator[Any]:
        asked.append(after)
        for page in real(self, prefix, after):
            for start in range(0, len(page), 10):
                yield page[start : start + 10]

    monkeypatch.setattr(s3.Bucket, "pages", small)
    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    bucket = boto3.resource("s3").Bucket("thousands")
    bucket.create()
    folder = Location("s3://thousands/run/scores")
    try:
        written: set[str] = set()
        for more in (
            [],
            range(5),
            range(5, 41),
            [*range(200, 215), 300, 999_999],
            range(1_000_000, 1_000_025),
            ["a.parquet", "shard-0.parquet", "zzz.parquet", "deeper/shard-000001.parquet", "n.txt"],
        ):
            names = [n if isinstance(n, str) else shard_name(n) for n in more]
            for name in names:
                bucket.put_object(Key=f"run/scores/{name}", Body=name.encode())
            written |= {n for n in names if "/" not in n and n.endswith(".parquet")}
            by_s3fs = files._listed(folder)
            found = list_files(folder)
            assert [file.name for file in found] == sorted(written)
            assert {(f.name, f.size, f.version, f.written) for f in found} == {
                (f.name, f.size, f.version, f.written) for f in by_s3fs
            }
        assert len(asked) > 10
        for odd in ("a%20b", "a b", "a#b", "ünï"):
            bucket.put_object(Key=f"{odd}/scores/{shard_name(1)}", Body=odd.encode())
            [file] = list_files(Location(f"s3://thousands/{odd}/scores"))
            assert file.size == len(odd.encode())
    finally:
        bucket.objects.all().delete()
        bucket.delete()
