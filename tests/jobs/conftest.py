import contextlib
import functools
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

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


@pytest.fixture
def gazecore_here(tmp_path: Path) -> Command:
    """`run_here` in the test's folder."""
    return functools.partial(run_here, tmp_path)


@pytest.fixture
def gazecore_command(tmp_path: Path) -> Command:
    """`run_gazecore` in the test's folder."""
    return functools.partial(run_gazecore, tmp_path)
