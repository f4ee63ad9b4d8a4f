"""What S3 refuses for whatever is asked ends a command at once, and says what to do."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gazecore.errors import Archived, KeysRefused
from gazecore.images.fetch import fetch
from gazecore.images.formats import Limits
from gazecore.images.listing import list_images
from gazecore.storage import Location
from tests.conftest import make_photo
from tests.web import WebServer, serving

BODY = "<?xml version='1.0'?><Error><Code>{}</Code><Message>said {}</Message>{}</Error>"
REGION = "<Region>eu-west-1</Region>"
ENDPOINT = "<Endpoint>b.s3.eu-west-1.example</Endpoint>"


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    """What speaks S3, and refuses."""
    with serving() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "planted-id")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret")
        yield server


def listed() -> None:
    list(list_images("s3://b/photos"))


def list_read() -> None:
    list(list_images("s3://b/list.csv"))


def fetched() -> None:
    fetch("s3://b/a.jpg", None, Limits())


def run_found() -> None:
    Location("s3://b/run/run.json").exists()


ASKS = pytest.mark.parametrize("ask", [listed, list_read, fetched, run_found])


@ASKS
@pytest.mark.parametrize(
    ("status", "code", "more", "headers", "advice"),
    [
        (400, "AuthorizationHeaderMalformed", REGION, {}, "set AWS_DEFAULT_REGION=eu-west-1"),
        (400, "AuthorizationHeaderMalformed", "", {"x-amz-bucket-region": "eu-west-1"},
         "set AWS_DEFAULT_REGION=eu-west-1"),
        (301, "PermanentRedirect", ENDPOINT, {"x-amz-bucket-region": "eu-west-1"},
         "set AWS_DEFAULT_REGION=eu-west-1"),
        (301, "PermanentRedirect", ENDPOINT, {}, "AWS_DEFAULT_REGION or AWS_ENDPOINT_URL"),
        (403, "InvalidAccessKeyId", "", {}, "refuses the keys"),
        (403, "SignatureDoesNotMatch", "", {}, "refuses the keys"),
    ],
    ids=["malformed", "malformed-header", "redirect-header", "redirect", "unknown", "unsigned"],
)  # fmt: skip
def test_a_wrong_region_and_unknown_keys_are_said_at_once(
    storage: WebServer, ask: Any, status: int, code: str, more: str, headers: Any, advice: str
) -> None:
    body = BODY.format(code, code, more).encode()
    storage.answer = lambda path: (status, dict(headers), body)
    started = time.monotonic()
    with pytest.raises(KeysRefused, match=advice) as caught:
        ask()
    assert time.monotonic() - started < 20
    assert "s3://b" in str(caught.value)
    assert caught.value.exit_code == 2
    assert "planted" not in str(caught.value)


@ASKS
def test_no_keys_are_said_at_once(
    storage: WebServer, ask: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    started = time.monotonic()
    with pytest.raises(KeysRefused, match=r"no keys for s3://b.*FSSPEC_S3_ANON"):
        ask()
    assert time.monotonic() - started < 20
    assert storage.requests == []


def test_an_archived_object_is_final(s3_client: Any, tmp_path: Path) -> None:
    s3_client.create_bucket(Bucket="frozen")
    make_photo(1).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    for name in ("GLACIER", "DEEP_ARCHIVE", "STANDARD"):
        s3_client.put_object(Bucket="frozen", Key=f"{name}.jpg", Body=data, StorageClass=name)
    assert fetch("s3://frozen/STANDARD.jpg", None, Limits()) == data
    started = time.monotonic()
    for name in ("GLACIER", "DEEP_ARCHIVE"):
        with pytest.raises(Archived, match="restore") as caught:
            fetch(f"s3://frozen/{name}.jpg", len(data), Limits())
        assert caught.value.code == "archived"
    assert time.monotonic() - started < 10
