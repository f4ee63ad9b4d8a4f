"""As whom S3 is asked, and where: what the environment says holds for s3fs and for obstore."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec.config
import pytest
from s3fs import S3FileSystem

from gazecore.images import s3
from gazecore.images.fetch import fetch
from gazecore.images.formats import Limits
from gazecore.images.listing import list_images
from gazecore.storage import Location
from tests.web import Answer, WebServer, serving

LISTING = """<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
<Name>b</Name><Prefix></Prefix><KeyCount>1</KeyCount><MaxKeys>1000</MaxKeys>
<IsTruncated>false</IsTruncated><Contents><Key>photos/a.jpg</Key>
<LastModified>2026-11-30T10:00:00.000Z</LastModified><ETag>"1"</ETag><Size>6</Size>
<StorageClass>STANDARD</StorageClass></Contents></ListBucketResult>"""
HEADERS = {"ETag": '"1"', "Last-Modified": "Mon, 30 Nov 2026 10:00:00 GMT"}


def answer(path: str) -> Answer:
    """A bucket with one object."""
    if path.startswith(("/b/photos/a.jpg", "/b/run/")):
        return 200, dict(HEADERS), b"pixels"
    if path.startswith("/b?"):
        return 200, {"Content-Type": "application/xml"}, LISTING.encode()
    return 404, {}, b""


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[WebServer]:
    """What speaks S3, named by the environment, and no keys."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    with serving() as server:
        server.answer = answer
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        yield server


@pytest.fixture
def fsspec_reads(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets variables that fsspec reads once, when it is imported."""

    def read(**variables: str) -> None:
        found: dict[str, dict[str, Any]] = {}
        fsspec.config.set_conf_env(found, variables)
        monkeypatch.setattr(
            "fsspec.spec.apply_config", lambda cls, kw: fsspec.config.apply_config(cls, kw, found)
        )

    return read


def all_that_is_asked() -> None:
    (batch,) = list_images("s3://b/photos")
    assert batch["uri"].to_pylist() == ["s3://b/photos/a.jpg"]
    assert fetch("s3://b/photos/a.jpg", None, Limits()) == b"pixels"
    assert fetch("s3://b/photos/a.jpg", 6, Limits()) == b"pixels"
    assert Location("s3://b/run/run.json").exists()


def test_a_public_bucket_needs_no_keys(
    bucket: WebServer, fsspec_reads: Callable[..., None]
) -> None:
    fsspec_reads(FSSPEC_S3_ANON="true")
    all_that_is_asked()
    assert len(bucket.requests) >= 4
    assert not any("authorization" in headers for _, _, headers in bucket.requests)


@pytest.mark.parametrize("by", ["s3fs", "obstore"])
def test_who_asks_pays(
    bucket: WebServer,
    fsspec_reads: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    by: str,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "planted-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret")
    fsspec_reads(FSSPEC_S3_REQUESTER_PAYS="true")
    if by == "s3fs":
        monkeypatch.setattr(s3, "_is_plain", lambda fs: False)
    all_that_is_asked()
    assert len(bucket.requests) >= 4
    payers = {(m, headers.get("x-amz-request-payer")) for m, _, headers in bucket.requests}
    assert payers == {("GET", "requester"), ("HEAD", "requester")}


def test_a_profile_says_who_asks_and_where(
    bucket: WebServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id=other\naws_secret_access_key=s\n"
        "[museum]\naws_access_key_id=planted-id\naws_secret_access_key=s\n"
    )
    (tmp_path / "config").write_text(
        f"[profile museum]\nregion=eu-north-1\nendpoint_url={bucket.url}\n"
    )
    monkeypatch.setenv("AWS_PROFILE", "museum")
    all_that_is_asked()
    assert len(bucket.requests) >= 4
    for _, _, headers in bucket.requests:
        assert "Credential=planted-id/" in headers["authorization"]
        assert "/eu-north-1/s3/" in headers["authorization"]


def test_options_of_s3fs_as_one_variable(
    bucket: WebServer, monkeypatch: pytest.MonkeyPatch, fsspec_reads: Callable[..., None]
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    fsspec_reads(FSSPEC_S3=json.dumps({"anon": True, "endpoint_url": bucket.url}))
    all_that_is_asked()
    assert Location("s3://b/run").fs.anon is True
    assert isinstance(Location("s3://b/run").fs, S3FileSystem)
