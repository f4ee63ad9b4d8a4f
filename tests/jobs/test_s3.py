import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gazecore.results.reader
from tests.conftest import make_photo
from tests.jobs.conftest import Command, words


@pytest.mark.slow
def test_images_in_and_results_out_over_s3(
    s3_client: Any,
    gazecore_command: Command,
    tiny_file: str,
    tmp_path: Path,
) -> None:
    s3_client.create_bucket(Bucket="pictures")
    for seed in range(7):
        path = tmp_path / f"{seed}.jpg"
        make_photo(seed).save(path)
        s3_client.upload_file(str(path), "pictures", f"set/a b/{seed}.jpg")
        path.unlink()
    s3_client.put_object(Bucket="pictures", Key="set/empty.png", Body=b"")
    s3_client.put_object(Bucket="pictures", Key="set/notes.txt", Body=b"not an image")
    s3_client.put_object(Bucket="pictures", Key="setting/other.jpg", Body=b"another prefix")
    s3_client.put_object(Bucket="pictures", Key="models/tiny", Body=Path(tiny_file).read_bytes())
    arguments = ("score", "s3://pictures/set", "--out", "s3://pictures/runs/one", "--model",
                 "s3://pictures/models/tiny", "--shard-size", "3")  # fmt: skip
    before = set(tmp_path.rglob("*"))
    result = gazecore_command(*arguments)
    assert result.returncode == 0, result.stderr
    assert "scored 7 failed 1 decode_error" in words(result.stdout)
    assert set(tmp_path.rglob("*")) == before

    status = gazecore_command("status", "s3://pictures/runs/one")
    assert "7 ok in 3 shards" in status.stdout
    verified = gazecore_command("verify", "s3://pictures/runs/one")
    assert verified.returncode == 0, verified.stdout
    answer = gazecore_command(
        "query", "s3://pictures/runs/one",
        "SELECT p.version, s.error, d.log_offset FROM plan p JOIN scores s USING (image_id) "
        "LEFT JOIN densities d USING (image_id) ORDER BY image_id", "--format", "json",
    )  # fmt: skip
    rows = [json.loads(line) for line in answer.stdout.splitlines()]
    assert [row["error"] for row in rows] == [None] * 7 + ["decode_error"]
    assert all(row["version"] for row in rows)
    assert rows[-1]["log_offset"] is None

    density = gazecore.results.reader.open_results("s3://pictures/runs/one").density("a b/3.jpg")
    assert density.shape == (64, 96)
    assert np.exp(density).sum() == pytest.approx(1, abs=1e-5)

    # The same command again does nothing to what is done; a new image is picked up, and one that
    # was empty when it was planned is mended; nothing secret was stored.
    keys = {o["Key"]: o["ETag"] for o in s3_client.list_objects_v2(Bucket="pictures")["Contents"]}
    make_photo(50).save(tmp_path / "new.jpg")
    s3_client.upload_file(str(tmp_path / "new.jpg"), "pictures", "set/a b/new.jpg")
    s3_client.upload_file(str(tmp_path / "new.jpg"), "pictures", "set/empty.png")
    again = gazecore_command(*arguments, "--retry-failed")
    assert again.returncode == 0, again.stderr
    assert "done before 7 scored 2 retried 1 that had a row before: 1 ok" in words(again.stdout)
    mended = {f"runs/one/{folder}/shard-000002.parquet" for folder in ("scores", "densities")}
    # The plan has the size of what was empty; the times are added to.
    mended |= {"runs/one/plan/part-00000.parquet", "runs/one/times.json"}
    objects = s3_client.list_objects_v2(Bucket="pictures")["Contents"]
    for item in objects:
        if item["Key"] in keys.keys() - mended - {"set/empty.png"}:
            assert item["ETag"] == keys[item["Key"]], item["Key"]
        body = s3_client.get_object(Bucket="pictures", Key=item["Key"])["Body"].read()
        assert b"planted" not in body
    counts = gazecore_command("status", "s3://pictures/runs/one", "--watch")
    assert "9 of 9 images done  0 failed" in counts.stdout
    assert "planted" not in result.stdout + result.stderr + again.stdout + again.stderr


@pytest.mark.slow
def test_listing_s3_crosses_pages(s3_client: Any) -> None:
    from gazecore.images.listing import list_images

    s3_client.create_bucket(Bucket="many")
    for number in range(1203):
        s3_client.put_object(Bucket="many", Key=f"p/{number:05d}.jpg", Body=b"x")
    ids = [i for batch in list_images("s3://many/p") for i in batch["image_id"].to_pylist()]
    assert ids == [f"{number:05d}.jpg" for number in range(1203)]


@pytest.mark.slow
def test_a_bucket_that_does_not_exist_is_one_line_and_exit_code_2(
    s3_server: dict[str, str], gazecore_command: Command, tiny_file: str, tmp_path: Path
) -> None:
    result = gazecore_command(
        "score", "s3://no-such-bucket/x", "--out", str(tmp_path / "run"), "--model", tiny_file,
        env=s3_server,
    )  # fmt: skip
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert "s3://no-such-bucket/x" in result.stderr
