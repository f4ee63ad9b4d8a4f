import dataclasses
import io
import ipaddress
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
from typing import Any

import psutil
import pytest
from PIL import Image

import gazecore.results.reader
from gazecore.model.bundle import load_bundle
from gazecore.results.verify import problems
from gazecore.storage import Location
from tests.gazecore.test_training import make_corpus
from tests.jobs.conftest import ROOT, words
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


@pytest.fixture(scope="module")
def started(s3_server: dict[str, str]) -> Iterator[tuple[str, dict[str, str], int]]:
    """A cluster started with `ray start --head`, token authentication on: address, env, process."""
    # Ray's sockets need a short path, shorter than pytest's own folders.
    folder = tempfile.mkdtemp(prefix="gz-")
    gcs, dashboard, client, agent, agent_grpc = free_ports(5)
    env = {
        **os.environ,
        **s3_server,
        "HOME": folder,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # else Ray listens beyond 127.0.0.1
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
        yield address, env, server.pid
    finally:
        kill_tree(server.pid)
        server.wait(timeout=20)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def head(started: tuple[str, dict[str, str], int]) -> tuple[str, dict[str, str]]:
    """Its address and env."""
    return started[:2]


def submit(head: tuple[str, dict[str, str]], name: str, *command: str) -> str:
    """Run a job to its end; returns what it printed."""
    address, env = head
    result = subprocess.run(
        [RAY, "job", "submit", "--address", address, "--working-dir", ".", "--submission-id",
         name, "--", sys.executable, "-m", *command],
        env=env, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    output = result.stdout + result.stderr
    status = subprocess.run(
        [RAY, "job", "status", "--address", address, name],
        env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    # The exit code of `submit` alone is not enough: it is 0 for a job that was stopped.
    assert f"'{name}' succeeded" in status.stdout, output
    assert env["RAY_AUTH_TOKEN"] not in output
    assert "planted" not in output
    return output


@pytest.mark.slow
def test_a_ray_for_this_machine_alone_listens_nowhere_else(
    started: tuple[str, dict[str, str], int],
) -> None:
    ray_start = psutil.Process(started[2])
    listening = {
        (process.name(), connection.laddr.ip)
        for process in [ray_start, *ray_start.children(recursive=True)]
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {"gcs_server", "raylet"} <= {name for name, _ in listening}
    # gRPC writes IPv4's as IPv6.
    assert all(
        ipaddress.ip_address(address.removeprefix("::ffff:")).is_loopback
        for _, address in listening
    )


@pytest.mark.slow
def test_ray_job_submit_scores_a_folder(
    head: tuple[str, dict[str, str]], photos: Path, tiny_file: str, tmp_path: Path
) -> None:
    output = submit(
        head, "score-photos", "jobs.score", str(photos), "--out", str(tmp_path / "run"),
        "--model", tiny_file, "--shard-size", "4",
    )  # fmt: skip
    assert "scored" in output
    results = gazecore.results.reader.open_results(str(tmp_path / "run"))
    assert list(problems(results.run)) == []
    assert results.scores["status"].to_pylist() == ["ok"] * 10


@pytest.mark.slow
def test_ray_job_submit_trains_from_s3_to_s3(
    head: tuple[str, dict[str, str]],
    s3_client: Any,
    tmp_path: Path,
) -> None:
    s3_client.create_bucket(Bucket="study")
    corpus = make_corpus(tmp_path)
    rows = corpus.images.to_pylist()
    for row in rows:
        s3_client.upload_file(row["uri"], "study", f"stimuli/{row['image_id']}")
        row["uri"] = f"s3://study/stimuli/{row['image_id']}"
    in_bucket = dataclasses.replace(corpus, images=corpus.images.from_pylist(rows))
    in_bucket.save(Location("s3://study/corpus"))
    submit(head, "features", "jobs.features", "s3://study/corpus", "--out", "s3://study/cache",
           "--backbone", "tiny")  # fmt: skip
    output = submit(
        head, "train", "jobs.train", "s3://study/cache", "--out", "s3://study/model/m.safetensors",
        "--folds", "3", "--members", "1", "--training.epochs", "2",
    )  # fmt: skip
    assert "training member 3/3 epoch 2/2" in words(output)
    bundle = load_bundle("s3://study/model/m.safetensors")
    assert bundle.readout.config.members == 3
    scores = Location("s3://study/model/out_of_fold.parquet").read_table()
    assert scores.num_rows == corpus.images.num_rows
    progress = Location("s3://study/model/m.training/progress.parquet").read_table()
    assert progress.num_rows == 6
    curves = Location("s3://study/model/m.training/curves.png").read_bytes()
    assert Image.open(io.BytesIO(curves)).size[0] > 500
    run = gazecore.results.reader.open_results("s3://study/model/out_of_fold").run
    assert list(problems(run)) == []
    for item in s3_client.list_objects_v2(Bucket="study")["Contents"]:
        body = s3_client.get_object(Bucket="study", Key=item["Key"])["Body"].read()
        assert b"planted" not in body
        assert not item["Key"].endswith(".tmp")
