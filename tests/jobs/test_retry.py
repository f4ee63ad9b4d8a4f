"""`gazecore score --retry-failed` and `--dry-run`, and `gazecore status --watch`."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gazecore.geometry import DEFAULT_FACTOR
from gazecore.images.formats import Limits
from gazecore.images.listing import list_images
from gazecore.model.bundle import parse_bundle
from gazecore.model.deepgaze import DeepGaze
from gazecore.results.run import Run, RunSettings, begin_run
from gazecore.shards.directory import shard_name
from gazecore.shards.planning import update_plan
from gazecore.storage import Location
from tests.conftest import make_photo
from tests.gazecore.test_results import begin, commit, listing, names
from tests.jobs.conftest import ROOT, Command, files, words
from tests.scoring import score_run


@pytest.fixture
def run(photos: Path, tmp_path: Path, tiny: DeepGaze, tiny_bytes: bytes) -> Run:
    """A run over ten photographs, a file that is none, an empty one and one that went away."""
    (photos / "a" / "broken.png").write_bytes(b"\x89PNG and nothing more")
    (photos / "b" / "empty.jpg").touch()
    settings = RunSettings(
        str(photos), parse_bundle(tiny_bytes, "tiny").fingerprint, "1024", 5, DEFAULT_FACTOR,
        Limits(),
    )  # fmt: skip
    run = begin_run(Location(str(tmp_path / "run")), settings)
    update_plan(run, list_images(str(photos)))
    (photos / "b" / "photo-4.jpg").rename(tmp_path / "away")
    score_run(run, tiny)
    return run


def arguments(photos: Path, model: str, *more: str) -> tuple[str, ...]:
    base = ("score", str(photos), "--out", "run", "--model", model, "--shard-size", "5")
    return (*base, "--display-size", "1024", *more)


def test_what_was_mended_is_as_if_it_had_never_failed(
    run: Run,
    photos: Path,
    tmp_path: Path,
    tiny: DeepGaze,
    tiny_file: str,
    gazecore_command: Command,
    gazecore_here: Command,
) -> None:
    status = words(gazecore_here("status", "run").stdout)
    assert "failed 3 2 decode_error 1 not_found" in status
    command = arguments(photos, tiny_file, "--retry-failed")
    planned = words(gazecore_here(*command, "--dry-run", "--rate", "0.01").stdout)
    assert "to do 3 images in 2 shards 3 of them failed before" in planned

    make_photo(20, 120, 80).save(photos / "a" / "broken.png")
    make_photo(21).save(photos / "b" / "empty.jpg")
    fresh = tmp_path / "fresh"
    (tmp_path / "away").rename(photos / "b" / "photo-4.jpg")
    other = begin_run(Location(str(fresh)), run.settings)
    update_plan(other, list_images(str(photos)))
    score_run(other, tiny)

    result = gazecore_command(*command)
    assert result.returncode == 0, result.stderr
    text = words(result.stdout)
    assert "done before 9 scored 3 retried 3 that had a row before: 3 ok" in text
    for folder in ("scores", "densities"):
        assert files(tmp_path / "run" / folder) == files(fresh / folder)
    verified = gazecore_here("verify", "run")
    assert verified.returncode == 0, verified.stdout
    assert "12 images, 12 ok, 0 failed" in verified.stdout

    again = gazecore_here(*command)  # starts no Ray
    assert again.returncode == 0, again.stderr
    assert "scored 0 time" in words(again.stdout)
    assert "retried nothing: no row was failed" in words(again.stdout)


def test_a_dry_run_writes_nothing_and_tells_what_is_to_do(
    photos: Path, tmp_path: Path, tiny_file: str, gazecore_here: Command
) -> None:
    before = set(tmp_path.rglob("*"))
    size = sum(path.stat().st_size for path in photos.rglob("*.jpg"))
    dry = arguments(photos, tiny_file, "--dry-run")
    text = words(gazecore_here(*dry, "--rate", "0.001", "--actors", "1:2").stdout)
    assert set(tmp_path.rglob("*")) == before
    assert "plan 10 images in 2 shards of 5; 10 new" in text
    assert "to do 10 images in 2 shards" in text
    assert f"input {size / 1000:.1f} kB in 10 images" in text
    assert "storage 27.2 kB for scores and densities of 10 images" in text
    assert "requests 10 to read, one an image; 4 to write, two a shard" in text
    assert "hours 1.4 with 2 actors of 0.001 images/s" in text
    assert "hours not known: --rate" in words(gazecore_here(*dry).stdout)
    (tmp_path / "list.txt").write_text("photos/a/photo-1.jpg\n" * 2)
    listed = gazecore_here("score", "list.txt", *dry[2:])
    assert "1 image in 1 shard" in words(listed.stdout)
    assert "the sizes of 1 are not known" in words(listed.stdout)
    for more, named in (
        (("--rate", "0"), "--rate"),
        (("--limit", "0"), "--limit"),
        (("--density-factor", "3"), "density_factor"),
    ):
        refused = gazecore_here(*dry, *more)
        assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
        assert named in refused.stderr


def test_a_dry_run_over_a_run_counts_what_it_lacks(
    run: Run, photos: Path, tmp_path: Path, tiny_file: str, gazecore_here: Command
) -> None:
    Path(run.scores.path, shard_name(1)).unlink()
    make_photo(30).save(photos / "new.jpg")
    before = files(tmp_path / "run")
    dry = arguments(photos, tiny_file, "--dry-run")
    text = words(gazecore_here(*dry).stdout)
    assert "plan 13 images in 4 shards of 5; 1 new" in text
    assert "to do 6 images in 2 shards" in text
    assert "hours not known" in text  # two commits do not tell
    other = gazecore_here(*dry, "--density-factor", "2")
    assert other.returncode == 2
    assert "density_factor: it has 4, now 2" in other.stderr
    assert files(tmp_path / "run") == before


def watch(tmp_path: Path, out: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "jobs", "status", "run", "--watch", "--every", "0.2"],
        cwd=tmp_path, stdout=out, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120", "TERM": "xterm"},
    )  # fmt: skip


@pytest.fixture
def made_up(tmp_path: Path) -> Run:
    """Five images in three shards, two of which failed."""
    run = begin(tmp_path / "run")
    update_plan(run, listing(*names(5)))
    commit(run, failing=frozenset({"000.jpg", "004.jpg"}))
    return run


def test_watching_ends_when_the_run_is_complete(made_up: Run, tmp_path: Path) -> None:
    held = Path(made_up.scores.path, shard_name(1))
    held.rename(tmp_path / "held")
    process = watch(tmp_path, subprocess.PIPE)
    assert process.stdout is not None
    first = process.stdout.readline().decode()
    assert "3 of 5 images done" in first
    assert "last shard 0:0" in first
    (tmp_path / "held").rename(held)
    rest = process.communicate(timeout=60)[0].decode().splitlines()
    assert process.returncode == 0
    assert "5 of 5 images done  2 failed" in rest[-1]
    assert all("3 of 5" in line for line in rest[:-1])


def test_watching_on_a_terminal_until_ctrl_c(made_up: Run, tmp_path: Path) -> None:
    Path(made_up.scores.path, shard_name(1)).unlink()
    ours, theirs = pty.openpty()
    process = watch(tmp_path, theirs)
    os.close(theirs)
    try:
        seen, deadline = b"", time.monotonic() + 60
        while seen.count(b"missing") < 3 and time.monotonic() < deadline:
            seen += os.read(ours, 10_000)  # it is drawn again in its place
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
        os.close(ours)
    assert seen.count(b"missing") >= 3
    assert b"\x1b[" in seen
    assert b"ago" in seen
    assert process.returncode == 130
    assert err.decode().strip() == "gazecore status: interrupted"
