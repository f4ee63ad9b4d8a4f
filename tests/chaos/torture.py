"""Runs that are tortured, and what became of them.

Each run scores images from an S3 server behind a faulty proxy, on a cluster of three nodes whose
actors, workers and nodes are ended or frozen, by a driver that is killed as well. Then the same
command goes on undisturbed. Then the run is compacted, by commands that are killed under the same
faults of the storage, and once undisturbed. Its files must be those of a run that nothing happened
to, and whoever asks in between must find each image once.

    python -m tests.chaos.torture [--images FOLDER] [--runs 20] [--seed 1] [--out torture.json]
"""

import argparse
import contextlib
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from moto.server import ThreadedMotoServer
from ray.cluster_utils import Cluster

from gazecore.results.query import query
from gazecore.results.run import open_run
from gazecore.results.times import NAME as TIMES
from gazecore.storage import Location
from tests.chaos.monkey import KINDS, Chaos, Kind
from tests.chaos.proxy import FaultyProxy, Rates
from tests.conftest import make_photo, tiny_bundle
from tests.processes import kill_tree

ROOT = Path(__file__).resolve().parents[2]
NODES = 3
PHOTOS = 40
MAX_COMMANDS = 3
COMMAND_SECONDS = 240
KILLS = 4
"""Compactions that are killed, if they take that long."""

BUCKET = "torture"
RATES = Rates(
    slow_down=0.03, reset=0.02, truncated=0.02, shortened=0.02, latency=0.005, expired=0.002
)
HEALTH = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 8,
}
FREEZE_SECONDS = 14.0
"""Longer than the health check's patience: the node comes back as one that is dead."""


@dataclass
class Outcome:
    """What became of a tortured run.

    Attributes:
        seed: that decided its faults.
        faults: how often each kind came.
        commands: how often the command was run until it ended well.
        lost, doubled: planned images without a row, or with more than one, at any time after the
            scoring.
        differing: files that are not those of the undisturbed run.
        seconds: from the first command to the last one's end.
        words: what the commands said last.
    """

    seed: int
    faults: Counter[str] = field(default_factory=Counter)
    commands: int = 0
    lost: int = 0
    doubled: int = 0
    differing: list[str] = field(default_factory=list)
    seconds: float = 0.0
    words: list[str] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """Whether nothing was lost, doubled, changed or left over."""
        return not (self.lost or self.doubled or self.differing)


class Torture:
    """Clusters of three nodes, an S3 server with images, and a run that nothing happened to."""

    def __init__(self, s3: Mapping[str, str], model: str, images: list[Path]) -> None:
        """Args: s3: environment that points at an S3 server; model: a bundle; images: what is
        scored."""
        self._model = model
        self._proxy = FaultyProxy(s3["AWS_ENDPOINT_URL"])
        self._proxy.__enter__()
        # Of this process, and so of the nodes that it starts.
        os.environ.update({**s3, "AWS_ENDPOINT_URL": self._proxy.url})
        self._client = boto3.client(
            "s3",
            endpoint_url=s3["AWS_ENDPOINT_URL"],
            aws_access_key_id=s3["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=s3["AWS_SECRET_ACCESS_KEY"],
            region_name="us-east-1",
        )
        self._client.create_bucket(Bucket=BUCKET)
        for path in images:
            self._client.upload_file(str(path), BUCKET, f"set/{path.name}")
        self._begin_cluster()
        for command in ("score", "compact"):
            process, log = self._start("undisturbed", command)
            assert process.wait(timeout=COMMAND_SECONDS) == 0, log.read_text()
        self._truth = self._files("undisturbed")

    def close(self) -> None:
        """End the cluster."""
        self._end_cluster()
        self._proxy.__exit__(None, None, None)

    def run(self, seed: int, kinds: tuple[Kind, ...] = KINDS, pause: float = 3.0) -> Outcome:
        """Torture one run: a fault about every `pause` seconds until it is done or the command has
        been started again too often. Each on a cluster of its own: Ray slows down with dead nodes.
        """
        self._end_cluster()
        self._begin_cluster()
        rng = random.Random(seed)
        outcome, name, started = Outcome(seed), f"run-{seed}", time.monotonic()
        chaos = Chaos(seed, FREEZE_SECONDS)
        self._proxy.seed, self._proxy.rates = seed, RATES
        self._proxy.faults.clear()
        for _ in range(MAX_COMMANDS):
            self._fill_up()
            if self._command(name, chaos, kinds, rng, pause, outcome) == 0:
                break
        self._proxy.rates = Rates()
        time.sleep(max(0, chaos.thawed - time.monotonic()))
        outcome.faults.update(self._proxy.faults)
        self._fill_up()
        process, log = self._start(name)
        outcome.commands += 1
        process.wait(timeout=COMMAND_SECONDS)
        outcome.words.append(_last_line(log))
        self._compact(name, rng, outcome)
        outcome.seconds = time.monotonic() - started
        self._judge(name, outcome)
        return outcome

    def _begin_cluster(self) -> None:
        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "_system_config": HEALTH},
        )
        ray.init(address=self._cluster.address, logging_level="ERROR", log_to_driver=False)
        self._fill_up()

    def _end_cluster(self) -> None:
        ray.shutdown()
        self._cluster.shutdown()

    def _command(
        self,
        name: str,
        chaos: Chaos,
        kinds: tuple[Kind, ...],
        rng: random.Random,
        pause: float,
        outcome: Outcome,
    ) -> int | None:
        """Run the command once under faults; its exit code, None if it was killed."""
        process, log = self._start(name)
        outcome.commands += 1
        deadline = time.monotonic() + COMMAND_SECONDS
        try:
            while time.monotonic() < deadline:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(timeout=rng.uniform(0.5, 1.5) * pause)
                if rng.random() < 0.2:
                    outcome.faults["driver"] += 1
                    return None
                fault = chaos.strike(kinds)
                if fault:
                    outcome.faults[fault.kind] += 1
                if fault and fault.kind in ("node", "freeze"):
                    self._fill_up()
            return None
        finally:
            kill_tree(process.pid)
            process.wait(timeout=30)
            outcome.words.append(_last_line(log))

    def _compact(self, name: str, rng: random.Random, outcome: Outcome) -> None:
        """Compact under faults, killed at any moment, and at last undisturbed."""
        for kills in range(KILLS, -1, -1):
            self._proxy.rates = RATES if kills else Rates()
            self._proxy.faults.clear()
            process, log = self._start(name, "compact")
            outcome.commands += 1
            patience = rng.uniform(0.5, 2.5) if kills else COMMAND_SECONDS
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=patience)
            if process.poll() is None:
                outcome.faults["compaction"] += 1
                kill_tree(process.pid)
                process.wait(timeout=30)
            outcome.words.append(_last_line(log))
            outcome.faults.update(self._proxy.faults)
            self._proxy.rates = Rates()
            time.sleep(self._proxy.expired_seconds)
            run = open_run(Location(f"s3://{BUCKET}/runs/{name}"))
            rows = Counter(query(run, "SELECT image_id FROM scores")[0].to_pylist())
            planned = Counter(_ids(self._truth))
            outcome.lost += (planned - rows).total()
            outcome.doubled += (rows - planned).total()

    def _start(self, name: str, what: str = "score") -> tuple[subprocess.Popen[bytes], Path]:
        log = Path(tempfile.mkstemp(prefix="gazecore-torture-")[1])
        run = f"s3://{BUCKET}/runs/{name}"
        command = [sys.executable, "-m", "jobs", what]
        if what == "compact":
            command += [run, "--densities"]
        else:
            command += [
                f"s3://{BUCKET}/set", "--model", self._model, "--out", run, "--shard-size", "4",
                "--actors", str(NODES), "--gpus-per-actor", "0", "--address", self._cluster.address,
            ]  # fmt: skip
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, cwd=ROOT, start_new_session=True, stdout=file, stderr=subprocess.STDOUT
            )  # fmt: skip
        return process, log

    def _fill_up(self) -> None:
        """Start nodes in the place of those that ended."""
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        for node in list(self._cluster.worker_nodes):
            if node.node_id not in alive:
                self._cluster.remove_node(node, allow_graceful=False)
        while len(self._cluster.worker_nodes) < NODES:
            self._cluster.add_node(num_cpus=1)

    def _files(self, name: str) -> dict[str, bytes]:
        """Every object under a run but its commands' times, by its name."""
        prefix = f"runs/{name}/"
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        return {
            key.removeprefix(prefix): self._client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
            for key in keys
            if key != f"{prefix}{TIMES}"
        }

    def _judge(self, name: str, outcome: Outcome) -> None:
        found = self._files(name)
        outcome.differing = sorted(
            key for key in found.keys() | self._truth.keys()
            if found.get(key) != self._truth.get(key)
        )  # fmt: skip
        planned, rows = Counter(_ids(self._truth)), Counter(_ids(found))
        outcome.lost += (planned - rows).total()
        outcome.doubled += (rows - planned).total()


def _ids(files: Mapping[str, bytes]) -> Iterator[str]:
    """The image of every row of a run's scores."""
    for key, data in files.items():
        if key.startswith("scores/"):
            yield from pq.read_table(pa.BufferReader(data), columns=["image_id"])[0].to_pylist()


def _last_line(log: Path) -> str:
    lines = log.read_text().strip().splitlines() or ["nothing"]
    log.unlink()
    return lines[-1][:200]


def table(outcomes: list[Outcome]) -> str:
    """Faults and what became of the runs, as Markdown."""
    kinds = sorted({kind for outcome in outcomes for kind in outcome.faults})
    lines = [
        "| fault | injected | runs that met it | rows lost | rows doubled | files that differ |",
        "|---|---|---|---|---|---|",
    ]
    for kind in [*kinds, "all"]:
        met = [o for o in outcomes if kind == "all" or o.faults[kind]]
        count = sum(o.faults.total() if kind == "all" else o.faults[kind] for o in met)
        lost, doubled = sum(o.lost for o in met), sum(o.doubled for o in met)
        differing = sum(len(o.differing) for o in met)
        lines.append(f"| {kind} | {count} | {len(met)} | {lost} | {doubled} | {differing} |")
    return "\n".join(lines)


@contextlib.contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """An S3 protocol server on this machine; yields the environment that points at it."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for every request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "torture",
            "AWS_SECRET_ACCESS_KEY": "torture",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    finally:
        server.stop()


def main() -> None:
    """Torture runs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, help="a folder of more images, hostile ones say")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("torture.json"))
    arguments = parser.parse_args()
    outcomes: list[Outcome] = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        model = folder / "tiny.safetensors"
        model.write_bytes(tiny_bundle())
        for seed in range(PHOTOS):
            make_photo(seed).save(folder / f"photo-{seed:02d}.jpg")
        images = [*folder.glob("*.jpg"), *(arguments.images.iterdir() if arguments.images else [])]
        s3 = stack.enter_context(s3_server())
        torture = stack.enter_context(contextlib.closing(Torture(s3, str(model), images)))
        for seed in range(arguments.seed, arguments.seed + arguments.runs):
            outcome = torture.run(seed)
            outcomes.append(outcome)
            print(
                f"seed {seed}: {outcome.faults.total()} faults, {outcome.commands} commands, "
                f"{outcome.seconds:.0f} s, {'sound' if outcome.is_sound else 'NOT SOUND'}",
                flush=True,
            )
            rows = [{**vars(outcome), "faults": dict(outcome.faults)} for outcome in outcomes]
            arguments.out.write_text(json.dumps(rows, indent=1))
    print(table(outcomes))
    sys.exit(0 if all(outcome.is_sound for outcome in outcomes) else 1)


if __name__ == "__main__":
    main()
