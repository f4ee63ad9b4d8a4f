import json
import shutil
from pathlib import Path

import pytest

import gazecore.results.reader
from tests.conftest import make_photo
from tests.jobs.conftest import ROOT, Command

PEAK = """
import json, sys
from benchmarks.environment import peak_mb
from gazecore.images.formats import Limits
from gazecore.model.bundle import load_bundle
from gazecore.model.deepgaze import DeepGaze
from gazecore.shards.plan import shards
from gazecore.results.run import open_run
from tests.scoring import Scorer
from gazecore.storage import Location

scorer = Scorer(DeepGaze.load(load_bundle(sys.argv[2])))
rows = [r for s in shards(open_run(Location(sys.argv[1]))) for r in scorer.score(s.images)[0]]
# Without pages of library files, of which there are more or fewer, and which go when room is short.
libraries = int(open("/proc/self/status").read().split("RssFile:")[1].split()[0]) / 1024
print(json.dumps([len(rows), (peak_mb() - libraries) / 1024]))
"""


@pytest.mark.slow
@pytest.mark.corpora
def test_hostile_files_among_a_hundred_good_ones(
    gazecore_command: Command, tiny_file: str, tmp_path: Path, shared: Path
) -> None:
    images = tmp_path / "images"
    shutil.copytree(shared / "hostile", images / "hostile")
    (images / "good").mkdir()
    for seed in range(100):
        make_photo(seed).save(images / "good" / f"{seed}.jpg")
    result = gazecore_command(
        "score", str(images), "--out", "run", "--model", tiny_file, "--shard-size", "32"
    )
    assert result.returncode == 0, result.stderr
    assert "actors lost" not in result.stdout
    verified = gazecore_command("verify", "run")
    assert verified.returncode == 0, verified.stdout
    rows = gazecore.results.reader.open_results(str(tmp_path / "run")).scores.to_pylist()
    names = {row["image_id"] for row in rows}
    hostile = {f"hostile/{p.name}" for p in (shared / "hostile").iterdir() if p.name != "LICENSE"}
    assert len(rows) == len(names)
    assert names == hostile | {f"good/{seed}.jpg" for seed in range(100)}
    assert all(row["status"] == "ok" for row in rows if row["image_id"].startswith("good/"))
    failed = {r["image_id"]: r["error"] for r in rows if r["status"] == "failed"}
    assert set(failed.values()) <= {"decode_error", "too_large"}
    # Most of them are odd, not broken: those must be read.
    assert len(failed) < 30, failed
    print(f"\n{len(hostile)} hostile files: {len(hostile) - len(failed)} ok, failed: {failed}")


@pytest.mark.slow
@pytest.mark.corpora
def test_scoring_the_hostile_files_stays_under_two_gigabytes(
    gazecore_command: Command, tiny_file: str, tmp_path: Path, shared: Path
) -> None:
    import os
    import subprocess
    import sys

    made = gazecore_command(
        "score", str(shared / "hostile"), "--out", "run", "--model", tiny_file, "--limit", "1"
    )
    assert made.returncode == 0, made.stderr
    rest = gazecore_command("score", str(shared / "hostile"), "--out", "run", "--model", tiny_file)
    assert rest.returncode == 0, rest.stderr
    found = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path / "run"), "default"],
        capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    rows, gigabytes = json.loads(found.stdout.splitlines()[-1])
    print(f"\n{rows} hostile files with the default model: peak {gigabytes:.2f} GB")
    assert rows == 91
    assert gigabytes < 2
