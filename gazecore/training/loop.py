"""Training one readout on cached features."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from gazecore.errors import InputError, RunFailed
from gazecore.features.cache import FeatureCache
from gazecore.model.centerbias import on_grid
from gazecore.model.readout import Activation, Readout, ReadoutConfig, mix
from gazecore.training.objective import Batch, log_likelihoods, make_batches


@dataclass(frozen=True)
class TrainingConfig:
    """How a readout is trained.

    Attributes:
        epochs: passes over the training images; the learning rate falls to zero over them.
        learning_rate: of Adam, at the start.
        weight_decay: on the convolutions' weights (decoupled, Loshchilov & Hutter 2019).
        batch_size: images per step, each weighted equally.
        activation: nonlinearity between the 1x1 convolutions; softplus reached more than the
            paper's relu.
        seed: of the initial weights and of the order of the images.
    """

    epochs: int = 12
    learning_rate: float = 2e-3
    weight_decay: float = 1e-3
    batch_size: int = 8
    activation: Activation = "softplus"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "learning_rate", "batch_size"):
            if getattr(self, name) <= 0:
                raise InputError(f"training.{name} must be positive, not {getattr(self, name)}")
        if self.weight_decay < 0:
            raise InputError("training.weight_decay must not be negative")


@dataclass(frozen=True)
class Epoch:
    """What an epoch reached: training loss in nats per fixation, held-out information gain in bits
    per fixation over the centre bias (images weighted equally), and the largest so far."""

    number: int
    loss: float
    information_gain: float
    best: float


def train_readout(
    cache: FeatureCache,
    points: Mapping[str, np.ndarray],
    train: list[int],
    held_out: list[int],
    centerbias: torch.Tensor,
    standardisation: tuple[torch.Tensor, torch.Tensor],
    config: TrainingConfig,
    report: Callable[[Epoch], None],
) -> Readout:
    """Train a readout and keep the state that is best on the held-out images.

    Args:
        cache: features.
        points: fixations of each image, (n, 2) x and y in pixels.
        train, held_out: positions in the cache, each image with at least one fixation.
        centerbias: log density in normalised coordinates.
        standardisation: mean and deviation of each channel, from `channel_statistics`.
        config: how.
        report: is called after every epoch.

    Raises:
        InputError: there is no image to train on or to hold out.
        RunFailed: the loss is not finite.
    """
    if not train or not held_out:
        raise InputError(f"{len(train)} images to train on and {len(held_out)} held out: too few")
    torch.manual_seed(config.seed)
    order = np.random.default_rng(config.seed)
    readout = Readout(ReadoutConfig(cache.backbone.channels, activation=config.activation))
    readout.feature_mean, readout.feature_std = standardisation
    optimiser = torch.optim.AdamW(
        [
            {"params": list(readout.weights), "weight_decay": config.weight_decay},
            {
                "params": [*readout.biases, readout.log_blur, readout.centerbias_weight],
                "weight_decay": 0.0,
            },
        ],
        lr=config.learning_rate,
    )
    steps = config.epochs * math.ceil(len(train) / config.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    best, best_state = -math.inf, copy.deepcopy(readout.state_dict())
    for number in range(1, config.epochs + 1):
        losses = []
        for batches in _steps(cache, points, order.permutation(train).tolist(), config.batch_size):
            optimiser.zero_grad()
            images = sum(len(batch.counts) for batch in batches)
            loss = torch.zeros(())
            for batch in batches:
                loss = loss - _likelihoods(readout, batch, centerbias).sum() / images
            if not torch.isfinite(loss):
                raise RunFailed(
                    f"the loss became {loss.item()} in epoch {number}: lower the learning rate"
                )
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        gain = held_out_gain(readout, cache, points, held_out, centerbias)
        if gain > best:
            best, best_state = gain, copy.deepcopy(readout.state_dict())
        report(Epoch(number, float(np.mean(losses)), gain, best))
    readout.load_state_dict(best_state)
    return readout


@torch.no_grad()
def held_out_gain(
    readout: Readout,
    cache: FeatureCache,
    points: Mapping[str, np.ndarray],
    images: list[int],
    centerbias: torch.Tensor,
) -> float:
    """Information gain over the centre bias on the grid, bits per fixation, mean over images."""
    gains = []
    for batches in _steps(cache, points, images, size=8):
        for batch in batches:
            baseline = on_grid(centerbias, *batch.grid).expand(len(batch.counts), *batch.grid)
            gains.append(
                _likelihoods(readout, batch, centerbias) - log_likelihoods(baseline, batch)
            )
    return float(torch.cat(gains).mean() / math.log(2))


def channel_statistics(cache: FeatureCache, images: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of each channel over positions and images, each float32 (channels,)."""
    sums = np.zeros(cache.backbone.channels)
    squares, count = sums.copy(), 0
    for i in images:
        values = cache[i].features.reshape(len(sums), -1).astype(np.float32)
        sums += values.sum(axis=1)
        squares += np.einsum("cp,cp->c", values, values)
        count += values.shape[1]
    mean = sums / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    # A channel that never varies carries nothing; it must not be blown up.
    deviation[deviation < 1e-6] = 1.0
    return torch.from_numpy(mean).float(), torch.from_numpy(deviation).float()


def mixture(readouts: list[Readout]) -> Readout:
    """One readout whose members are the given ones, which share their standardisation."""
    first = readouts[0].config
    joined = Readout(ReadoutConfig(first.channels, first.widths, first.activation, len(readouts)))
    states = [readout.state_dict() for readout in readouts]
    joined.load_state_dict(
        {
            key: states[0][key]
            if key.startswith("feature_")
            else torch.cat([s[key] for s in states])
            for key in states[0]
        }
    )
    return joined.eval().requires_grad_(False)


def _steps(
    cache: FeatureCache, points: Mapping[str, np.ndarray], images: list[int], size: int
) -> Iterator[list[Batch]]:
    for start in range(0, len(images), size):
        cached = [cache[i] for i in images[start : start + size]]
        yield make_batches(cached, [points[image.image_id] for image in cached])


def _likelihoods(readout: Readout, batch: Batch, centerbias: torch.Tensor) -> torch.Tensor:
    return log_likelihoods(mix(readout(batch.features, on_grid(centerbias, *batch.grid))), batch)
