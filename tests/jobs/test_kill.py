import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import gazecore.results.reader
from gazecore.results.verify import problems
from tests.containers import KINDS, jpegs, write_container, write_folder
from tests.jobs.conftest import ROOT, Command, files
from tests.processes import descendants, kill_tree

KILLS = 3
IMAGES = 240


@pytest.mark.slow
@pytest.mark.parametrize("form", ["files", "containers"])
def test_a_run_that_is_killed_three_times_equals_an_undisturbed_one(
    gazecore_command: Command, tiny_file: str, tmp_path: Path, form: str
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    images = jpegs(IMAGES) | {"a/broken.jpg": b"\xff\xd8\xff"}
    if form == "files":
        write_folder(photos, images)
    else:
        names = sorted(images)
        for number, kind in enumerate(KINDS):
            some = names[number :: len(KINDS)]
            write_container(photos / f"{number}.{kind}", {name: images[name] for name in some})

    def command(out: str) -> list[str]:
        return ["score", str(photos), "--out", str(tmp_path / out), "--model", tiny_file,
                "--shard-size", "4"]  # fmt: skip

    assert gazecore_command(*command("undisturbed")).returncode == 0

    rng, done = random.Random(20161005), []
    for _ in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs", *command("killed")],
            cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        scores = tmp_path / "killed" / "scores"
        before = len(list(scores.glob("*.parquet"))) if scores.exists() else 0
        deadline = time.monotonic() + 120
        # Random moments, but after the first commit of this attempt, so that each one counts.
        while time.monotonic() < deadline and process.poll() is None:
            if scores.exists() and len(list(scores.glob("*.parquet"))) > before:
                time.sleep(rng.uniform(0, 0.8))
                break
            time.sleep(0.02)
        started = list(descendants(process.pid))
        kill_tree(process.pid)
        process.wait(timeout=30)
        for pid in started:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        done.append(len(list(scores.glob("*.parquet"))))
    assert done == sorted(done)
    assert 0 < done[0] < done[-1]

    assert gazecore_command(*command("killed")).returncode == 0
    assert files(tmp_path / "killed") == files(tmp_path / "undisturbed")
    run = gazecore.results.reader.open_results(str(tmp_path / "killed")).run
    assert list(problems(run)) == []
