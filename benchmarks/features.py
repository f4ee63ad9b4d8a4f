"""A feature cache: bytes an image, and what storing float16 costs the density.

For a sample of a cache's images the features are computed again in float32; both go through the
default model's readout.

    python -m benchmarks.features CACHE [--limit 40]
"""

import argparse
import sys

import numpy as np
import torch

from benchmarks.density import divergence
from benchmarks.environment import report
from gazecore.features.cache import FeatureCache
from gazecore.images.decode import to_network
from gazecore.model.bundle import load_bundle
from gazecore.model.centerbias import on_grid
from gazecore.model.deepgaze import DeepGaze
from gazecore.model.readout import mix
from gazecore.storage import Location
from gazecore.training.examples import make_example

MAX_BITS = 1e-4


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cache")
    parser.add_argument("--limit", type=int, default=40)
    arguments = parser.parse_args()
    cache = FeatureCache(arguments.cache)
    folder = Location(arguments.cache) / "features"
    stored = sum(folder.fs.sizes([(folder / name).path for name in folder.names()]))
    images = cache.corpus().images
    uris = dict(zip(images["image_id"].to_pylist(), images["uri"].to_pylist(), strict=True))
    bundle = load_bundle()
    model = DeepGaze.load(bundle)
    lost, differences = [], []
    for index in range(0, len(cache), max(1, len(cache) // arguments.limit)):
        image = to_network(Location(uris[cache.image_ids[index]]).read_bytes(), cache.display_size)
        height, width = (side // 2 for side in image.pixels.shape[:2])
        prior = on_grid(bundle.centerbias, height, width)
        with torch.inference_mode():
            truth, found = (
                mix(bundle.readout(features, prior))[0].double().numpy()
                for features in (
                    model.backbone.features(image.pixels[None]),
                    make_example(cache[index], np.empty((0, 2))).levels(),
                )
            )
        lost.append(divergence(truth, found))
        differences.append(float(np.abs(truth - found).max()))
    report(
        "features",
        images=len(lost),
        bytes_per_image=stored / len(cache),
        worst_nat=max(differences),
        gate={"worst_bits": max(lost), "limit": MAX_BITS, "passed": max(lost) < MAX_BITS},
    )
    sys.exit(0 if max(lost) < MAX_BITS else 1)


if __name__ == "__main__":
    main()
