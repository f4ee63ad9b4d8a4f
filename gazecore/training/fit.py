"""From a training set to a bundle: split, centre bias, members, mixture."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch

from gazecore.errors import InputError
from gazecore.model.bundle import ModelBundle
from gazecore.model.readout import Readout
from gazecore.training.examples import TrainingSet, channel_statistics
from gazecore.training.loop import (
    Member,
    TrainMembers,
    judge_images,
    mixture,
    new_readout,
    single,
    train_here,
)
from gazecore.training.trainer import Epoch, TrainingConfig, side_by_side


@dataclass(frozen=True)
class SplitConfig:
    """Which images train, stop and judge. Images that look the same stay together.

    Attributes:
        folds: images are cut into this many at random; the first is held out from everything and
            judges the result, the others train.
        members: readouts in the mixture; each stops on a fold of its own and trains on the rest.
        cross_validate: instead train one member per fold, which is judged on that fold, stops on
            the next and trains on the rest: every image gets a score of a member that has not seen
            it. `members` does not count then.
        seed: of the random cut.
    """

    folds: int = 7
    members: int = 3
    cross_validate: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.cross_validate:
            if self.folds < 3:
                raise InputError(f"cross-validation needs at least 3 folds, not {self.folds}")
        elif not 1 <= self.members <= self.folds - 2:
            raise InputError(
                f"{self.members} members need at least {self.members + 2} folds, not {self.folds}"
            )


def fit_bundle(
    data: TrainingSet,
    corpus_name: str,
    split: SplitConfig,
    training: TrainingConfig,
    report: Callable[[int, Epoch], None],
    start: Readout | None = None,
    train_members: TrainMembers = train_here,
) -> ModelBundle:
    """Train a mixture of readouts and judge it on images that took no part.

    Args:
        data: features and fixations.
        corpus_name: how the bundle calls the corpus.
        split, training: how.
        report: is called with the member's number and each of its epochs.
        start: members begin as this readout's members, and keep its standardisation and shape;
            None: they begin at random.
        train_members: where members are trained.

    Returns:
        A bundle whose metrics hold the information gain on the grid of the held-out images.

    Raises:
        InputError: there are too few images.
    """
    fold = data.folds(split.folds, split.seed)
    development = [i for i in data.images if fold[i] != 0]
    held_out = [i for i in data.images if fold[i] == 0]
    if not held_out or len(development) < split.folds:
        raise InputError(
            f"{len(data.images)} images with fixations are too few for {split.folds} folds"
        )
    prior = data.centerbias(development)
    centerbias = torch.from_numpy(prior.log_density)
    members = [
        Member(
            number,
            first,
            [i for i in development if fold[i] != number],
            [i for i in development if fold[i] == number],
            centerbias,
            replace(training, seed=training.seed + number),
        )
        for number, first in enumerate(starts(data, development, start, split.members, training), 1)
    ]
    readout = mixture(train_members(data, members, report))
    with side_by_side() as pool:
        gains = [gain for gain, _ in judge_images(readout, data, held_out, centerbias, pool)]
    return ModelBundle(
        backbone=data.cache.backbone,
        readout=readout,
        centerbias=centerbias,
        display_size=data.cache.display_size,
        training={
            "corpus": corpus_name,
            "images": len(development),
            "fixations": sum(data.fixations[i] for i in development),
            "split": asdict(split),
            "settings": asdict(training),
            "centerbias": {"bandwidth": prior.bandwidth, "uniform_share": prior.uniform_share},
            "held_out_images": [data.cache.image_ids[i] for i in held_out],
        },
        metrics={"grid_information_gain": round(float(np.mean(gains)), 4)},
    )


def starts(
    data: TrainingSet,
    images: list[int],
    start: Readout | None,
    count: int,
    training: TrainingConfig,
) -> list[Readout]:
    """Where each of `count` members begins.

    Args:
        data, images: whose channel statistics new readouts take.
        start: its members are taken instead, round and round.
        count: members, numbered from 1.
        training: the shape and the seed, to which a member's number is added.

    Raises:
        InputError: `start` has another shape.
    """
    if start is not None:
        config = start.config
        if (config.activation, config.widths) != (training.activation, training.widths):
            raise InputError(
                f"the readout to start from has activation {config.activation} and widths "
                f"{config.widths}: set training.activation and training.widths to these"
            )
        return [single(start, number) for number in range(count)]
    standardisation = channel_statistics(data.cache, images)
    return [
        new_readout(*standardisation, replace(training, seed=training.seed + number))
        for number in range(1, count + 1)
    ]


def pretrain(
    data: TrainingSet,
    split: SplitConfig,
    training: TrainingConfig,
    report: Callable[[int, Epoch], None],
    train_members: TrainMembers = train_here,
) -> Readout:
    """One readout trained on all images but the first fold, which decides when it stops; members
    can start from it."""
    fold = data.folds(split.folds, split.seed)
    train = [i for i in data.images if fold[i] != 0]
    member = Member(
        0,
        new_readout(*channel_statistics(data.cache, train), training),
        train,
        [i for i in data.images if fold[i] == 0],
        torch.from_numpy(data.centerbias(train).log_density),
        training,
    )
    return train_members(data, [member], report)[0]
