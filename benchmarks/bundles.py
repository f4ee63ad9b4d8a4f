"""Time and memory of one density by each bundle that ships, beside the default's.

    python -m benchmarks.bundles [BUNDLE ...] [--rounds 12]

Of one photograph of 1024 x 768, by all bundles in turns, so that a machine's moods meet all alike;
memory is that of a process with nothing else in it.
"""

import argparse
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np

import gazecore
from benchmarks.environment import peak_mb, report
from benchmarks.photos import sample_photos
from gazecore.model.spec import SHIPPED


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", nargs="*", metavar="BUNDLE", default=[*SHIPPED])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--memory", action="store_true", help="say that of this process, for one")
    arguments = parser.parse_args()
    photo = np.array(sample_photos()["china"].convert("RGB").resize((1024, 768)))
    models = {name: gazecore.load(name) for name in arguments.bundles}
    for model in models.values():
        model.predict(photo)
    if arguments.memory:
        print(peak_mb())
        return
    walls: dict[str, list[float]] = {name: [] for name in models}
    processor: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(arguments.rounds):
        for name, model in models.items():
            wall, own = time.perf_counter(), time.process_time()
            model.predict(photo)
            walls[name].append(time.perf_counter() - wall)
            processor[name].append(time.process_time() - own)
    found: dict[str, Any] = {
        name: {
            "seconds": round(statistics.median(walls[name]), 3),
            "least_seconds": round(min(walls[name]), 3),
            "processor_seconds": round(statistics.median(processor[name]), 3),
            "peak_mb": memory_of(name),
        }
        for name in models
    }
    report("bundles", bundles=found)


def memory_of(bundle: str) -> int:
    """Megabytes at the most of a process that makes one density."""
    command = [sys.executable, "-m", "benchmarks.bundles", bundle, "--memory"]
    return round(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


if __name__ == "__main__":
    main()
