"""Storages that speak an older S3: without conditional PUTs, or without the newer checksums."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gazecore.errors import InputError, RunMismatch
from gazecore.shards.directory import claim
from gazecore.storage import Location
from tests.web import Answer, serving

BODY = "<?xml version='1.0'?><Error><Code>{}</Code><Message>A header is unknown</Message></Error>"


@dataclass
class Older:
    """A bucket on such a storage.

    Attributes:
        refuses: begins of names of headers that it answers with `answer` to.
        objects: path to content.
    """

    refuses: tuple[str, ...] = ()
    answer: tuple[int, str] = (501, "NotImplemented")
    objects: dict[str, bytes] = field(default_factory=dict)

    def get(self, path: str) -> Answer:
        """One object, or a listing without one."""
        if path.partition("?")[0] == "/b":
            return 200, {}, b"<ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>"
        data = self.objects.get(path)
        sent = {"ETag": '"1"', "Last-Modified": "Mon, 30 Nov 2026 10:00:00 GMT"}
        return (404, {}, b"") if data is None else (200, sent, data)

    def put(self, path: str, headers: dict[str, str], body: bytes) -> Answer:
        """An object, unless it bears what is not known."""
        if any(name.startswith(self.refuses) for name in headers):
            return self.answer[0], {}, BODY.format(self.answer[1]).encode()
        self.objects[path] = body
        return 200, {"ETag": '"1"'}, b""


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch) -> Iterator[Older]:
    storage = Older()
    with serving() as server:
        server.answer, server.put = storage.get, storage.put
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "planted-id")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret")
        yield storage


ANSWERS = pytest.mark.parametrize(
    "answer", [(501, "NotImplemented"), (400, "InvalidArgument"), (400, "InvalidRequest")], ids=str
)


@ANSWERS
def test_a_storage_without_conditions_is_written(older: Older, answer: tuple[int, str]) -> None:
    older.refuses, older.answer = ("if-none-match",), answer
    place = Location("s3://b/run/run.json")
    place.publish(b"one", create=True)
    assert older.objects == {"/b/run/run.json": b"one"}
    with pytest.raises(FileExistsError):
        place.publish(b"two", create=True)
    assert older.objects == {"/b/run/run.json": b"one"}
    place.publish(b"three")
    assert place.read_bytes() == b"three"


def test_a_run_is_begun_there_once(older: Older) -> None:
    older.refuses = ("if-none-match",)
    claim(Location("s3://b/run/run.json"), {"input": "photos"})
    claim(Location("s3://b/run/run.json"), {"input": "photos"})
    with pytest.raises(RunMismatch):
        claim(Location("s3://b/run/run.json"), {"input": "others"})


@ANSWERS
@pytest.mark.parametrize("how", ["create", "replace", "staged"])
def test_a_storage_without_the_newer_checksums_is_named_with_the_remedy(
    older: Older, answer: tuple[int, str], how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    older.refuses, older.answer = ("x-amz-checksum", "x-amz-sdk-checksum", "x-amz-trailer"), answer

    def write() -> None:
        place = Location("s3://b/run/run.json")
        if how == "staged":
            with place.staged() as path:
                Path(path).write_bytes(b"one")
        else:
            place.publish(b"one", create=how == "create")

    with pytest.raises(
        InputError, match=r"s3://b/run/run\.json.*CHECKSUM_CALCULATION=when_required"
    ):
        write()
    assert older.objects == {}
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    type(Location("s3://b").fs).clear_instance_cache()
    write()
    assert older.objects == {"/b/run/run.json": b"one"}
