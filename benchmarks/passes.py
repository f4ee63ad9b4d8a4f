"""Passes over the densities of a run: images a second, and does memory stay flat?

    python -m benchmarks.passes RUN [--images 10000]

A run of so many images is made of RUN's densities, again and again, in shards of 256. Four boxes an
image are measured, crops of 16:9 and 1:1 found, and the run is compared with itself.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import gazecore
from benchmarks.environment import report
from benchmarks.stream import MAX_GROWTH, resident
from gazecore.comparison.outputs import compare_runs
from gazecore.crops.measure import crop_run
from gazecore.images.listing import listing_of
from gazecore.regions.files import open_regions
from gazecore.regions.measure import measure_run
from gazecore.results.run import Run, RunSettings, begin_run
from gazecore.results.schema import SCORES, read_densities
from gazecore.results.write import commit_shard
from gazecore.shards.directory import shard_name
from gazecore.shards.plan import shards
from gazecore.shards.planning import update_plan
from gazecore.storage import Location
from gazecore.tables import read_table

SHARD = 256


class Memory:
    """`Steps` that look at the memory: the most in the first tenth, and later."""

    def __init__(self) -> None:
        self.early = self.late = 0

    @contextmanager
    def __call__(self, title: str, total: int) -> Iterator[Callable[[], None]]:
        """See `Steps`."""
        done = 0

        def step() -> None:
            nonlocal done
            done += 1
            if done <= total / 10:
                self.early = max(self.early, resident())
            else:
                self.late = max(self.late, resident())

        yield step


def multiplied(source: Run, folder: str, images: int) -> Run:
    """A run of many images with the densities of a few."""
    rows: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for shard in sorted(source.shards_done()):
        scores = read_table(source.scores / shard_name(shard), SCORES).to_pylist()
        densities = read_densities(source.densities / shard_name(shard)).to_pylist()
        by_id = {row["image_id"]: row for row in densities}
        rows += [(row, by_id[row["image_id"]]) for row in scores if row["image_id"] in by_id]
    ids = [f"{number:08d}.jpg" for number in range(images)]
    old = source.settings
    settings = RunSettings(
        "made", old.model, old.display_size, SHARD, old.density_factor, old.limits
    )
    run = begin_run(Location(folder), settings)
    update_plan(run, listing_of(pa.table({"image_id": ids, "uri": ids})))
    for shard in shards(run):
        planned = shard.images["image_id"].to_pylist()
        pairs = [rows[int(name[:8]) % len(rows)] for name in planned]
        commit_shard(
            run,
            shard.number,
            [{**s, "image_id": i, "uri": i} for (s, _), i in zip(pairs, planned, strict=True)],
            [{**d, "image_id": i} for (_, d), i in zip(pairs, planned, strict=True)],
        )
    return run


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--images", type=int, default=10_000)
    arguments = parser.parse_args()
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        run = multiplied(gazecore.open_run(arguments.run).run, f"{name}/run", arguments.images)
        ids = [f"{number:08d}.jpg" for number in range(arguments.images) for _ in range(4)]
        sides = {"x": [0, 10, 200, 300], "y": [0, 50, 100, 20], "width": [50, 100, 200, 400],
                 "height": [90, 100, 300, 60]}  # fmt: skip
        boxes = {side: values * arguments.images for side, values in sides.items()}
        pq.write_table(pa.table({"image_id": ids, **boxes}), f"{name}/boxes.parquet")
        regions = open_regions(Location(f"{name}/boxes.parquet"))
        out = [Location(f"{name}/{o}") for o in ("out.parquet", "crops.parquet", "compared")]
        passes: dict[str, Callable[[Memory], int]] = {
            "regions": lambda m: measure_run(run, regions, out[0], steps=m).images,
            "crops": lambda m: crop_run(run, ["16:9", "1:1"], out[1], steps=m).images,
            "compare": lambda m: compare_runs(run, run, out[2], steps=m).summary["images"],
        }
        for title, act in passes.items():
            memory, begin = Memory(), time.perf_counter()
            images = act(memory)
            seconds = time.perf_counter() - begin
            figures[title] = {
                "images": images,
                "images_per_second": round(images / seconds, 1),
                "first_tenth_mb": round(memory.early / 1e6),
                "later_mb": round(memory.late / 1e6),
            }
    grown = max(1e6 * (f["later_mb"] - f["first_tenth_mb"]) for f in figures.values())
    report(
        "passes", passes=figures,
        gate={
            "every_image": all(f["images"] == arguments.images for f in figures.values()),
            "holds": grown <= MAX_GROWTH
            and all(f["images"] == arguments.images for f in figures.values()),
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
