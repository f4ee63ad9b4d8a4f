"""From a feature cache and a corpus to a bundle: split, centre bias, members, mixture."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
import torch

from gazecore.corpus.schema import Corpus
from gazecore.corpus.splits import duplicate_groups, folds
from gazecore.errors import InputError
from gazecore.features.cache import FeatureCache
from gazecore.model import centerbias
from gazecore.model.bundle import ModelBundle
from gazecore.training.loop import (
    Epoch,
    TrainingConfig,
    channel_statistics,
    held_out_gain,
    mixture,
    train_readout,
)


@dataclass(frozen=True)
class SplitConfig:
    """Which images train, stop and judge. Images that look the same stay together.

    Attributes:
        folds: images are cut into this many at random; the first is held out from everything and
            judges the result, the others train.
        members: readouts in the mixture; each stops on a fold of its own and trains on the rest.
        seed: of the random cut.
    """

    folds: int = 7
    members: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.members <= self.folds - 2:
            raise InputError(
                f"{self.members} members need at least {self.members + 2} folds, not {self.folds}"
            )


def split_images(cache: FeatureCache, config: SplitConfig) -> np.ndarray:
    """The fold of each image of the cache, int (n,); fold 0 is held out from training."""
    return folds(duplicate_groups(cache.thumbnails()), config.folds, config.seed)


def fit_bundle(
    cache: FeatureCache,
    corpus: Corpus,
    corpus_name: str,
    split: SplitConfig,
    training: TrainingConfig,
    report: Callable[[int, Epoch], None],
) -> ModelBundle:
    """Train a mixture of readouts.

    Args:
        cache: features of the corpus's images.
        corpus: the fixations.
        corpus_name: how the bundle calls it.
        split, training: how.
        report: is called with the member's number and each of its epochs.

    Returns:
        A bundle whose metrics hold the information gain on the grid of the held-out images.

    Raises:
        InputError: the cache and the corpus are of different images, or there are too few.
    """
    points = corpus.points()
    missing = [i for i in cache.image_ids if i not in points]
    if missing:
        raise InputError(f"the corpus lacks {missing[0]}, which the feature cache holds")
    fold = split_images(cache, split)
    seen = np.array([len(points[i]) > 0 for i in cache.image_ids])
    development = np.flatnonzero(seen & (fold != 0)).tolist()
    held_out = np.flatnonzero(seen & (fold == 0)).tolist()
    if len(held_out) < 1 or len(development) < split.folds:
        raise InputError(
            f"{int(seen.sum())} images with fixations are too few for {split.folds} folds"
        )
    prior = centerbias.fit(*corpus.normalised([cache.image_ids[i] for i in development]))
    prior_density = torch.from_numpy(prior.log_density)
    standardisation = channel_statistics(cache, development)
    members = [
        train_readout(
            cache,
            points,
            train=[i for i in development if fold[i] != number],
            held_out=[i for i in development if fold[i] == number],
            centerbias=prior_density,
            standardisation=standardisation,
            config=replace(training, seed=training.seed + number),
            report=partial(report, number),
        )
        for number in range(1, split.members + 1)
    ]
    readout = mixture(members)
    return ModelBundle(
        backbone=cache.backbone,
        readout=readout,
        centerbias=prior_density,
        display_size=cache.display_size,
        training={
            "corpus": corpus_name,
            "images": len(development),
            "fixations": sum(len(points[cache.image_ids[i]]) for i in development),
            "split": asdict(split),
            "settings": asdict(training),
            "centerbias": {"bandwidth": prior.bandwidth, "uniform_share": prior.uniform_share},
            "held_out_images": [cache.image_ids[i] for i in held_out],
        },
        metrics={
            "grid_information_gain": round(
                held_out_gain(readout, cache, points, held_out, prior_density), 4
            ),
        },
    )
