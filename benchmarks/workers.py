"""Training on Ray by one, two and three workers: the same losses, and how many images a second.

python -m benchmarks.workers [--images 48] [--epochs 3]
"""

import argparse
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.environment import report
from benchmarks.train import make_corpus
from cluster.connection import connected
from cluster.layout import WorkersConfig
from cluster.training_driver import train_members
from gazecore.model.backbone import load_backbone, make_spec
from gazecore.storage import Location
from gazecore.training.examples import channel_statistics, open_caches
from gazecore.training.members import Member, new_readout
from gazecore.training.optimise import Epoch
from gazecore.training.recipes import TrainingConfig
from tests.features import make_cache

WORKERS = (1, 2, 3)
MAX_DIFFERENCE = 1e-4


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    backbone = load_backbone(make_spec("vgg19-oxford"), device="cpu")
    rates: dict[int, float] = {}
    losses: dict[int, list[float]] = {}
    with tempfile.TemporaryDirectory() as name, connected("local", spare_cpus=2):
        make_cache(make_corpus(Path(name), arguments.images), backbone, f"{name}/cache")
        caches = [f"{name}/cache"]
        data = open_caches(caches)
        config = TrainingConfig(epochs=arguments.epochs)
        statistics = channel_statistics(data, data.images)
        prior = torch.from_numpy(data.centerbias(data.images).log_density)
        for workers in WORKERS:
            epochs: list[Epoch] = []

            def keep(_: int, news: Epoch | int, epochs: list[Epoch] = epochs) -> None:
                if isinstance(news, Epoch):
                    epochs.append(news)

            member = Member(
                1, new_readout(*statistics, config), data.images, data.images[:2], prior, config
            )
            train_members(
                data, [member], keep, caches=caches, storage=Location(f"{name}/{workers}"),
                config=WorkersConfig(workers=workers, checkpoint_steps=10_000),
            )  # fmt: skip
            # The first epoch pays for what is loaded late.
            rates[workers] = max(epoch.images / epoch.seconds for epoch in epochs[1:])
            losses[workers] = [epoch.loss for epoch in epochs]
    difference = max(
        abs(one - other)
        for workers in WORKERS
        for one, other in zip(losses[workers], losses[1], strict=True)
    )
    report(
        "workers",
        images_per_second={str(workers): round(rate, 1) for workers, rate in rates.items()},
        losses=losses[1],
        gate={
            "largest_difference_of_losses": difference,
            "limit": MAX_DIFFERENCE,
            "passed": difference < MAX_DIFFERENCE,
        },
    )
    sys.exit(0 if difference < MAX_DIFFERENCE else 1)


if __name__ == "__main__":
    main()
