"""What a run costs its driver, by the number of planned images; and its storage, by shard.

Plan, score (images that nobody reads, at full speed), go on, status and verify, each in a process
of its own. Of the shards one in `--part` is scored: an interruption ends each of the two runs.

    python -m benchmarks.scale [--images 100000 1000000 10000000] [--part 64]
"""

import argparse
import itertools
import json
import logging
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import boto3
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from moto.server import ThreadedMotoServer

from benchmarks.environment import report
from tests.chaos.proxy import FaultyProxy
from tests.conftest import make_photo, tiny_bundle

MAX_SLOPE = 1.1
"""Of log seconds over log images, between the two largest sizes: 1 is linear."""

MAX_MB = 2048
ACTORS = 2
STEPS = ("plan", "score", "go on", "status", "verify")


class Enough(Exception):
    """The run is interrupted here."""


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[10**5, 10**6, 10**7])
    parser.add_argument("--part", type=int, default=64)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        folder, shards = arguments.child
        print(json.dumps(child(Path(folder), int(shards))))
        return
    rows = []
    for images in arguments.images:
        with tempfile.TemporaryDirectory() as name:
            rows.append(measure(Path(name), images, arguments.part))
            print(rows[-1], file=sys.stderr, flush=True)
    slopes = {
        step: round(slope(rows[-2], rows[-1], step), 2) for step in STEPS if len(rows) > 1
    }  # fmt: skip
    largest = max(row[step]["peak_mb"] for row in rows for step in STEPS)
    sound = all(row["rows"] == row["done"] * 256 and row["wrong"] == 0 for row in rows)
    report(
        "scale", rows=rows, slopes=slopes, requests=requests(), table=table(rows, slopes),
        gate={
            "every_image_once": sound, "slope_limit": MAX_SLOPE, "mb_limit": MAX_MB,
            "holds": sound and max(slopes.values(), default=0) <= MAX_SLOPE and largest <= MAX_MB,
        },
    )  # fmt: skip


def measure(folder: Path, images: int, part: int) -> dict:
    """Seconds and memory of each step for one number of images."""
    uris = (f"s3://bucket/photos/{n % 997:03d}/{n:012d}.jpg" for n in range(images))
    with pq.ParquetWriter(folder / "list.parquet", pa.schema({"uri": pa.string()})) as writer:
        while chunk := list(itertools.islice(uris, 100_000)):
            writer.write_table(pa.table({"uri": chunk}))
    sample = max(2, math.ceil(images / 256 / part / 2))
    row: dict = {"images": images}
    me = [sys.executable, "-m", "benchmarks.scale", "--child", str(folder)]
    for step, shards in (("plan", 0), ("score", sample), ("go on", sample)):
        row[step], output = timed([*me, str(shards)])
        row[step] |= json.loads(output.splitlines()[-1])
    run = str(folder / "run")
    row["status"], _ = timed([sys.executable, "-m", "jobs", "status", run])
    row["verify"], said = timed([sys.executable, "-m", "jobs", "verify", run], {0, 1})
    # Shards that are missing were meant to be; everything else would be wrong.
    row["wrong"] = sum(
        not re.search("not scored| problems in |is complete", line) for line in said.splitlines()
    )
    files = list((folder / "run" / "scores").iterdir())
    row["done"] = len(files)
    row["rows"] = len({i for f in files for i in pq.read_table(f)["image_id"].to_pylist()})
    return row


def timed(command: list[str], fine: set[int] | None = None) -> tuple[dict[str, float], str]:
    """Seconds and peak memory of a process, and what it printed."""
    peak = 0
    with tempfile.TemporaryFile("w+") as file:
        start = time.perf_counter()
        process = psutil.Popen(command, stdout=file)
        while process.poll() is None:
            peak = max(peak, high_water(process.pid))
            time.sleep(0.05)
        seconds = time.perf_counter() - start
        assert process.returncode in (fine or {0}), command
        file.seek(0)
        return {"seconds": round(seconds, 1), "peak_mb": peak // 1024}, file.read()


def high_water(pid: int) -> int:
    """The most memory that a process has held, KiB. (`ru_maxrss` would count its parent's too.)"""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def child(folder: Path, wanted: int) -> dict[str, float]:
    """Plan as the command does, and commit so many shards."""
    import jobs.score  # noqa: F401  (its memory counts)
    from cluster import driver
    from cluster.connection import connected
    from cluster.layout import ActorLayout
    from gazecore.images.formats import Limits
    from gazecore.images.listing import list_images
    from gazecore.results.run import RunSettings, begin_run
    from gazecore.shards.plan import images_in
    from gazecore.shards.planning import update_plan
    from gazecore.shards.tally import Tally
    from gazecore.storage import Location
    from tests.sleeping import SleepingConfig

    settings = RunSettings(str(folder / "list.parquet"), "model", "1024", 256, 4, Limits())
    start = time.perf_counter()
    run = begin_run(Location(str(folder / "run")), settings)
    update_plan(run, list_images(settings.input))
    images_in(run, run.shards_done())
    planned = time.perf_counter()
    facts = {"planning_seconds": round(planned - start, 1)}
    if not wanted:
        return facts
    seen: list[tuple[float, int]] = []

    def on_report(tally: Tally) -> None:
        seen.append((time.perf_counter(), tally.shards))
        if tally.shards >= wanted:
            raise Enough

    with connected("local", spare_cpus=ACTORS):
        begun = time.perf_counter()
        try:
            layout = ActorLayout(ACTORS, 0, 1)
            driver.run(run, SleepingConfig(run.location.uri, 0), on_report, layout=layout)
        except Enough:
            pass
    first = next(when for when, shards in seen if shards)
    return facts | {"until_work_began_seconds": round(first - begun, 1)}


def slope(small: dict, large: dict, step: str) -> float:
    """How the seconds grow: 1 is linear."""
    growth = math.log(large["images"] / small["images"])
    return math.log(large[step]["seconds"] / small[step]["seconds"]) / growth


def table(rows: list[dict], slopes: dict[str, float]) -> str:
    """Images against seconds and megabytes, as Markdown."""
    lines = [
        "| images | " + " | ".join(f"{step}, s | MB" for step in STEPS) + " |",
        "|---" * (1 + 2 * len(STEPS)) + "|",
    ]
    for row in rows:
        cells = (f"{row[s]['seconds']:.0f} | {row[s]['peak_mb']}" for s in STEPS)
        lines.append(f"| {row['images']:,} | " + " | ".join(cells) + " |")
    if slopes:
        cells = (f"{slopes[step]:.2f} | " for step in STEPS)
        lines.append("| slope | " + " | ".join(cells) + "|")
    return "\n".join(lines)


def requests(few: int = 10, many: int = 30, size: int = 16) -> dict[str, dict[str, float]]:
    """Storage requests of the real commands on S3, for each more shard of `size` images."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for every request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {"AWS_ACCESS_KEY_ID": "scale", "AWS_SECRET_ACCESS_KEY": "scale"}
    os.environ["AWS_DEFAULT_REGION"] = "us-east-1"
    try:
        with FaultyProxy(f"http://{host}:{port}") as proxy:
            first, second = (requested(proxy, shards, size) for shards in (few, many))
    finally:
        server.stop()
    return {
        step: {
            kind: round((second[step][kind] - first[step][kind]) / (many - few), 2)
            for kind in sorted(second[step])
        }
        for step in second
    }


def requested(proxy: FaultyProxy, shards: int, size: int) -> dict[str, Counter[str]]:
    """How often each kind of request came in each command on a set of so many shards."""
    bucket = f"scale-{shards}"
    client = boto3.client("s3", endpoint_url=f"http://{proxy.target}")
    client.create_bucket(Bucket=bucket)
    counts = {}
    with tempfile.TemporaryDirectory() as name:
        model, photo = Path(name) / "tiny.safetensors", Path(name) / "photo.jpg"
        model.write_bytes(tiny_bundle())
        make_photo(1).save(photo)
        for number in range(shards * size):
            client.upload_file(str(photo), bucket, f"set/{number}.jpg")
        run = f"s3://{bucket}/run"
        score = ["score", f"s3://{bucket}/set", "--out", run, "--model", str(model),
                 "--shard-size", str(size)]  # fmt: skip
        steps = {"score": score, "go on": score, "status": ["status", run],
                 "verify": ["verify", run]}  # fmt: skip
        for step, arguments in steps.items():
            proxy.requests.clear()
            subprocess.run(
                [sys.executable, "-m", "jobs", *arguments], check=True, capture_output=True,
                env={**os.environ, "AWS_ENDPOINT_URL": proxy.url},
            )  # fmt: skip
            counts[step] = Counter(proxy.requests)
    return counts


if __name__ == "__main__":
    main()
