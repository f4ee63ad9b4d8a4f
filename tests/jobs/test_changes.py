"""`gazecore score` on inputs that change and runs that move: --rescan, --only, options left out."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import jobs.compact
from gazecore.results.reader import open_results
from tests.conftest import make_photo
from tests.jobs.conftest import ROOT, Command, refused_in_one_line, words

HERE = ("--actors", "0")


@pytest.fixture
def run(photos: Path, tmp_path: Path, tiny_file: str, gazecore_here: Command) -> Path:
    """A run over ten photographs in shards of three, of one of which nothing can be read."""
    (photos / "a" / "photo-1.jpg").write_bytes(b"no picture")
    begun = gazecore_here(
        "score", "photos", "--out", "run", "--model", tiny_file, "--shard-size", "3",
        "--density-factor", "2", "--limits.max-pixels", "100000", *HERE,
    )  # fmt: skip
    assert begun.returncode == 0, begun.stderr
    return tmp_path / "run"


def rows_of(run: Path | str) -> dict[str, dict[str, Any]]:
    rows = open_results(str(run)).scores.to_pylist()
    assert len({row["image_id"] for row in rows}) == len(rows)
    return {row["image_id"]: row for row in rows}


def said(command: Command, *arguments: str, code: int = 0) -> str:
    done = command(*arguments)
    assert done.returncode == code, done.stderr + done.stdout
    return words(done.stdout)


def test_what_changed_is_said_until_it_is_rescanned(
    run: Path, photos: Path, gazecore_here: Command
) -> None:
    again = ("score", "--out", "run", *HERE)
    assert "since they were planned" not in said(gazecore_here, *again)
    assert not (run / "noticed.json").exists()
    make_photo(50, 120, 80).save(photos / "a" / "photo-3.jpg")
    (photos / "b" / "photo-4.jpg").unlink()
    (photos / "b" / "photo-6.jpg").unlink()
    make_photo(51).save(photos / "b" / "new.jpg")
    noticed = "1 changed and 2 deleted images since they were planned: `gazecore score --rescan`"
    assert f"input {noticed}" in said(gazecore_here, *again, "--dry-run")
    text = said(gazecore_here, *again)
    assert "new 1 image that came into the input" in text
    assert f"input {noticed}" in text
    assert rows_of(run)["b/photo-4.jpg"]["status"] == "ok"
    assert noticed in said(gazecore_here, "status", "run")
    assert noticed in said(gazecore_here, "verify", "run")

    text = said(gazecore_here, *again, "--dry-run", "--rescan")
    assert "rescan 1 changed and 2 deleted since they were planned" in text
    text = said(gazecore_here, *again, "--rescan")
    assert "rescanned 1 changed, 2 deleted" in text
    assert "gone 2 no longer in the input" in text
    assert "since they were planned" not in text
    rows = rows_of(run)
    assert rows["a/photo-3.jpg"]["width"] == 120
    assert {i for i, row in rows.items() if row["status"] == "gone"} == {
        "b/photo-4.jpg", "b/photo-6.jpg",
    }  # fmt: skip
    status = said(gazecore_here, "status", "run")
    assert "failed 1" in status
    assert "gone 2 are no longer in the input" in status
    assert "noticed" not in status
    assert "8 ok, 1 failed, 2 gone" in said(gazecore_here, "verify", "run")
    assert "rescanned 0 changed, 0 deleted" in said(gazecore_here, *again, "--rescan")


def test_only_named_images_are_scored_again(
    run: Path, photos: Path, tmp_path: Path, gazecore_here: Command
) -> None:
    (run / "scores" / "shard-000003.parquet").unlink()
    make_photo(50, 120, 80).save(photos / "a" / "photo-1.jpg")
    make_photo(51, 120, 80).save(photos / "b" / "photo-0.jpg")
    make_photo(52, 120, 80).save(photos / "a" / "photo-5.jpg")
    names = ["image_id", "a/photo-1.jpg", "", str(photos / "b" / "photo-0.jpg")]
    (tmp_path / "repaired.txt").write_text("\n".join(names))
    text = said(gazecore_here, "score", "--out", "run", "--only", "repaired.txt", *HERE)
    assert "named 2 images" in text
    rows = rows_of(run)
    assert {rows[i]["status"] for i in ("a/photo-1.jpg", "b/photo-0.jpg")} == {"ok"}
    assert {i for i, row in rows.items() if row["width"] == 120} == {
        "a/photo-1.jpg", "b/photo-0.jpg",
    }  # fmt: skip
    assert len(rows) == 9  # what is missing is left alone
    (tmp_path / "repaired.txt").write_text("a/photo-1.jpg\nother.jpg\n")
    only = ("score", "--out", "run", "--only", "repaired.txt")
    refused_in_one_line(tmp_path, *only, message="no image 'other.jpg' (1 of 2 names")
    refused_in_one_line(tmp_path, *only, "--rescan", message="--only goes without --rescan")
    refused_in_one_line(tmp_path, "score", "--out", "run", "--only", "none", message="cannot read")
    refused_in_one_line(tmp_path, "score", "--out", "other", message="holds no run yet")
    assert said(gazecore_here, "score", "--out", "run", *HERE)
    assert len(rows_of(run)) == 10


def test_a_run_knows_what_it_was_begun_with(
    run: Path, photos: Path, tmp_path: Path, tiny_file: str, gazecore_here: Command
) -> None:
    content = json.loads((run / "run.json").read_text())
    assert content["options"]["model"] == tiny_file
    make_photo(50).save(photos / "a" / "photo-1.jpg")
    text = said(gazecore_here, "score", "--out", "run", "--retry-failed", *HERE)
    assert "1 that had a row before: 1 ok" in text
    # The failed one is scored as it is now, and is no change that anybody must hear of.
    assert "since they were planned" not in text
    assert "since they were planned" not in said(gazecore_here, "score", "--out", "run", *HERE)
    assert "is complete" in said(gazecore_here, "verify", "run")
    for option, why in (
        (("--density-factor", "4"), "density_factor: it has 2, now 4"),
        (("--limits.max-pixels", "7"), "limits.max_pixels: it has 100000, now 7"),
        (("--model", "default"), "model: it has"),
        (("--exclude", "*.png"), "exclude: it has (), now ('*.png',)"),
        (("--centerbias", "uniform"), "model: it has"),
    ):
        refused_in_one_line(tmp_path, "score", "--out", "run", *option, message=why)
    moved = tmp_path / "moved.safetensors"
    shutil.move(tiny_file, moved)
    refused_in_one_line(tmp_path, "score", "--out", "run", message="say by --model where it is now")
    make_photo(51).save(photos / "new.jpg")
    said(gazecore_here, "score", "--out", "run", "--model", str(moved), *HERE)
    assert rows_of(run)["new.jpg"]["status"] == "ok"


def everything(command: Command, run: str, ids: int) -> None:
    """All commands that read a run, or go on with it."""
    assert f"{ids} ok" in said(command, "status", run)
    assert "is complete" in said(command, "verify", run)
    assert str(ids) in said(
        command, "query", run, "SELECT count(*) FROM scores WHERE status = 'ok'"
    )
    assert f"{ids + 1} rows" in said(command, "compact", run)
    said(command, "export", run, "--format", "png", "--out", f"maps-{ids}")


def test_a_run_that_was_moved_goes_on_where_it_is(
    run: Path, photos: Path, tmp_path: Path, gazecore_here: Command
) -> None:
    said(gazecore_here, "compact", "run")
    moved = tmp_path / "elsewhere" / "photos run"
    moved.parent.mkdir()
    run.rename(moved)
    everything(gazecore_here, str(moved), 9)
    make_photo(50).save(photos / "new.jpg")
    make_photo(51, 120, 80).save(photos / "b" / "photo-0.jpg")
    said(gazecore_here, "score", "--out", str(moved), "--rescan", *HERE)
    everything(gazecore_here, str(moved), 10)
    assert rows_of(moved)["b/photo-0.jpg"]["width"] == 120
    assert not run.exists()


def test_a_run_that_was_copied_to_a_bucket_goes_on_there(
    run: Path, photos: Path, gazecore_here: Command, s3_client: Any
) -> None:
    said(gazecore_here, "compact", "run")
    s3_client.create_bucket(Bucket="moved")
    for path in run.rglob("*"):
        if path.is_file():
            key = f"runs/{path.relative_to(run)}"
            s3_client.put_object(Bucket="moved", Key=key, Body=path.read_bytes())
    everything(gazecore_here, "s3://moved/runs", 9)
    make_photo(50).save(photos / "new.jpg")
    (photos / "b" / "photo-0.jpg").unlink()
    said(gazecore_here, "score", "--out", "s3://moved/runs", "--rescan", *HERE)
    assert "9 ok, 1 failed, 1 gone" in said(gazecore_here, "verify", "s3://moved/runs")
    assert len(rows_of("s3://moved/runs")) == 11


def test_objects_that_changed_are_known_by_a_listing(
    photos: Path, tiny_file: str, gazecore_here: Command, s3_client: Any
) -> None:
    s3_client.create_bucket(Bucket="changing")
    for path in photos.rglob("*.jpg"):
        key = f"photos/{path.relative_to(photos)}"
        s3_client.put_object(Bucket="changing", Key=key, Body=path.read_bytes())
    where = "s3://changing/photos"
    said(gazecore_here, "score", where, "--out", "s3run", "--model", tiny_file, *HERE)
    body = (photos / "a" / "photo-3.jpg").read_bytes()
    s3_client.put_object(Bucket="changing", Key="photos/a/photo-3.jpg", Body=body)  # the same
    (photos / "c.jpg").touch()
    make_photo(50, 120, 80).save(photos / "c.jpg")
    body = (photos / "c.jpg").read_bytes()
    s3_client.put_object(Bucket="changing", Key="photos/a/photo-1.jpg", Body=body)
    s3_client.delete_object(Bucket="changing", Key="photos/b/photo-0.jpg")
    text = said(gazecore_here, "score", "--out", "s3run", *HERE)
    assert "1 changed and 1 deleted images" in text
    said(gazecore_here, "score", "--out", "s3run", "--rescan", *HERE)
    assert "9 ok, 0 failed, 1 gone" in said(gazecore_here, "verify", "s3run")
    assert open_results(str(photos.parent / "s3run")).scores.num_rows == 10


def test_a_run_of_many_shards_is_compacted_at_its_end_unless_it_may_not(
    photos: Path, tiny_file: str, gazecore_here: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert jobs.compact.MANY == 256
    monkeypatch.setattr(jobs.compact, "MANY", 9)
    command = ("score", "photos", "--model", tiny_file, "--shard-size", "1", *HERE, "--out")
    assert "compacted" not in said(gazecore_here, *command, "plain", "--uncompacted")
    assert not (photos.parent / "plain" / "compacted").exists()
    assert "compacted 10 rows of 10 shards in 1 file" in said(gazecore_here, *command, "large")
    assert pq.read_table(next((photos.parent / "large").rglob("part-00000.parquet"))).num_rows


@pytest.mark.slow
def test_a_rescan_that_is_killed_at_random_moments_loses_nothing(
    tmp_path: Path, tiny_file: str, gazecore_here: Command
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(120):
        make_photo(seed).save(photos / f"{seed:03d}.jpg")
    command = ("score", str(photos), "--out", "run", "--model", tiny_file, "--shard-size", "2")
    said(gazecore_here, *command, *HERE)
    before = rows_of(tmp_path / "run")
    for seed in range(0, 120, 3):
        make_photo(500 + seed, 120, 80).save(photos / f"{seed:03d}.jpg")
        (photos / f"{seed + 1:03d}.jpg").unlink()
    rng, rescanned = random.Random(20270101), []
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs", "score", "--out", "run", "--rescan", *HERE],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        marker, deadline = tmp_path / "run" / "in-process", time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None and not marker.exists():
            rows_of(tmp_path / "run")
        time.sleep(rng.uniform(0, 1.5))
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
        marker.unlink(missing_ok=True)
        rows = rows_of(tmp_path / "run")
        assert rows.keys() == before.keys()
        rescanned.append(sum(rows[i] != before[i] for i in rows))
    assert rescanned == sorted(rescanned)
    said(gazecore_here, "score", "--out", "run", "--rescan", *HERE)
    assert "80 ok, 0 failed, 40 gone" in said(gazecore_here, "verify", "run")
    said(gazecore_here, *command[:2], "--out", "fresh", *command[4:], *HERE)
    fresh = rows_of(tmp_path / "fresh")
    assert {i: r for i, r in rows_of(tmp_path / "run").items() if r["status"] == "ok"} == fresh
