"""Objects of S3: by obstore where that goes well, and as s3fs reads them in any case."""

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import pytest
from s3fs import S3FileSystem

from gazecore.errors import AccessDenied, NotFound, TooLarge
from gazecore.images import s3
from gazecore.images.fetch import fetch, fetch_part, object_size
from gazecore.images.formats import Limits
from tests.chaos.proxy import FaultyProxy

ODD_KEYS = (
    "plain.jpg", "a b#[1]%.jpg", "a%20b", "a%2Fb", "a+b", "a?b=c&d", "ünï-日本.jpg", "a\\b",
    "~*'()", "a//b", "/a", "./a", "a/../b", "..", "{a,b}", "a\nb", "a:b@c", "https:/x/y", "=",
    "a|b^c`d",
)  # fmt: skip


RUNS_OUT = """
import datetime, json, pathlib
count = pathlib.Path(__file__ + ".asked")
count.write_text(count.read_text() + "x" if count.exists() else "x")
end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=3)
print(json.dumps({
    "Version": 1, "AccessKeyId": f"key-{len(count.read_text())}", "SecretAccessKey": "s",
    "SessionToken": "t", "Expiration": end.isoformat(),
}))
"""


@pytest.fixture
def proxy(s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    with FaultyProxy(s3_server["AWS_ENDPOINT_URL"]) as proxy:
        for name, value in {**s3_server, "AWS_ENDPOINT_URL": proxy.url}.items():
            monkeypatch.setenv(name, value)
        yield proxy


@pytest.fixture
def bucket(proxy: FaultyProxy) -> Iterator[Any]:
    found = boto3.resource("s3").Bucket("photographs")
    found.create()
    yield found
    proxy.force = lambda method, path: None
    for one in found.objects.all():
        one.delete()
    found.delete()


@pytest.fixture
def by_s3fs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that s3fs was asked for."""
    asked: list[str] = []
    cat_file = S3FileSystem.cat_file

    def spy(self: S3FileSystem, path: str, **options: Any) -> Any:
        asked.append(path)
        return cat_file(self, path, **options)

    monkeypatch.setattr(S3FileSystem, "cat_file", spy)
    return asked


def test_every_key_is_that_object_and_no_other(bucket: Any, by_s3fs: list[str]) -> None:
    kept = []
    for key in ODD_KEYS:
        with contextlib.suppress(Exception):  # not every server takes every key
            bucket.put_object(Key=key, Body=f"object {key}".encode())
            if bucket.Object(key).get()["Body"].read() == f"object {key}".encode():
                kept.append(key)
    assert len(kept) > 12
    for key in kept:
        expected = f"object {key}".encode()
        assert fetch(f"s3://photographs/{key}", len(expected), Limits()) == expected, key
    assert "photographs/plain.jpg" not in by_s3fs
    assert "photographs/a b#[1]%.jpg" not in by_s3fs
    assert len(by_s3fs) < len(kept) / 2


def test_what_is_empty_or_too_large_or_gone(
    bucket: Any, by_s3fs: list[str], proxy: FaultyProxy
) -> None:
    bucket.put_object(Key="empty", Body=b"")
    bucket.put_object(Key="exact", Body=b"x" * 1000)
    bucket.put_object(Key="larger", Body=b"x" * 1001)
    limits = Limits(max_bytes=1000)
    for size in (None, 0):
        assert fetch("s3://photographs/empty", size, limits) == b""
    for size in (None, 1000):
        assert fetch("s3://photographs/exact", size, limits) == b"x" * 1000
    with pytest.raises(TooLarge):
        fetch("s3://photographs/larger", None, limits)
    assert by_s3fs == []
    with pytest.raises(NotFound, match="gone"):
        fetch("s3://photographs/gone", None, limits)
    with pytest.raises(NotFound, match="bucket"):
        fetch("s3://no-such-bucket/gone", None, limits)


def test_parts_of_an_object(bucket: Any, by_s3fs: list[str], proxy: FaultyProxy) -> None:
    data = bytes(range(256)) * 40
    bucket.put_object(Key="x.tar", Body=data)
    for start, end in ((0, 10), (10, 20), (0, len(data)), (len(data) - 5, len(data) + 5)):
        assert fetch_part("s3://photographs/x.tar", start, end) == data[start:end]
    assert by_s3fs == []
    assert fetch_part("s3://photographs/x.tar", len(data), len(data) + 5) == b""
    with pytest.raises(NotFound, match="gone"):
        fetch_part("s3://photographs/gone", 5, 10)
    for fault in ("slow_down", "reset", "truncated", "shortened"):
        left = [fault]
        proxy.force = lambda method, path, left=left: left.pop() if left else None  # type: ignore[misc]
        assert fetch_part("s3://photographs/x.tar", 100, 9000) == data[100:9000]
    assert object_size("s3://photographs/x.tar") == len(data)


def test_of_a_server_that_answers_200_for_parts_s3fs_reads_those_and_nothing_else(
    bucket: Any, by_s3fs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put_object(Key="x.tar", Body=b"0123456789")
    asked: list[int] = []

    def whole(self: s3.Bucket, key: str, start: int, end: int) -> bytes:
        asked.append(start)
        raise s3.GenericError("Received non-partial response when range requested")

    monkeypatch.setattr(s3.Bucket, "read_range", whole)
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail(f"it waits for {seconds} s"))
    for start in range(20):
        assert fetch_part("s3://photographs/x.tar", start % 9, 10) == b"0123456789"[start % 9 :]
    assert asked == [0]
    assert len(by_s3fs) == 20
    assert fetch("s3://photographs/x.tar", 10, Limits()) == b"0123456789"
    assert len(by_s3fs) == 20


def test_a_bucket_that_only_s3fs_can_read_is_left_to_it(
    bucket: Any,
    proxy: FaultyProxy,
    by_s3fs: list[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Here: one of which obstore signs for another region than the storage wants."""
    bucket.put_object(Key="a.jpg", Body=b"pixels")
    tried: list[str] = []

    def refused(self: s3.Bucket, key: str, end: int, start: int | None = None) -> bytes:
        tried.append(key)
        raise s3.BaseError("301 Moved Permanently")

    monkeypatch.setattr(s3.Bucket, "read", refused)
    with caplog.at_level(logging.WARNING):
        for _ in range(s3.TRIES + 5):
            assert fetch("s3://photographs/a.jpg", 6, Limits()) == b"pixels"
    assert len(tried) == s3.TRIES
    assert len(by_s3fs) == s3.TRIES + 5
    assert [r.message for r in caplog.records if r.name == s3.__name__] == [
        "bucket photographs is read by s3fs, slower: obstore cannot"
    ]


def test_troubles_that_pass_leave_no_bucket_to_s3fs(
    bucket: Any, proxy: FaultyProxy, by_s3fs: list[str]
) -> None:
    bucket.put_object(Key="a.jpg", Body=b"pixels" * 1000)
    for fault in ("slow_down", "reset", "truncated", "shortened"):
        left = [fault]
        proxy.force = lambda method, path, left=left: left.pop() if left else None  # type: ignore[misc]
        assert fetch("s3://photographs/a.jpg", 6000, Limits()) == b"pixels" * 1000
    proxy.force = lambda method, path: None
    before = len(by_s3fs)
    for _ in range(20):
        fetch("s3://photographs/a.jpg", 6000, Limits())
    assert len(by_s3fs) == before


@pytest.mark.parametrize("threads", [16, 32, 64])
def test_one_trouble_met_by_many_readers_counts_once(
    bucket: Any, threads: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ways: list[str] = []

    def by_obstore(self: s3.Bucket, key: str, end: int, start: int | None = None) -> bytes:
        time.sleep(0.005)
        if key == "late":
            raise s3.GenericError("503 Slow Down")
        ways.append("obstore")
        return b"pixels"

    def by_s3fs() -> bytes:
        time.sleep(0.005)
        ways.append("s3fs")
        return b"pixels"

    monkeypatch.setattr(s3.Bucket, "read", by_obstore)
    fs = S3FileSystem()

    def read(number: int) -> None:
        key = "late" if number == threads else "early"
        with contextlib.suppress(OSError):
            s3.read(fs, f"photographs/{key}", 6, by_s3fs)

    with caplog.at_level(logging.WARNING), ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, range(threads)))
        for _ in range(5):  # in waves, as a shard is read ahead
            list(pool.map(read, range(threads, 3 * threads)))
    assert [r.message for r in caplog.records if r.name == s3.__name__] == []
    ways.clear()
    for _ in range(3):
        read(0)
    assert ways[1:] == ["obstore"] * 2  # the first may end the last trouble


def test_keys_are_asked_for_now_and_then(
    bucket: Any, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put_object(Key="a.jpg", Body=b"pixels")
    asked: list[int] = []
    current = s3.Bucket._current_keys

    def counted(self: s3.Bucket) -> dict[str, Any]:
        asked.append(1)
        return current(self)

    monkeypatch.setattr(s3.Bucket, "_current_keys", counted)
    S3FileSystem.clear_instance_cache()
    for _ in range(6):
        assert fetch("s3://photographs/a.jpg", 6, Limits()) == b"pixels"
        time.sleep(0.15)  # within which obstore does not ask again in any case
    assert len(asked) == 1


def test_the_options_of_s3fs_hold(
    bucket: Any, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch, by_s3fs: list[str]
) -> None:
    """Signed with its keys, by a profile, anonymous, and with the requester's promise to pay."""
    bucket.put_object(Key="a.jpg", Body=b"pixels", ACL="public-read")
    seen: list[dict[str, str]] = []
    proxy.on_headers = lambda headers: seen.append({k.lower(): v for k, v in headers.items()})

    def headers(**options: Any) -> dict[str, str]:
        seen.clear()
        S3FileSystem.clear_instance_cache()
        monkeypatch.setitem(__import__("fsspec").config.conf, "s3", options)
        assert fetch("s3://photographs/a.jpg", 6, Limits()) == b"pixels"
        return seen[-1]

    assert "Credential=planted-key-id/" in headers()["authorization"]
    assert "x-amz-request-payer" not in headers()
    assert headers(requester_pays=True)["x-amz-request-payer"] == "requester"
    assert "authorization" not in headers(anon=True)
    assert "Credential=another/" in headers(key="another", secret="secret")["authorization"]
    assert "x-amz-security-token" in headers(key="another", secret="secret", token="a token")
    assert by_s3fs == []
    # What is not passed on is s3fs's business.
    headers(client_kwargs={"region_name": "eu-central-1"})
    assert len(by_s3fs) == 1


def test_keys_of_a_profile_are_found_and_renewed(
    bucket: Any, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    bucket.put_object(Key="a.jpg", Body=b"pixels")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    names = tmp_path / "credentials"
    names.write_text("[museum]\naws_access_key_id = of-the-museum\naws_secret_access_key = s\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(names))
    monkeypatch.setenv("AWS_PROFILE", "museum")
    seen: list[str] = []
    proxy.on_headers = lambda headers: seen.append(
        "".join(value for key, value in headers.items() if key.lower() == "authorization")
    )
    assert fetch("s3://photographs/a.jpg", 6, Limits()) == b"pixels"
    assert "Credential=of-the-museum/" in seen[-1]
    # A program that gives keys which run out is asked again.
    program = tmp_path / "keys"
    program.write_text(f"#!{sys.executable}\n{RUNS_OUT}")
    program.chmod(0o700)
    config = tmp_path / "config"
    config.write_text(f"[profile museum]\ncredential_process = {program}\n")
    names.write_text("")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setattr(s3, "_KEYS_LAST", s3.timedelta(0))
    S3FileSystem.clear_instance_cache()
    used = set()
    for _ in range(3):
        assert fetch("s3://photographs/a.jpg", 6, Limits()) == b"pixels"
        used.add(seen[-1].split("Credential=")[1].split("/")[0])
    assert len(used) > 1, used


def test_refused_access_is_told_as_s3fs_tells_it(
    bucket: Any, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put_object(Key="a.jpg", Body=b"pixels")
    proxy.force = lambda method, path: "denied"
    with pytest.raises(AccessDenied):
        fetch("s3://photographs/a.jpg", 6, Limits())
