"""What `gazecore score` says of lists of the web and of S3."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gazecore.results.reader
from gazecore import courtesy
from tests.conftest import make_photo
from tests.jobs.conftest import Command
from tests.web import serving


@pytest.fixture(autouse=True)
def _own_headers() -> Iterator[None]:
    """A command that runs in this process tells all of it which headers to send."""
    yield
    courtesy.use(courtesy.WebOptions())


def test_headers_are_needed_again_and_kept_nowhere(
    gazecore_here: Command, tiny_file: str, tmp_path: Path
) -> None:
    make_photo(1).save(tmp_path / "a.jpg")
    photo = (tmp_path / "a.jpg").read_bytes()
    with serving() as site:
        statuses = {"/gone.jpg": 404, "/law.jpg": 451}
        site.answer = lambda path: (
            (200, {}, photo) if path == "/a.jpg" else (statuses[path], {":reason": "planted"}, b"")
        )
        (tmp_path / "list.txt").write_text(
            "".join(f"{site.url}{p}\n" for p in ["/a.jpg", *statuses])
        )
        arguments = ("score", "list.txt", "--out", "run", "--model", tiny_file, "--actors", "0",
                     "--header", "X-Key: planted", "--header", "User-Agent: me")  # fmt: skip
        done = gazecore_here(*arguments, "--rate-per-host", "20")
        assert done.returncode == 0, done.stderr
        assert len(site.requests) == 3
        for _, _, headers in site.requests:
            assert (headers["x-key"], headers["user-agent"]) == ("planted", "me")
        written = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
        assert written
        assert not any(b"planted" in path.read_bytes() for path in written)
        assert "planted" not in done.stdout + done.stderr
        options = json.loads((tmp_path / "run" / "run.json").read_text())["options"]
        assert not {"header", "rate_per_host"} & set(options)
        rows = gazecore.results.reader.open_results(str(tmp_path / "run")).scores.to_pylist()
        assert [row["error"] for row in rows] == [None, "not_found", "storage_error"]
        assert [row["error_message"] for row in rows[1:]] == [
            "there is no such page: the server answers 404 ***", "the server answers 451 ***",
        ]  # fmt: skip
        site.requests.clear()
        done = gazecore_here("score", "--out", "run", "--retry-failed", "--actors", "0")
        assert done.returncode == 0, done.stderr
        assert site.requests
        assert not any("x-key" in headers for _, _, headers in site.requests)
    refused = gazecore_here(*arguments, "--header", "planted")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert "--header 3" in refused.stderr
    assert "planted" not in refused.stderr


@pytest.mark.parametrize("source", ["list.txt", "s3://b/photos"])
def test_a_wrong_region_is_one_line(
    gazecore_here: Command,
    tiny_file: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
) -> None:
    (tmp_path / "list.txt").write_text("s3://b/a.jpg\ns3://b/b.jpg\n")
    body = (
        b"<Error><Code>AuthorizationHeaderMalformed</Code><Message>the region is wrong; expecting "
        b"'eu-west-1'</Message><Region>eu-west-1</Region></Error>"
    )
    with serving() as server:
        server.answer = lambda path: (400, {}, body)
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "planted-id")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret")
        done = gazecore_here("score", source, "--out", "run", "--model", tiny_file, "--actors", "0")
        assert len(server.requests) < 60
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "set AWS_DEFAULT_REGION=eu-west-1" in done.stderr


def test_archived_objects_are_failed_rows(
    gazecore_here: Command,
    s3_client: Any,
    tiny_file: str,
    tmp_path: Path,
) -> None:
    s3_client.create_bucket(Bucket="half-frozen")
    make_photo(1).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    for name, kind in (("a.jpg", "STANDARD"), ("b.jpg", "GLACIER")):
        s3_client.put_object(Bucket="half-frozen", Key=name, Body=data, StorageClass=kind)
    arguments = ("score", "s3://half-frozen", "--out", "run", "--model", tiny_file)
    done = gazecore_here(*arguments, "--actors", "0")
    assert done.returncode == 0, done.stderr
    rows = gazecore.results.reader.open_results(str(tmp_path / "run")).scores.to_pylist()
    assert [row["error"] for row in rows] == [None, "archived"]
