"""Questions to a run of many shards on an S3 server, before and after it is compacted.

    python -m benchmarks.compaction [--shards 4000 40000] [--rows 256] [--kills 10]

The runs' rows are made by numpy and written in the contract's schema; the server is rclone's, on
the same machine, whose time counts: it looks at all files of a folder for each thousand that it
lists. The compaction of the larger one is killed at random while a
reader counts. Seconds at 10^8 rows are a straight line through the two sizes, drawn further.
"""

import argparse
import contextlib
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.environment import report
from benchmarks.feed import s3_server
from gazecore.images.formats import Limits
from gazecore.images.listing import LISTED
from gazecore.results.compacted import sources
from gazecore.results.files import list_files
from gazecore.results.query import query
from gazecore.results.run import Run, RunSettings, begin_run, open_run
from gazecore.results.schema import DENSITIES, SCORES
from gazecore.results.status import run_status
from gazecore.shards.directory import shard_name
from gazecore.shards.planning import update_plan
from gazecore.storage import Location, parquet_bytes

BUCKET = "runs"
GROUP_BY = (
    "SELECT error, count(*) AS images, avg(information_bits) AS bits FROM scores "
    "GROUP BY 1 ORDER BY images"
)
COUNT = "SELECT count(*) AS n, count(DISTINCT image_id) AS ids FROM scores"
FAR = 10**8


def image_ids(first: int, count: int) -> list[str]:
    """In an order that is not theirs, as a list may have them."""
    return [f"{(i * 7919) % 1000:03d}/{i:010d}.jpg" for i in range(first, first + count)]


def listing(images: int) -> Iterator[pa.RecordBatch]:
    for first in range(0, images, 65_536):
        ids = image_ids(first, min(65_536, images - first))
        uris = [f"s3://photos/{i}" for i in ids]
        nothing = [pa.nulls(len(ids), field.type) for field in list(LISTED)[2:]]
        yield pa.record_batch([pa.array(ids), pa.array(uris), *nothing], schema=LISTED)


def score_table(shard: int, rows: int) -> pa.Table:
    """A shard's scores: one image in fifty failed."""
    rng = np.random.default_rng(shard)
    ids = image_ids(shard * rows, rows)
    failed = rng.random(rows) < 0.02
    columns: list[pa.Array] = []
    for field in SCORES:
        if pa.types.is_floating(field.type):
            columns.append(pa.array(rng.random(rows, dtype=np.float32), mask=failed))
        elif pa.types.is_integer(field.type):
            columns.append(pa.array(rng.integers(1, 900, rows), field.type, mask=failed))
        elif pa.types.is_list(field.type):
            one = [dict.fromkeys(("x", "y", "height", "share"), 0.5)]
            values = [None if gone else one * 3 for gone in failed]
            columns.append(pa.array(values, field.type))
        elif field.name == "image_id":
            columns.append(pa.array(ids))
        elif field.name == "uri":
            columns.append(pa.array([f"s3://photos/{i}" for i in ids]))
        elif field.name == "status":
            columns.append(pa.array(np.where(failed, "failed", "ok")))
        else:
            columns.append(pa.array(np.full(rows, "not_found"), mask=~failed))
    return pa.Table.from_arrays(columns, schema=SCORES)


def write_shards(root: str, rows: int, first: int, last: int) -> None:
    folder = Location(root) / "scores"
    for shard in range(first, last):
        data = parquet_bytes(score_table(shard, rows), use_dictionary=["status", "error"])
        Path(folder.path, shard_name(shard)).write_bytes(data)


def make_run(folder: Path, shards: int, rows: int) -> None:
    """A run whose every shard is done; of its densities there is one empty file."""
    settings = RunSettings("s3://photos", "model", "1024", rows, 4, Limits())
    run = begin_run(Location(str(folder)), settings)
    update_plan(run, listing(shards * rows))
    (run.densities / shard_name(0)).publish(parquet_bytes(DENSITIES.empty_table()))
    Path(run.scores.path).mkdir()
    half = shards // 2
    halves = [(str(folder), rows, 0, half), (str(folder), rows, half, shards)]
    with get_context("spawn").Pool(2) as pool:
        pool.starmap(write_shards, halves)


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    answer = work()
    return round(time.perf_counter() - started, 2), answer


def compaction(uri: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "jobs", "compact", uri], stdout=subprocess.DEVNULL
    )


def killed_while_counted(run: Run, kills: int, images: int) -> dict[str, Any]:
    """Kill the compaction again and again, then let it end, while a reader counts."""
    rng, counts, is_over = random.Random(3), [], threading.Event()
    wrong: list[Any] = []

    def count() -> None:
        while not is_over.is_set():
            found = query(run, COUNT).to_pylist()
            counts.append(found)
            if found != [{"n": images, "ids": images}]:
                wrong.append(found)

    reader = threading.Thread(target=count)
    reader.start()
    killed, started = 0, time.perf_counter()
    try:
        while killed < kills:
            process = compaction(run.location.uri)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=rng.uniform(1, 20))
            if process.poll() is not None:
                break
            process.kill()
            process.wait()
            killed += 1
        assert compaction(run.location.uri).wait() == 0
        took = time.perf_counter() - started
        wanted = len(counts) + 2
        while len(counts) < wanted and reader.is_alive():
            time.sleep(0.1)
    finally:
        is_over.set()
        reader.join()
    assert sources(run, "scores").shards == []
    return {"kills": killed, "counts": len(counts), "wrong": wrong, "seconds": round(took, 1)}


def measure(run: Run, images: int, kills: int) -> dict[str, Any]:
    before, answer = seconds(lambda: query(run, GROUP_BY).to_pylist())
    status_before, status = seconds(lambda: run_status(run))
    if kills:
        made = killed_while_counted(run, kills, images)
    else:
        took, code = seconds(lambda: compaction(run.location.uri).wait())
        assert code == 0
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
        made = {"seconds": took, "peak_mb_of_a_child": peak}
    after, same = seconds(lambda: query(run, GROUP_BY).to_pylist())
    again, _ = seconds(lambda: query(run, GROUP_BY).to_pylist())
    listing, _ = seconds(lambda: list_files(run.scores))
    status_after, status_same = seconds(lambda: run_status(run))
    found = [dict(row, bits=round(row["bits"] or 0, 9)) for row in same]
    return {
        "images": images, "before": before, "after": min(after, again), "compaction": made,
        "of_which_listing": listing, "status_before": status_before, "status_after": status_after,
        "files": len(sources(run, "scores").parts),
        "same": found == [dict(row, bits=round(row["bits"] or 0, 9)) for row in answer]
        and status == status_same and sum(row["images"] for row in same) == images,
    }  # fmt: skip


def drawn_further(found: list[dict[str, Any]], name: str) -> float:
    """Seconds at 10^8 rows."""
    (x0, y0), (x1, y1) = ((one["images"], one[name]) for one in found)
    return float(round(y1 + (FAR - x1) * (y1 - y0) / (x1 - x0), 1))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, nargs=2, default=[4000, 40_000])
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--folder", help="on a disk with 60 KB a shard; /tmp by default")
    arguments = parser.parse_args()
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        for shards in arguments.shards:
            make_run(Path(name) / BUCKET / str(shards), shards, arguments.rows)
        print("made", flush=True)
        with s3_server(Path(name)):
            for shards in arguments.shards:
                kills = arguments.kills if shards == arguments.shards[-1] else 0
                run = open_run(Location(f"s3://{BUCKET}/{shards}"))
                found.append(measure(run, shards * arguments.rows, kills))
                print(found[-1], flush=True)
    names = ("before", "after", "of_which_listing", "status_before", "status_after")
    wrong = found[-1]["compaction"].get("wrong", [])
    report(
        "compaction", found=found, far={name: drawn_further(found, name) for name in names},
        gate={"same_answers": all(one["same"] for one in found), "wrong_counts": len(wrong),
              "holds": all(one["same"] for one in found) and not wrong},
    )  # fmt: skip


if __name__ == "__main__":
    main()
