"""Where a command computes: in its own process, or on Ray."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.layout import ClusterConfig
from gazecore.errors import InputError
from gazecore.images.formats import Limits
from gazecore.results.run import Run, RunSettings, open_run
from gazecore.results.times import NAME as TIMES
from gazecore.results.verify import problems
from gazecore.storage import Location
from jobs.work import MOST_HERE, _is_small
from tests.jobs.conftest import ROOT, Command, run_here


def run_at(where: str) -> Run:
    return Run(Location(where), RunSettings("photos", "m", "1024", 1, 4, Limits()))


def test_small_inputs_of_this_machine_are_computed_in_the_commands_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, default = run_at(str(tmp_path / "run")), ClusterConfig()
    assert _is_small(run, default, str(tmp_path), MOST_HERE)
    assert not _is_small(run, default, str(tmp_path), MOST_HERE + 1)
    assert not _is_small(run, default, "s3://bucket/photos", 1)
    assert not _is_small(run_at("memory://run"), default, str(tmp_path), 1)
    for config in (ClusterConfig("1"), ClusterConfig(None, 0), ClusterConfig(address="auto")):
        assert not _is_small(run, config, str(tmp_path), 1)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # as `ray job submit` does
    assert not _is_small(run, default, str(tmp_path), 1)
    assert ClusterConfig("0").is_here
    with pytest.raises(InputError, match="--actors 0 computes in this process"):
        ClusterConfig("0", address="auto")


DIES = """
import os, signal, sys
from gazecore.model.tiny import TinyBackbone
from jobs.__main__ import run
TinyBackbone.features = lambda self, images: os.kill(os.getpid(), signal.SIGSEGV)
sys.argv = ["gazecore", *sys.argv[1:]]
run()
"""


def test_after_an_image_ended_the_process_the_same_command_goes_on_with_ray(
    photos: Path, tmp_path: Path, tiny_file: str, gazecore_command: Command
) -> None:
    command = ("score", str(photos), "--out", str(tmp_path / "run"), "--model", tiny_file)
    died = subprocess.run(
        [sys.executable, "-c", DIES, *command], cwd=ROOT, capture_output=True, check=False
    )
    assert died.returncode == -signal.SIGSEGV
    folder = tmp_path / "ray"
    folder.mkdir()
    os.symlink(folder, short := f"/tmp/gz-work-{os.getpid()}")  # Ray's sockets need a short path
    try:
        again = gazecore_command(*command, env={"RAY_TMPDIR": short})
    finally:
        os.unlink(short)
    assert again.returncode == 0, again.stderr
    assert list(folder.iterdir()), "Ray was not started"
    run = run_at(str(tmp_path / "run"))
    assert list(problems(run)) == []
    assert not (tmp_path / "run" / "in-process").exists()
    # What is done leaves nothing to start Ray for.
    assert gazecore_command(*command, env={"RAY_TMPDIR": "/nowhere"}).returncode == 0


def test_a_run_whose_times_cannot_be_kept_is_done_all_the_same(
    photos: Path, tmp_path: Path, tiny_file: str
) -> None:
    out = tmp_path / "run"
    command = ("score", str(photos), "--out", str(out), "--model", tiny_file)
    assert run_here(tmp_path, *command).returncode == 0
    (out / TIMES).unlink()
    (out / TIMES).mkdir()
    next((out / "scores").iterdir()).unlink()
    ended = run_here(tmp_path, *command)
    assert ended.returncode == 0
    assert "the times of its stages are not kept: " in ended.stderr
    assert list(problems(open_run(Location(str(out))))) == []
