"""What the faster ways to read an image and to sum up a density change, in bits.

    python -m benchmarks.shortcuts FOLDER [--limit 100]

FOLDER has photographs of about 1024 pixels, such as MIT1003's stimuli. Compared are the densities
of the default model: of pixels that torch resized, against Pillow's; and of a JPEG of 12 megapixels
that is decoded at half its size, against the whole. Those are the same photographs enlarged, with
noise such as a sensor's, as none so large comes with a package. The statistics are compared with
those that numpy takes of one density, in steps of float32, as which they are stored.
"""

import argparse
import io
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

from benchmarks.environment import report
from gazecore.density.summary import statistics
from gazecore.geometry import network_size
from gazecore.images import decode
from gazecore.model.bundle import load_bundle
from gazecore.model.deepgaze import DeepGaze, Prediction
from tests.numbers import reference_statistics

LARGE = (4032, 3024)
NOISE = 3.0
"""Deviation of the noise, of 255."""


def enlarged(image: Image.Image, rng: np.random.Generator) -> bytes:
    """A JPEG of about 12 megapixels."""
    scale = max(LARGE) / max(image.size)
    large = image.resize(
        (round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS
    )
    noisy = np.asarray(large) + rng.normal(0, NOISE, (large.height, large.width, 1))
    buffer = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def by_pillow(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resized as gazecore 0.1 did."""
    image = Image.fromarray(pixels)
    return np.array(image.resize((width, height), Image.Resampling.BICUBIC))


def kl_bits(one: Prediction, other: Prediction) -> float:
    """Divergence of the second mixture from the first."""
    p, q = one.log_density[0].astype(np.float64), other.log_density[0].astype(np.float64)
    return float((np.exp(p) * (p - q)).sum() / np.log(2))


def steps_apart(one: Prediction, width: int, height: int) -> int:
    """The most steps of float32 that a statistic is away from numpy's."""
    arrays = one.log_density[0], one.members[0], one.centerbias
    found, expected = (f(*arrays, height, width) for f in (statistics, reference_statistics))
    pairs = [
        np.array([found[name], expected[name]], np.float64).astype(np.float32).view(np.int32)
        for name in expected
    ]
    return int(max(abs(int(a) - int(b)) for a, b in pairs))


def summary(values: list[float]) -> dict[str, float]:
    """Mean and worst."""
    return {"mean": float(np.mean(values)), "worst": float(np.max(values))}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, default=100)
    arguments = parser.parse_args()
    paths = sorted(p for p in arguments.folder.rglob("*") if p.suffix in (".jpg", ".jpeg"))
    paths = paths[:: max(1, len(paths) // arguments.limit)][: arguments.limit]
    model = DeepGaze.load(load_bundle())
    rng = np.random.default_rng(0)
    resizing, reduced, steps, levels = [], [], [], 0
    for path in paths:
        data = path.read_bytes()
        seen = decode.to_network(data, "1024")
        with mock.patch.object(decode, "_shrunk", by_pillow):
            pillow = decode.to_network(data, "1024")
        levels = max(levels, int(np.abs(seen.pixels.astype(int) - pillow.pixels).max()))
        density = model.predict(seen.pixels[None])
        resizing.append(kl_bits(model.predict(pillow.pixels[None]), density))
        steps.append(steps_apart(density, seen.width, seen.height))
        large = enlarged(Image.open(path).convert("RGB"), rng)
        half = decode.to_network(large, "1024")
        whole = decode.resized(decode.decode(large), "1024")
        assert half.pixels.shape[:2] == network_size(half.height, half.width, "1024")
        reduced.append(kl_bits(model.predict(whole.pixels[None]), model.predict(half.pixels[None])))
    report(
        "shortcuts", images=len(paths), resizing_kl_bits=summary(resizing),
        resizing_levels=levels, reduced_kl_bits=summary(reduced),
        statistics_float32_steps=max(steps),
        gate={"holds": summary(reduced)["mean"] <= 1e-3 and summary(resizing)["worst"] <= 1e-5},
    )  # fmt: skip


if __name__ == "__main__":
    main()
