"""Densities of a bundle by cached features, as a run: minutes instead of the backbone's time.

    python -m benchmarks.cached CACHE BUNDLE RUN

As `gazecore score` would make them, but for the rounding of cached features to float16.
"""

import argparse

import torch

from gazecore.features.cache import FeatureCache
from gazecore.model.bundle import load_bundle
from gazecore.model.centerbias import Centerbias
from gazecore.results.run import ModelNote
from gazecore.storage import Location
from gazecore.training.examples import TrainingSet
from gazecore.training.folds import FittedFold, Fold
from gazecore.training.out_of_fold import write_out_of_fold


def main() -> None:
    """Make it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cache")
    parser.add_argument("bundle")
    parser.add_argument("run")
    arguments = parser.parse_args()
    data = TrainingSet([FeatureCache(arguments.cache)])
    bundle = load_bundle(arguments.bundle)
    if bundle.backbone != data.backbone or bundle.display_size != data.display_size:
        parser.error(f"{arguments.cache} holds other features than {arguments.bundle} reads")
    prior = Centerbias(bundle.centerbias.numpy(), 0, 0)
    everything = FittedFold(Fold(0, [], [*data.images], prior), bundle.readout)
    note = ModelNote(arguments.bundle, bundle.training.trained_on())
    out = Location(arguments.run)
    torch.set_num_threads(1)  # its threads would wait for each other over small operations
    write_out_of_fold(out, data, [everything], bundle.fingerprint, note)
    print(f"{len(data.images):,} densities in {out.uri}")


if __name__ == "__main__":
    main()
