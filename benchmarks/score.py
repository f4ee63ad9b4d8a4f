"""Images per second of the scoring job, against a bare loop of the model.

The job fetches, decodes, computes, summarises and writes; the bare loop only computes, over images
that were decoded beforehand. The job's start-up (Ray, loading the model) is left out: its clock
starts at the first finished image. Both take turns in one run of the benchmark.

    python -m benchmarks.score [--images 120] [--gpus-per-actor 0]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.environment import report
from benchmarks.photos import sample_photos
from cluster import driver
from cluster.connection import connected, plan_layout
from cluster.layout import ClusterConfig
from gazecore.images.decode import to_network
from gazecore.images.formats import Limits
from gazecore.images.listing import list_images
from gazecore.model.bundle import load_bundle, read_bundle
from gazecore.model.deepgaze import DeepGaze
from gazecore.results.run import RunSettings, begin_run
from gazecore.results.verify import problems
from gazecore.scoring import ScoringConfig
from gazecore.shards.planning import update_plan
from gazecore.shards.tally import Tally
from gazecore.storage import Location

ROUNDS = 3


def make_images(folder: Path, count: int) -> None:
    """JPEGs of 1024x768, cut from real photographs at different places."""
    photos = list(sample_photos().values())
    for number in range(count):
        photo = photos[number % len(photos)].resize((1200, 900))
        left, top = (number * 13) % 176, (number * 7) % 132
        photo.crop((left, top, left + 1024, top + 768)).save(
            folder / f"{number:05d}.jpg", quality=90
        )


def bare_loop(folder: Path, device: str) -> float:
    """Images per second of the model alone, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.score", "--bare", str(folder), "--device", device]
    return float(json.loads(subprocess.check_output(command).splitlines()[-1]))


def bare(folder: Path, device: str) -> None:
    """The bare loop; prints its images per second."""
    model = DeepGaze.load(load_bundle(), device=device, compiled=device != "cpu")
    inputs = [to_network(p.read_bytes(), "1024").pixels for p in sorted(folder.glob("*.jpg"))]
    size = model.backbone.batch_size(*inputs[0].shape[:2])
    model.predict(np.stack(inputs[:size]))
    start = time.perf_counter()
    for first in range(0, len(inputs), size):
        model.predict(np.stack(inputs[first : first + size]))
    print(json.dumps(len(inputs) / (time.perf_counter() - start)))


def job(folder: Path, out: str, gpus_per_actor: float | None) -> tuple[float, bool]:
    """Images per second of the job from its first finished image on, and whether all is there."""
    settings = RunSettings(str(folder), load_bundle().fingerprint, "1024", 256, 4, Limits())
    run = begin_run(Location(out), settings)
    plan = update_plan(run, list_images(str(folder)))
    layout = plan_layout(ClusterConfig(gpus_per_actor=gpus_per_actor))
    config = ScoringConfig(out, settings, read_bundle())
    seen: list[tuple[float, int]] = []

    def on_report(tally: Tally) -> None:
        count = tally.ok + tally.unfinished[0]
        if count and (not seen or count > seen[-1][1]):
            seen.append((time.perf_counter(), count))

    tally = driver.run(run, config, on_report, layout=layout)
    # Both samples are late by what a progress answer takes, so that it cancels.
    (first_time, first), (last_time, last) = seen[0], seen[-1]
    complete = tally.ok == plan.images and not list(problems(run))
    return (last - first) / (last_time - first_time), complete


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=120)
    parser.add_argument("--gpus-per-actor", type=float)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        bare(arguments.bare, arguments.device)
        return
    loops, jobs, complete = [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "images"
        folder.mkdir()
        make_images(folder, arguments.images)
        for number in range(ROUNDS):
            loops.append(bare_loop(folder, arguments.device))
            with connected("local"):
                rate, whole = job(folder, f"{name}/run-{number}", arguments.gpus_per_actor)
            jobs.append(rate)
            complete.append(whole)
    report(
        "score", device=arguments.device, images=arguments.images, image="1024x768",
        images_per_second={"bare_loop": loops, "job": jobs},
        ratio=statistics.median(jobs) / statistics.median(loops),
        gate={"every_image_scored": all(complete), "holds": all(complete)},
    )  # fmt: skip


if __name__ == "__main__":
    main()
