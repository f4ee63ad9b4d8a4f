"""Clusters of several nodes, which come and go while a run is on."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import ray
import structlog
from ray._private.internal_api import node_stats

import cluster.pool
from cluster import driver
from cluster.connection import plan_layout
from cluster.layout import ClusterConfig
from gazecore.errors import RunFailed
from gazecore.images.formats import Limits
from gazecore.images.listing import list_images
from gazecore.results.run import Run, RunSettings, begin_run
from gazecore.results.verify import problems
from gazecore.shards.planning import update_plan
from gazecore.shards.tally import Tally
from gazecore.storage import Location
from tests.nodes.conftest import Nodes
from tests.processes import descendants
from tests.sleeping import SleepingConfig, listed, notes

pytestmark = pytest.mark.filterwarnings(
    # Ray leaves sockets of nodes that it started to the garbage collector.
    "ignore:.*socket.socket:pytest.PytestUnraisableExceptionWarning"
)


def make_run(folder: Path, shards: int, name: str = "run") -> Run:
    """A run of shards of one image each."""
    images = listed(folder, shards)
    run = begin_run(
        Location(str(folder / name)), RunSettings(images, "none", "1024", 1, 4, Limits())
    )
    update_plan(run, list_images(images))
    return run


def until(holds: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)


class Working(threading.Thread):
    """A run that goes on while a test does things to the cluster."""

    def __init__(self, folder: Path, run: Run, config: ClusterConfig, **job: object) -> None:
        super().__init__(daemon=True)
        self.diary = folder / "diary"
        self.diary.mkdir(exist_ok=True)
        self.run_, self.config = run, config
        self.stage = SleepingConfig(run.location.uri, diary=str(self.diary), **job)
        self.tally, self.error = Tally(), None

    def run(self) -> None:
        try:
            layout = plan_layout(self.config, can_grow=True)
            self.tally = driver.run(self.run_, self.stage, layout=layout)
        except Exception as error:
            self.error = error

    def notes(self) -> list[dict]:
        return notes(self.diary)

    def on(self, node: ray._private.node.Node) -> list[dict]:
        """What was done on a node."""
        return [note for note in self.notes() if note["node"] == node.node_id]

    def finish(self, seconds: float = 90) -> Tally:
        self.join(seconds)
        assert not self.is_alive(), "the run did not end"
        if self.error:
            raise self.error
        assert list(problems(self.run_)) == []
        return self.tally


@contextmanager
def working(folder: Path, shards: int, config: ClusterConfig, **job: object) -> Iterator[Working]:
    thread = Working(folder, make_run(folder, shards), config, **job)
    thread.start()
    yield thread
    thread.join(60)


def test_models_are_pinned_to_gpus_and_reach_each_node_once(nodes: Nodes, tmp_path: Path) -> None:
    two, one, without = nodes.add(gpus=2), nodes.add(gpus=1), nodes.add()
    expected = {(two.node_id, "0"), (two.node_id, "1"), (one.node_id, "0")}
    weights = np.zeros(20 * 2**20, np.uint8)
    with working(tmp_path, 16, ClusterConfig(), seconds=0.3, payload=weights) as run:
        assert run.finish().ok == 16
    # One process on each GPU, all GPUs of all nodes, and none where there is no GPU.
    assert Counter((note["node"], note["gpu"]) for note in run.notes()).keys() == expected
    assert len({note["pid"] for note in run.notes()}) == 3
    # Each has its share of its node's eight cores.
    shares = {(note["node"], note["threads"]) for note in run.notes()}
    assert shares == {(two.node_id, 4), (one.node_id, 8)}

    halves = tmp_path / "halves"
    halves.mkdir()
    config = ClusterConfig(gpus_per_actor=0.5)
    with working(halves, 30, config, seconds=0.4, payload=weights) as run:
        until(lambda: len({note["pid"] for note in run.notes()}) == 6)
        # Six actors, and the job that they were given lies once in each store that needs it.
        stored = {
            node["NodeID"]: node_stats(
                node["NodeManagerAddress"], node["NodeManagerPort"]
            ).store_stats.object_store_bytes_used
            for node in ray.nodes()
            if node["Alive"]
        }
        assert 20 * 2**20 <= stored[two.node_id] < 40 * 2**20
        assert 20 * 2**20 <= stored[one.node_id] < 40 * 2**20
        assert stored[without.node_id] < 20 * 2**20
        assert run.finish().ok == 30
    on_gpu = Counter({(n["node"], n["gpu"], n["pid"]): 1 for n in run.notes()})
    assert Counter((node, gpu) for node, gpu, _ in on_gpu) == dict.fromkeys(expected, 2)


def test_a_run_waits_for_nodes_says_so_and_uses_those_that_join(
    nodes: Nodes, tmp_path: Path
) -> None:
    nodes.add(cpus=2)
    with (
        structlog.testing.capture_logs() as logs,
        # So many that an actor of the second half still finds work, however slow it is to start.
        working(tmp_path, 150, ClusterConfig("1:2", 1), seconds=0.3) as run,
    ):
        until(lambda: [log for log in logs if log["event"] == "waiting_for_room"], 10)
        assert not run.notes()
        first = nodes.add(gpus=1)
        until(lambda: run.on(first))
        second = nodes.add(gpus=2)
        until(lambda: len(run.on(second)) > 3)
        # Two at most at a time: a node with room for two has one until the other is lost.
        assert len({note["pid"] for note in run.on(second)}) == 1
        nodes.kill(first)
        assert run.finish().ok == 150
        assert run.tally.deaths >= 1
    assert len({note["pid"] for note in run.on(second)}) == 2


def test_a_run_with_too_few_actors_for_too_long_ends(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster.pool, "MAX_TOO_FEW", 5.0)
    with working(tmp_path, 2, ClusterConfig("1:2", 1), seconds=0) as run:
        with pytest.raises(RunFailed, match="only 0 of at least 1 actors"):
            run.finish()
        assert not run.notes()


def test_a_node_that_is_given_notice_finishes_its_shards_and_gets_no_more(
    nodes: Nodes, tmp_path: Path
) -> None:
    spot, other = nodes.add(gpus=1), nodes.add(gpus=1)
    with (
        structlog.testing.capture_logs() as logs,
        working(tmp_path, 90, ClusterConfig(), seconds=1.0) as run,
    ):
        until(lambda: run.on(spot) and run.on(other))
        with metadata_service() as (address, notice):
            watcher = subprocess.Popen(
                [sys.executable, "-m", "cluster.notice", "--metadata", address, "--address",
                 nodes.cluster.address, "--node-id", spot.node_id]
            )  # fmt: skip
            time.sleep(1)
            notice.set()
            assert watcher.wait(timeout=60) == 0
        until(lambda: [log for log in logs if log["event"] == "node_drains"])
        begun = len(run.on(spot)) + 2
        third = nodes.add(gpus=1)
        until(lambda: run.on(third))
        # Once its shards are done its actor goes, and the node ends by itself.
        until(lambda: spot.node_id not in {n["NodeID"] for n in ray.nodes() if n["Alive"]})
        assert len(run.on(spot)) <= begun
        assert run.finish().ok == 90
    assert run.tally.deaths == 0
    assert len(run.notes()) == 90  # nothing was done twice


@contextmanager
def metadata_service() -> Iterator[tuple[str, threading.Event]]:
    """What AWS gives each machine (IMDSv2); announces an end once the event is set."""
    notice = threading.Event()

    class Service(BaseHTTPRequestHandler):
        def answer(self, code: int, text: str) -> None:
            self.send_response(code)
            self.end_headers()
            self.wfile.write(text.encode())

        def do_PUT(self) -> None:
            self.answer(200, "a-token")

        def do_GET(self) -> None:
            if self.headers["X-aws-ec2-metadata-token"] != "a-token":
                self.answer(401, "")
            elif self.path.endswith("/spot/termination-time") and notice.is_set():
                end = datetime.now(UTC) + timedelta(seconds=100)
                self.answer(200, end.strftime("%Y-%m-%dT%H:%M:%SZ"))
            else:
                self.answer(404, "")

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", notice
    finally:
        server.shutdown()
        server.server_close()


def test_a_frozen_node_counts_as_dead_and_late_writes_do_no_harm(
    nodes: Nodes, tmp_path: Path
) -> None:
    frozen, _ = nodes.add(gpus=1), nodes.add(gpus=1)
    with working(tmp_path, 12, ClusterConfig(), seconds=1.5) as run, late_writer(run.run_) as late:
        until(lambda: run.on(frozen))
        raylet = frozen.all_processes["raylet"][0].process.pid
        pids = [raylet, *descendants(raylet)]
        actor = run.on(frozen)[0]["pid"]
        assert actor in pids
        try:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            assert run.finish().ok == 12
            before = files(tmp_path / "run")
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        assert run.tally.deaths == 1
        # The node that was given up ends once it wakes, its actor with it, perhaps after a last
        # write. A process that goes on, in the middle of a shard, is this one: it commits shard 0.
        until(lambda: not is_running(raylet) and not is_running(actor))
        assert late.poll() is None
        os.kill(late.pid, signal.SIGCONT)
        assert late.wait(timeout=30) == 0
    after = files(tmp_path / "run")
    assert after["scores/shard-000000.parquet"][1] > before["scores/shard-000000.parquet"][1]
    assert {name: data for name, (data, _) in after.items()} == {
        name: data for name, (data, _) in before.items()
    }
    assert list(problems(run.run_)) == []


def test_faults_on_purpose_cost_a_run_nothing(nodes: Nodes, tmp_path: Path) -> None:
    nodes.add(cpus=2)
    nodes.add(cpus=2)
    with working(tmp_path, 30, ClusterConfig(gpus_per_actor=0), seconds=0.5) as run:
        until(run.notes)
        ended = subprocess.run(
            [sys.executable, "-m", "tests.chaos.strike", "--address", nodes.cluster.address,
             "--faults", "2", "--every", "1", "--kinds", "actor"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        assert "ray::ShardActor" in ended.stdout
        assert run.finish().ok == 30
    assert run.tally.deaths >= 1


LATE = """
import os, signal, sys
from gazecore.shards.plan import shards
from gazecore.results.run import open_run
from gazecore.storage import Location
from gazecore.shards.pipeline import Pipeline
from tests.sleeping import SleepingConfig
shard = next(shards(open_run(Location(sys.argv[1]))))
config = SleepingConfig(sys.argv[1], 0)
stage = config.build()
done = Pipeline(stage, config.reading).process(shard.images)
os.kill(os.getpid(), signal.SIGSTOP)
stage.commit(shard.number, *done)
"""


@contextmanager
def late_writer(run: Run) -> Iterator[subprocess.Popen[bytes]]:
    """A process that freezes when it has computed the first shard, and commits it once it wakes."""
    process = subprocess.Popen([sys.executable, "-c", LATE, run.location.uri])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file below: its content, and when it was written."""
    return {
        str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns)
        for p in folder.rglob("*")
        if p.is_file()
    }


def is_running(pid: int) -> bool:
    """Whether a process is there, and not merely waits for its parent to notice its end."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
