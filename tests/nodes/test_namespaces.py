"""`ray start` on three machines, each in a network namespace, so that its network can fail."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from gazecore.results.verify import problems
from tests.nodes.test_nodes import files, make_run, until
from tests.processes import kill_tree
from tests.sleeping import notes

RAY = str(Path(sys.executable).parent / "ray")
HEAD = "10.213.77.1"
WORKERS = ("10.213.77.2", "10.213.77.3")
NAMES = [f"gz{os.getpid()}-{number}" for number in range(3)]
ENV = {
    **os.environ,
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
}

DRIVER = """
import json, socket, sys, time
from cluster.layout import ClusterConfig
from cluster.connection import connected, nodes_in_use, plan_layout
from cluster import driver
from gazecore.results.run import open_run
from gazecore.storage import Location
from tests.sleeping import SleepingConfig
address, run, diary = sys.argv[1:]
host, port = address.split(":")
with socket.socket() as probe:
    while probe.connect_ex((host, int(port))):
        time.sleep(0.2)
with connected(address) as can_grow:
    while len(nodes_in_use()) < 3:
        time.sleep(0.2)
    layout = plan_layout(ClusterConfig(), can_grow)
    stage = SleepingConfig(run, 1.0, diary)
    tally = driver.run(open_run(Location(run)), stage, layout=layout)
print(json.dumps([tally.ok, tally.deaths]))
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def inside(name: str, *command: str) -> list[str]:
    return ["ip", "netns", "exec", name, *command]


@pytest.fixture
def namespaces() -> Iterator[list[str]]:
    """Three namespaces; the first has a bridge to which the others' only links lead."""
    if not shutil.which("ip"):
        pytest.skip("there is no `ip` command here")
    with ExitStack() as stack:
        try:
            for name in NAMES:
                ip("netns", "add", name)
                stack.callback(ip, "netns", "del", name)
                ip("-n", name, "link", "set", "lo", "up")
            ip("-n", NAMES[0], "link", "add", "br0", "type", "bridge")
            ip("-n", NAMES[0], "addr", "add", f"{HEAD}/24", "dev", "br0")
            ip("-n", NAMES[0], "link", "set", "br0", "up")
            for number, (name, address) in enumerate(zip(NAMES[1:], WORKERS, strict=True)):
                ip("-n", NAMES[0], "link", "add", f"w{number}", "type", "veth", "peer", "name",
                   "eth0", "netns", name)  # fmt: skip
                ip("-n", NAMES[0], "link", "set", f"w{number}", "master", "br0", "up")
                ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
                ip("-n", name, "link", "set", "eth0", "up")
            # Ray takes a machine's address from its default route; these lead nowhere.
            for name, device in zip(NAMES, ("br0", "eth0", "eth0"), strict=True):
                ip("-n", name, "route", "add", "default", "dev", device)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
        yield NAMES


@contextmanager
def ray_start(name: str, address: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A node; ends with its processes."""
    process = subprocess.Popen(
        inside(name, RAY, "start", "--block", f"--node-ip-address={address}",
               "--object-store-memory=80000000", *arguments),
        env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        kill_tree(process.pid)
        process.wait(timeout=20)


def test_a_node_whose_network_fails_loses_its_shards_and_its_late_writes_do_no_harm(
    namespaces: list[str], tmp_path: Path
) -> None:
    run, diary = make_run(tmp_path, 36), tmp_path / "diary"
    diary.mkdir()
    folder = tempfile.mkdtemp(prefix="gz-")  # Ray's sockets need a short path
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.enter_context(ray_start(
            namespaces[0], HEAD, "--head", "--port=6379", "--num-cpus=0",
            "--include-dashboard=false", f"--temp-dir={folder}/r",
        ))  # fmt: skip
        # One after the other: they share a folder of sockets, in which each takes a name.
        sockets = Path(folder, "r", "session_latest", "sockets")
        for number, address in enumerate(WORKERS, 1):
            until((sockets / f"raylet.{number - 1}".removesuffix(".0")).exists)
            name = namespaces[number]
            stack.enter_context(ray_start(name, address, f"--address={HEAD}:6379", "--num-cpus=2"))
        driver = stack.enter_context(driving(namespaces[0], run.location.path, diary))
        until(lambda: len({note["node"] for note in notes(diary)}) == 2, 150)
        ip("-n", namespaces[0], "link", "set", "w1", "down")
        out, _ = driver.communicate(timeout=150)
        assert driver.returncode == 0
        ok, deaths = json.loads(out.splitlines()[-1])
        assert (ok, deaths) == (36, 1)
        assert list(problems(run)) == []
        before = files(tmp_path / "run")
        ip("-n", namespaces[0], "link", "set", "w1", "up")
        time.sleep(3)
    after = files(tmp_path / "run")
    assert {name: data for name, (data, _) in after.items()} == {
        name: data for name, (data, _) in before.items()
    }
    # The node went on when it was cut off: some shards were committed by both.
    shards = [note["shard"] for note in notes(diary)]
    assert len(shards) > len(set(shards)) == 36


@contextmanager
def driving(name: str, run: str, diary: Path) -> Iterator[subprocess.Popen[str]]:
    """A driver on the head's machine."""
    process = subprocess.Popen(
        inside(name, sys.executable, "-c", DRIVER, f"{HEAD}:6379", run, str(diary)),
        env=ENV, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        kill_tree(process.pid)
        process.wait(timeout=20)
