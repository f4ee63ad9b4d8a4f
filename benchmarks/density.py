"""Bytes per stored density against the bits that storing loses.

For each way of storing: bytes per image, and the KL divergence of the density that a reader gets
back, interpolated to the readout's grid, from the one that the model computed.

    python -m benchmarks.density [IMAGE_FOLDER] [--limit 40]
"""

import argparse
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.environment import report
from benchmarks.photos import photo_paths
from gazecore.density.codec import FACTORS, decode, encode
from gazecore.density.resample import to_size
from gazecore.images.decode import to_network
from gazecore.model.bundle import load_bundle
from gazecore.model.deepgaze import DeepGaze
from gazecore.results.write import density_file

MAX_BYTES, MAX_BITS = 4096, 0.002


def divergence(truth: np.ndarray, found: np.ndarray) -> float:
    """KL(truth || found) in bits; log densities on one grid."""
    log_p = truth.astype(np.float64)
    return float((np.exp(log_p) * (log_p - found)).sum() / np.log(2))


def stored(densities: list[np.ndarray], factor: int) -> dict[str, float]:
    """Bytes per image and bits lost in the format that runs use."""
    rows, lost = [], []
    for number, density in enumerate(densities):
        values, offset = encode(density, factor)
        rows.append({
            "image_id": f"{number:06d}.jpg", "height": 768, "width": 1024,
            "grid_height": values.shape[0], "grid_width": values.shape[1],
            "log_density": values.ravel(), "log_offset": offset,
        })  # fmt: skip
        lost.append(divergence(density, to_size(decode(values, offset), *density.shape)))
    return figures(len(density_file(rows)), lost)


def plain(densities: list[np.ndarray], side: float) -> dict[str, float]:
    """The obvious alternative: float32 on a share of the grid's side, zstd."""
    columns, lost = [], []
    for density in densities:
        size = (round(density.shape[1] * side), round(density.shape[0] * side))
        small = np.asarray(Image.fromarray(density).resize(size, Image.Resampling.BOX))
        columns.append(small.ravel())
        lost.append(divergence(density, to_size(small, *density.shape)))
    buffer = io.BytesIO()
    pq.write_table(pa.table({"d": columns}), buffer, compression="zstd")
    return figures(buffer.tell(), lost)


def figures(size: int, lost: list[float]) -> dict[str, float]:
    """Means and worst case."""
    return {
        "bytes_per_image": size / len(lost),
        "mean_bits": float(np.mean(lost)),
        "worst_bits": max(lost),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="default: packaged photographs")
    parser.add_argument("--limit", type=int, default=40)
    arguments = parser.parse_args()
    paths = list(photo_paths().values())
    if arguments.folder:
        paths = sorted(arguments.folder.iterdir())[: arguments.limit]
    model = DeepGaze.load(load_bundle())
    densities = [
        model.predict(to_network(path.read_bytes(), "1024").pixels[None]).log_density[0]
        for path in paths
    ]
    ways: dict[str, Any] = {f"int16, side/{f}": stored(densities, f) for f in FACTORS}
    ways |= {f"float32, side/{f}": plain(densities, 1 / f) for f in (1, 4)}
    default = ways["int16, side/4"]
    holds = default["bytes_per_image"] <= MAX_BYTES and default["mean_bits"] <= MAX_BITS
    report(
        "density", images=len(paths), stored=ways,
        ratio=ways["float32, side/1"]["bytes_per_image"] / default["bytes_per_image"],
        gate={"holds": holds},
    )  # fmt: skip


if __name__ == "__main__":
    main()
