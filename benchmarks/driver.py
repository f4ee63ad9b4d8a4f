"""Shards per second of the driver, with actors that only sleep, as it were on somebody else's GPU.

Each image takes an actor `--ms` of sleep; then the actor commits a real shard. One process per
actor, as in a real run, so that this machine needs 0.1 GB for each. What an actor computes is
nothing, but what it writes, and what the driver does for it, is all there.

    python -m benchmarks.driver [--actors 1 4 16 64] [--ms 100] [--shard-size 64] [--seconds 20]
"""

import argparse
import cProfile
import io
import os
import pstats
import resource
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.environment import report
from cluster import driver
from cluster.connection import connected
from cluster.layout import ActorLayout
from gazecore.images.formats import Limits
from gazecore.images.listing import list_images
from gazecore.results.run import Run, RunSettings, begin_run
from gazecore.shards.planning import update_plan
from gazecore.shards.tally import Tally
from gazecore.storage import Location
from tests.sleeping import SleepingConfig, listed

MIN_EFFICIENCY = 0.8
"""Of one actor's rate, for each of many: less, and the driver (or this machine) is in the way."""


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--actors", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--ms", type=float, default=100, help="sleep for each image")
    parser.add_argument("--shard-size", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=20, help="of work for each number")
    arguments = parser.parse_args()
    seconds = arguments.ms / 1000
    rows = []
    for actors in arguments.actors:
        with tempfile.TemporaryDirectory() as name, connected("local", spare_cpus=max(0, actors)):
            # Two shards sleep at once in an actor.
            shards = (
                max(2, round(2 * arguments.seconds / (seconds * arguments.shard_size))) * actors
            )
            run = plan(Path(name), shards, arguments.shard_size)
            rows.append({"actors": actors, **measure(run, actors, seconds, shards)})
            print(rows[-1], file=sys.stderr, flush=True)
    ideal = 2 / (seconds * arguments.shard_size)
    for row in rows:
        row["efficiency"] = round(row["shards_per_second"] / (ideal * row["actors"]), 3)
    holds = rows[-1]["efficiency"] >= MIN_EFFICIENCY
    report(
        "driver", ms_per_image=arguments.ms, shard_size=arguments.shard_size, rows=rows,
        gate={"efficiency_of_the_most": rows[-1]["efficiency"], "limit": MIN_EFFICIENCY,
              "holds": holds},
    )  # fmt: skip
    sys.exit(0 if holds else 1)


def plan(folder: Path, shards: int, size: int) -> Run:
    """A run over images that are one small file."""
    images = listed(folder, shards * size)
    settings = RunSettings(images, "none", "1024", size, 4, Limits())
    run = begin_run(Location(str(folder / "run")), settings)
    update_plan(run, list_images(images))
    return run


def measure(run: Run, actors: int, seconds: float, shards: int) -> dict[str, object]:
    """Shards per second while all actors work, and what the driver spent meanwhile."""
    seen: list[tuple[float, int, float]] = []

    def on_report(tally: Tally) -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        seen.append((time.perf_counter(), tally.shards, used.ru_utime + used.ru_stime))

    # A core on paper is enough for an actor that sleeps.
    shard = seconds * run.shard_size
    stage = SleepingConfig(run.location.uri, seconds, together=actors, stagger=shard)
    profile = cProfile.Profile()
    tally = profile.runcall(driver.run, run, stage, on_report, layout=ActorLayout(actors, 0, 1))
    assert tally.shards == shards
    # From the first round's end to the last round's beginning all actors are busy.
    begin, first, cpu_first = next(s for s in seen if s[1] >= 2 * actors)
    end, last, cpu_last = next(s for s in seen if s[1] >= shards - 2 * actors)
    return {
        "shards_per_second": round((last - first) / (end - begin), 3),
        "driver_cores": round((cpu_last - cpu_first) / (end - begin), 3),
        "driver_ms_per_shard": round(1000 * (cpu_last - cpu_first) / (last - first), 2),
        "seconds_by_function": hot(profile),
    }


def hot(profile: cProfile.Profile) -> dict[str, float]:
    """The driver's own seconds by function, but for those that it waits in."""
    stats = pstats.Stats(profile, stream=io.StringIO())
    own = {
        f"{Path(file).name}:{function}": round(values[2], 2)
        for (file, _, function), values in stats.stats.items()  # type: ignore[attr-defined]
    }
    return dict(sorted(own.items(), key=lambda item: -item[1])[:6])


if __name__ == "__main__":
    os.environ.setdefault("RAY_worker_maximum_startup_concurrency", "4")
    main()
