"""Planted secrets are found nowhere but in the columns `uri` of signed URLs."""

import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

import gazecore.results.reader
from gazecore.shards.plan import shards
from tests.conftest import make_photo
from tests.jobs.conftest import Command

PLANTED = "planted"


def test_no_secret_is_printed_logged_or_stored(
    s3_server: dict[str, str],
    s3_client: Any,
    gazecore_command: Command,
    tiny_file: str,
    tmp_path: Path,
) -> None:
    s3_client.create_bucket(Bucket="open", ACL="public-read")
    make_photo(1).save(tmp_path / "a.jpg")
    s3_client.upload_file(str(tmp_path / "a.jpg"), "open", "a.jpg", {"ACL": "public-read"})
    web = f"{s3_server['AWS_ENDPOINT_URL']}/open"
    signed = "X-Amz-Credential=planted-id&X-Amz-Signature=planted-signature"
    (tmp_path / "list.txt").write_text(
        f"s3://open/a.jpg\ns3://open/missing.jpg\n{web}/a.jpg?{signed}\n{web}/gone.jpg?{signed}\n"
        f"http://169.254.169.254/role?{signed}\n"
    )
    (tmp_path / "headers").write_text("Authorization: Bearer planted-bearer\n")
    token = secrets.token_hex(32)
    folder = tempfile.mkdtemp(prefix="gz-")  # Ray's sockets need a short path
    try:
        result = gazecore_command(
            "score", "list.txt", "--out", "run", "--model", tiny_file, "--actors", "1",
            "--header", "@headers", "--header", "127.0.0.1 X-Other: planted-other",
            env={"AWS_SESSION_TOKEN": "planted-session", "RAY_AUTH_TOKEN": token,
                 "RAY_AUTH_MODE": "token", "RAY_TMPDIR": folder},
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        logs = [path for path in Path(folder).rglob("*") if path.is_file()]
        assert any("python-core-worker" in path.name for path in logs)
        for path in logs:
            content = path.read_bytes()
            assert PLANTED.encode() not in content, path
            assert token.encode() not in content, path
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert PLANTED not in result.stdout + result.stderr
    assert token not in result.stdout + result.stderr
    for path in (tmp_path / "run").rglob("*.json"):
        assert PLANTED not in path.read_text()
    run = gazecore.results.reader.open_results(str(tmp_path / "run"))
    rows = run.scores.to_pylist()
    errors = [row["error"] for row in rows]
    assert errors[:2] == [None, "not_found"]
    assert errors[3:] == ["not_found", "access_denied"]
    planned = [row for shard in shards(run.run) for row in shard.images.to_pylist()]
    assert [PLANTED in row["uri"] for row in planned] == [False, False, True, True, True]
    for row in [*planned, *rows]:
        assert PLANTED not in str({k: v for k, v in row.items() if k != "uri"})


@pytest.mark.parametrize(
    "arguments",
    [
        ("score", "s3://planted-id:planted@b/x", "--out", "run"),
        ("score", "photos", "--out", "s3://planted-id:planted@b/run"),
        ("score", "photos", "--out", "run", "--model", "https://u:planted@127.0.0.1/m"),
        ("score", "http://127.0.0.1:9/list.csv?sig=planted", "--out", "run"),
        ("status", "http://127.0.0.1:9/run?token=planted"),
        ("query", "s3://u:planted@b/run", "SELECT 1"),
        ("predict", "http://127.0.0.1:99999/a.jpg?sig=planted", "--out", "o"),
    ],
)
def test_no_error_repeats_a_secret(
    gazecore_here: Command, photos: Path, tiny_file: str, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    if arguments[0] in ("score", "predict") and "--model" not in arguments:
        arguments = (*arguments, "--model", tiny_file)
    result = gazecore_here(*arguments)
    assert result.returncode in (1, 2)
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert PLANTED not in result.stdout + result.stderr
    assert PLANTED not in str(list(tmp_path.rglob("*")))
