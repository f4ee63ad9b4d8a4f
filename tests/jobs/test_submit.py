import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import gazecore.results.read
from gazecore.results.verify import problems
from tests.jobs.conftest import ROOT
from tests.processes import kill_tree

RAY = str(Path(sys.executable).parent / "ray")


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture
def head() -> Iterator[tuple[str, dict[str, str]]]:
    """A cluster started with `ray start --head`, token authentication on; address and env."""
    # Ray's sockets need a short path, shorter than pytest's own folders.
    folder = tempfile.mkdtemp(prefix="gz-")
    gcs, dashboard, client, agent, agent_grpc = free_ports(5)
    env = {
        **os.environ,
        "HOME": folder,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    server = subprocess.Popen(
        [RAY, "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={gcs}",
         "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
         f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={agent}",
         f"--dashboard-agent-grpc-port={agent_grpc}", f"--temp-dir={folder}/ray",
         "--num-cpus=2", "--object-store-memory=100000000"],
        env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder,
    )  # fmt: skip
    address = f"http://127.0.0.1:{dashboard}"
    try:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            probe = subprocess.run(
                [RAY, "job", "list", "--address", address],
                env=env, capture_output=True, text=True, check=False,
            )  # fmt: skip
            if probe.returncode == 0:
                break
            assert server.poll() is None, "ray start ended"
            time.sleep(1)
        else:
            pytest.fail(f"no job server within 90 s: {probe.stderr[-500:]}")
        yield address, env
    finally:
        kill_tree(server.pid)
        server.wait(timeout=20)
        shutil.rmtree(folder, ignore_errors=True)


def test_ray_job_submit_scores_a_folder(
    head: tuple[str, dict[str, str]], photos: Path, tiny_file: str, tmp_path: Path
) -> None:
    address, env = head
    result = subprocess.run(
        [RAY, "job", "submit", "--address", address, "--working-dir", ".", "--submission-id",
         "score-photos", "--", sys.executable, "-m", "jobs.score", str(photos), "--out",
         str(tmp_path / "run"), "--model", tiny_file, "--shard-size", "4"],
        env=env, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    output = result.stdout + result.stderr
    status = subprocess.run(
        [RAY, "job", "status", "--address", address, "score-photos"],
        env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    # The exit code of `submit` alone is not enough: it is 0 for a job that was stopped.
    assert "'score-photos' succeeded" in status.stdout, output
    assert "scored" in output
    results = gazecore.results.read.open(str(tmp_path / "run"))
    assert list(problems(results.run)) == []
    assert results.scores()["status"].to_pylist() == ["ok"] * 10
    assert env["RAY_AUTH_TOKEN"] not in output
