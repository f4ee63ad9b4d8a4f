"""Ctrl-C and SIGTERM: what is begun is finished if it can be soon, and what is kept is said."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import gazecore.results.reader
from gazecore.results.status import run_status
from gazecore.results.verify import problems
from tests.conftest import make_photo
from tests.jobs.conftest import ROOT, Command

IMAGES = 400


def wait_for(scores: Path, count: int, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and process.poll() is None:
        if scores.exists() and len(list(scores.glob("*.parquet"))) >= count:
            return
        time.sleep(0.02)
    raise AssertionError("no shard was committed")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interrupt") / "photos"
    folder.mkdir()
    make_photo(0).save(folder / "000.jpg")
    for number in range(1, IMAGES):
        os.link(folder / "000.jpg", folder / f"{number:03d}.jpg")
    return folder


def begin(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "jobs", *arguments], cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("actors", ["0", "1"])
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"]
)
def test_an_interruption_keeps_what_is_done_and_says_so(
    number: int,
    code: int,
    actors: str,
    photos: Path,
    tmp_path: Path,
    tiny_file: str,
    gazecore_command: Command,
) -> None:
    arguments = ["score", str(photos), "--out", str(tmp_path / "run"), "--model", tiny_file]
    arguments += ["--actors", actors]
    process = begin(*arguments)
    wait_for(tmp_path / "run" / "scores", 1, process)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # a terminal sends it to all processes of the command
    else:
        process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == code, said
    run = gazecore.results.reader.open_results(str(tmp_path / "run")).run
    status = run_status(run)
    assert 0 < status.ok < IMAGES  # by default a small input has small shards
    [kept] = re.findall(r"(\d+) of 400 images are kept, the same command continues", said)
    assert int(kept) == status.ok
    assert "Traceback" not in said
    assert "SIGTERM" not in said.replace("Ctrl-C or SIGTERM", "")
    assert gazecore_command(*arguments).returncode == 0
    assert list(problems(run)) == []


@pytest.mark.slow
@pytest.mark.parametrize("actors", ["0", "1"])
def test_a_second_signal_ends_the_command_at_once(
    actors: str, photos: Path, tmp_path: Path, gazecore_command: Command
) -> None:
    # The real network takes seconds for a shard.
    arguments = ["score", str(photos), "--out", str(tmp_path / "run"), "--model", "paper"]
    arguments += ["--limit", "48", "--actors", actors]
    process = begin(*arguments)
    wait_for(tmp_path / "run" / "scores", 1, process)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    begun = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - begun < (1 if actors == "0" else 5), "it waited for shards in work"
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert re.findall(r"(16|32) of 48 images are kept, the same command continues", said), said
    assert gazecore_command(*arguments).returncode == 0
    run = gazecore.results.reader.open_results(str(tmp_path / "run")).run
    assert run_status(run).ok == 48
    assert list(problems(run)) == []
