"""Training from cached features: what a step takes, and where; and against recomputing features.

A corpus is made of real photographs with made-up fixations. An epoch that reads the cache, one that
runs the backbone on every image instead, and one step through torch's own convolutions,
interpolation and softplus ("plain") take turns.

    python -m benchmarks.train [--images 16] [--rounds 3]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from benchmarks.environment import report
from benchmarks.photos import sample_photos
from gazecore.corpus.schema import FIXATIONS, IMAGES, Corpus
from gazecore.images.decode import to_network
from gazecore.model.backbone import Backbone, load_backbone, make_spec
from gazecore.model.centerbias import on_grid
from gazecore.model.readout import mix
from gazecore.storage import Location
from gazecore.threads import side_by_side
from gazecore.training.examples import TrainingSet, channel_statistics, make_example
from gazecore.training.members import new_readout
from gazecore.training.optimise import Trainer
from gazecore.training.recipes import TrainingConfig
from tests.features import make_cache
from tests.reference import plain_readout

SIZE = (800, 600)
MIN_RATIO = 15
MAX_DIFFERENCE = 1e-3


def make_corpus(folder: Path, count: int) -> Corpus:
    """Cuts of real photographs, each with 120 fixations around its middle."""
    photos = list(sample_photos().values())
    rng = np.random.default_rng(0)
    images, fixations = [], []
    width, height = SIZE
    for number in range(count):
        photo = photos[number % len(photos)].resize((1000, 750))
        left, top = (number * 13) % 200, (number * 7) % 150
        name, path = f"{number:03d}.jpg", folder / f"{number:03d}.jpg"
        photo.crop((left, top, left + width, top + height)).save(path, quality=90)
        images.append({"image_id": name, "uri": str(path), "height": height, "width": width})
        points = rng.normal((width / 2, height / 2), (width / 6, height / 6), (120, 2))
        x, y = np.clip(points, 0, (width - 1, height - 1)).T
        fixations.append(
            pa.table(
                [[name] * 120, ["1"] * 120, range(120), x, y, [None] * 120, [None] * 120],
                schema=FIXATIONS,
            )
        )
    return Corpus(pa.Table.from_pylist(images, IMAGES), pa.concat_tables(fixations))


def cached_epoch(trainer: Trainer, data: TrainingSet) -> float:
    """Milliseconds an image of one epoch from the cache."""
    start = time.perf_counter()
    shares = trainer.shares()
    for share, examples in zip(shares, data.read(s.images for s in shares), strict=True):
        trainer.step(examples, share.total)
    seconds = time.perf_counter() - start
    trainer.end_epoch([0.0])
    return 1e3 * seconds / len(data.images)


def recomputed(corpus: Corpus, backbone: Backbone) -> float:
    """Milliseconds an image of decoding and the backbone alone."""
    start = time.perf_counter()
    for uri in corpus.images["uri"].to_pylist():
        backbone.features(to_network(Location(uri).read_bytes(), "1024").pixels[None])
    return 1e3 * (time.perf_counter() - start) / corpus.images.num_rows


class Steps:
    """A step on one image in its parts, in the fast and in the plain form."""

    def __init__(self, data: TrainingSet, corpus: Corpus, trainer: Trainer) -> None:
        self.data, self.trainer = data, trainer
        self.points = list(corpus.points().values())
        self.parameters = list(trainer.readout.parameters())
        self.prior = on_grid(trainer.centerbias, 192, 256)
        self.optimiser = torch.optim.AdamW(self.parameters, lr=0.0)

    def run(
        self, readout: Callable[..., torch.Tensor], image: int
    ) -> tuple[dict[str, float], list[torch.Tensor]]:
        """Milliseconds of each part, and the loss with its gradients."""
        times = [time.perf_counter()]
        cached = self.data.features(image)
        example = make_example(cached, self.points[image])
        times.append(time.perf_counter())
        features = example.levels()
        times.append(time.perf_counter())
        members = readout(features, self.prior).flatten(2)
        loss = -mix(members[..., example.cells, None]).mean()
        times.append(time.perf_counter())
        gradients = torch.autograd.grad(loss, self.parameters)
        times.append(time.perf_counter())
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self.optimiser.step()
        times.append(time.perf_counter())
        names = ("read", "convert", "forward", "backward", "optimiser")
        parts = dict(zip(names, 1e3 * np.diff(times), strict=True))
        return parts, [loss.detach(), *gradients]


def largest_difference(ours: list[torch.Tensor], plain: list[torch.Tensor]) -> float:
    """Of losses and gradients, relative to the largest of each tensor."""
    # Not of the last bias, whose gradient is rounding alone: a softmax does not see constants.
    scales = [float(tensor.abs().max()) for tensor in plain]
    return max(
        float((one - other).abs().max()) / scale
        for one, other, scale in zip(ours, plain, scales, strict=True)
        if scale > 1e-5
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    backbone = load_backbone(
        make_spec("vgg19-oxford"), device="cuda" if torch.cuda.is_available() else "cpu"
    )
    epochs, recomputes, differences = [], [], []
    parts: dict[str, list[dict[str, float]]] = {"gazecore": [], "plain": []}
    with tempfile.TemporaryDirectory() as name:
        corpus = make_corpus(Path(name), arguments.images)
        data = TrainingSet([make_cache(corpus, backbone, f"{name}/cache")])
        prior = torch.from_numpy(data.centerbias(data.images).log_density)
        config = TrainingConfig(epochs=arguments.rounds + 1)
        readout = new_readout(*channel_statistics(data, data.images), config)
        with side_by_side() as pool:
            steps = Steps(data, corpus, Trainer(readout, data.images, prior, config, pool))
            for image in data.images[:8]:
                found, gradients = steps.run(readout, image)
                plain, expected = steps.run(lambda *x: plain_readout(readout, *x), image)
                parts["gazecore"].append(found)
                parts["plain"].append(plain)
                differences.append(largest_difference(gradients, expected))
            cached_epoch(steps.trainer, data)
        recomputed(corpus, backbone)
        for _ in range(arguments.rounds):
            recomputes.append(recomputed(corpus, backbone))
            with side_by_side() as pool:
                steps.trainer.pool = pool
                epochs.append(cached_epoch(steps.trainer, data))
    step, features = statistics.median(epochs), statistics.median(recomputes)
    ratio = (features + step) / step
    report(
        "train", images=arguments.images, image="800x600",
        ms_per_image={"step_from_cache": step, "backbone": features},
        one_thread_ms={
            style: {p: round(statistics.median(f[p] for f in found), 2) for p in found[0]}
            for style, found in parts.items()
        },
        ratio=ratio,
        gate={
            "largest_gradient_difference": max(differences),
            "holds": max(differences) <= MAX_DIFFERENCE and ratio >= MIN_RATIO,
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
