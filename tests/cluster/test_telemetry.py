"""What people and Prometheus see of a run: figures, log lines, the dashboard's queries."""

import json
import logging
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import ray

import cluster.actors
from cluster import driver
from cluster.actors import ShardActor
from cluster.layout import ActorLayout
from cluster.progress import ProgressReport, summary_rows
from cluster.telemetry import FIGURES, Telemetry, exported
from gazecore.scoring import ScoringConfig
from gazecore.shards.clock import PHASES
from gazecore.shards.stage import StageConfig
from gazecore.shards.tally import Tally
from jobs.console import err
from tests.cluster.test_scoring import make_run

ROOT = Path(__file__).resolve().parents[2]


class TalkativeActor(ShardActor):
    """An actor in whose process a library logs a warning of its own."""

    def __init__(self, config: StageConfig, threads: int, gpu: bool) -> None:
        super().__init__(config, threads, gpu)
        logging.getLogger("a.library").warning("a library speaks")


def scrape(port: int, run: str, shards: int, seconds: float = 60) -> str:
    """What the node tells Prometheus, once it tells of so many shards of a run, and every figure of
    it is there; Ray collects every 10 s."""
    text, deadline = "", time.monotonic() + seconds
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        if all(samples(text, name, run=run) for name in FIGURES) and (
            sum(samples(text, "gazecore_shards", run=run)) == shards
        ):
            return text
        time.sleep(0.5)
    pytest.fail(f"not every figure appears within {seconds} s")


def samples(text: str, name: str, **labels: str) -> list[float]:
    """The samples of a figure with these labels."""
    lines = re.findall(rf"^{exported(name)}\{{(.*)\}} (.*)$", text, flags=re.MULTILINE)
    wanted = [f'{key}="{content}"' for key, content in labels.items()]
    return [float(n) for text_, n in lines if all(label in text_ for label in wanted)]


def value(text: str, name: str, **labels: str) -> float:
    """The sum of the samples of a figure with these labels."""
    found = samples(text, name, **labels)
    assert found, (name, labels)
    return sum(found)


def actor_lines(run: str) -> list[str]:
    """What the actors of a run wrote to their logs, without Ray's own marks."""
    folder = Path(ray._private.worker._global_node.get_session_dir_path()) / "logs"
    texts = [path.read_text() for path in folder.glob("worker-*.err")]
    lines = "".join(text for text in texts if run in text).splitlines()
    return [line for line in lines if line and not line.startswith(":")]


@pytest.mark.usefixtures("ray_cluster")
def test_prometheus_and_the_logs_tell_what_a_run_did(
    photos: Path, tmp_path: Path, tiny_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster.actors, "ShardActor", TalkativeActor)
    run = make_run(tmp_path / "run", photos)
    (photos / "a" / "photo-1.jpg").write_bytes(b"no picture")
    where = run.location.uri
    stage = ScoringConfig(where, run.settings, tiny_bytes)
    scraped = {}

    def report(tally: Tally) -> None:
        progress(tally)
        if tally.shards == 4 and not scraped:  # while the actor still lives
            port = next(node["MetricsExportPort"] for node in ray.nodes() if node["Alive"])
            scraped["text"] = scrape(port, where, 4)

    with ProgressReport("scoring", 10, err, 0, Telemetry(where)) as progress:
        tally = driver.run(run, stage, report, layout=ActorLayout(1, 0, 1))
        report(tally)
    text = scraped["text"]
    assert value(text, "gazecore_images", run=where, status="ok") == 9
    assert value(text, "gazecore_images", run=where, status="failed") == 1
    assert value(text, "gazecore_failed_images", run=where, error="decode_error") == 1
    assert value(text, "gazecore_shards", run=where) == 4
    read = sum(path.stat().st_size for path in photos.rglob("*.jpg"))
    assert value(text, "gazecore_read_bytes", run=where) == read == tally.times.bytes_read
    for stage in PHASES:
        seconds = value(text, "gazecore_stage_seconds", run=where, stage=stage)
        assert seconds == pytest.approx(tally.times.seconds[stage]), stage
        assert seconds <= value(text, "gazecore_stage_room_seconds", run=where, stage=stage)
    for name, (kind, _, _) in FIGURES.items():
        assert f"# TYPE {exported(name)} {kind.__name__.lower()}" in text
    assert "network" in dict(summary_rows(tally, "scored", 0, 1.0))

    lines = [json.loads(line) for line in actor_lines(where)]
    ours = [line for line in lines if line["run"] == where]
    assert len(ours) == len(lines)
    assert sorted(line["shard"] for line in ours if line["event"] == "shard_done") == [0, 1, 2, 3]
    assert sum(line.get("ok", 0) for line in ours) == 9
    assert [line["level"] for line in ours if line["event"] == "a library speaks"] == ["warning"]


def test_the_last_words_name_shards_that_were_not_done_but_not_without_end() -> None:
    rows = summary_rows(Tally(failed_shards=dict.fromkeys(range(25), "why")), "scored", 0, 1.0)
    told = [text for label, text in rows if label == "not done"]
    assert told[0] == "shard 0: why; the same command tries it again"
    assert len(told) == 21
    assert told[-1].startswith("5 more shards")


def test_log_lines_are_json_where_there_is_no_terminal_and_name_run_and_shard() -> None:
    program = (
        "import logging, structlog; from cluster.logs import configure_logging;"
        "configure_logging('s3://b/run'); log = structlog.get_logger();"
        "log.info('progress', images=3);"
        "structlog.contextvars.bind_contextvars(shard=5); log.warning('actor_died');"
        "logging.getLogger('x').warning('one %s', 'line')"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    assert [line.pop("timestamp")[:2] for line in lines] == ["20"] * 3
    assert lines == [
        {"run": "s3://b/run", "level": "info", "event": "progress", "images": 3},
        {"run": "s3://b/run", "level": "warning", "event": "actor_died", "shard": 5},
        {"run": "s3://b/run", "level": "warning", "event": "one line", "shard": 5},
    ]
