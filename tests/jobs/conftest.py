import contextlib
import functools
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
import ray

from gazecore.results.times import NAME as TIMES
from jobs.__main__ import main

ROOT = Path(__file__).resolve().parents[2]

Command = Callable[..., subprocess.CompletedProcess[str]]


def words(text: str) -> str:
    """A text with its spacing evened out."""
    return " ".join(text.split())


def run_gazecore(
    folder: Path, *arguments: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `gazecore ...` as a user does: in a process of its own, from some folder."""
    return subprocess.run(
        [sys.executable, "-m", "jobs", *arguments],
        capture_output=True, text=True, timeout=300, cwd=folder, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120", **(env or {})},
    )  # fmt: skip


def run_here(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`gazecore ...` in this process, which saves seconds; for commands that start no Ray."""
    out, err = (io.TextIOWrapper(io.BytesIO(), write_through=True) for _ in range(2))
    argv: list[str] = ["gazecore", *arguments]
    code: Any = 0
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, "argv", argv)
        patch.setenv("COLUMNS", "120")
        try:
            main()
        except SystemExit as ended:
            code = ended.code
    assert not ray.is_initialized()
    texts = (stream.buffer.getvalue().decode() for stream in (out, err))  # type: ignore[attr-defined]
    return subprocess.CompletedProcess(argv, code, *texts)


def refused_in_one_line(folder: Path, *arguments: str, message: str) -> None:
    """`gazecore ...` is a user's mistake, says so in one line, and leaves no file."""
    before = set(folder.rglob("*"))
    done = run_here(folder, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr
    assert set(folder.rglob("*")) == before


def files(folder: Path) -> dict[str, bytes]:
    """All files of a run's folder but its commands' times, which are never the same twice."""
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {name: data for name, data in found.items() if name != TIMES}


@pytest.fixture
def s3_client(s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of the S3 server, which the environment points at."""
    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    return boto3.client("s3")


@pytest.fixture
def gazecore_here(tmp_path: Path) -> Command:
    """`run_here` in the test's folder."""
    return functools.partial(run_here, tmp_path)


@pytest.fixture
def gazecore_command(tmp_path: Path) -> Command:
    """`run_gazecore` in the test's folder."""
    return functools.partial(run_gazecore, tmp_path)
