"""Planning a million listed images, and taking up a run of which a thousand shards are done.

Both happen in processes of their own, with everything imported that the scoring command imports, so
that the peak memory is the driver's.

    python -m benchmarks.plan [--images 1000000] [--done 1000]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.environment import peak_mb, report

MAX_SECONDS, MAX_MB = 60, 1024


def child(folder: Path) -> None:
    """Plan, or plan again and read the missing shards; print seconds, memory and counts."""
    import jobs.score  # noqa: F401  (its memory counts)
    from gazecore.images.formats import Limits
    from gazecore.images.listing import list_images
    from gazecore.results.run import RunSettings, begin_run
    from gazecore.shards.plan import images_in, shards
    from gazecore.shards.planning import update_plan
    from gazecore.storage import Location

    start = time.perf_counter()
    settings = RunSettings(str(folder / "list.parquet"), "model", "1024", 256, 4, Limits())
    run = begin_run(Location(str(folder / "run")), settings)
    plan = update_plan(run, list_images(settings.input))
    seconds = time.perf_counter() - start
    done = run.shards_done()
    finished = images_in(run, done)
    missing = sum(shard.images.num_rows for shard in shards(run, lambda n: n not in done))
    print(json.dumps({
        "plan_seconds": seconds,
        "until_every_shard_was_handed_out_seconds": time.perf_counter() - start,
        "peak_mb": peak_mb(),
        "images": plan.images, "added": plan.added, "shards": plan.shards,
        "images_done": finished, "images_missing": missing,
    }))  # fmt: skip


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--done", type=int, default=1_000)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child)
        return
    with tempfile.TemporaryDirectory() as name:
        uris = [f"s3://bucket/photos/{n % 997:03d}/{n:012d}.jpg" for n in range(arguments.images)]
        pq.write_table(pa.table({"uri": uris}), f"{name}/list.parquet")
        command = [sys.executable, "-m", "benchmarks.plan", "--child", name]
        planned = json.loads(subprocess.check_output(command).splitlines()[-1])
        scores = Path(name) / "run" / "scores"
        scores.mkdir()
        for shard in range(arguments.done):
            (scores / f"shard-{shard:06d}.parquet").touch()
        resumed = json.loads(subprocess.check_output(command).splitlines()[-1])
    complete = (
        planned["images"] == planned["added"] == planned["images_missing"] == arguments.images
        and resumed["added"] == 0
        and resumed["images_done"] + resumed["images_missing"] == arguments.images
    )
    slowest = max(planned["plan_seconds"], resumed["plan_seconds"])
    largest = max(planned["peak_mb"], resumed["peak_mb"])
    report(
        "plan", planned=planned, resumed=resumed, ratio=MAX_SECONDS / slowest,
        gate={
            "every_image_planned_once": complete,
            "holds": complete and slowest <= MAX_SECONDS and largest <= MAX_MB,
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
