"""Cross-validation over images: each one gets a score from a member that has not seen it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch

from gazecore.errors import InputError
from gazecore.model.bundle import ModelBundle
from gazecore.model.centerbias import Centerbias
from gazecore.model.readout import Readout
from gazecore.threads import side_by_side
from gazecore.training.examples import TrainingSet
from gazecore.training.fit import describe, settled, starts
from gazecore.training.members import (
    Member,
    Report,
    TrainMembers,
    judge_images,
    mixture,
    train_here,
)
from gazecore.training.recipes import Recipe
from gazecore.wording import counted

OUT_OF_FOLD = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("fold", pa.int32(), nullable=False),
        pa.field("fixations", pa.int32(), nullable=False),
        pa.field("information_gain", pa.float64(), nullable=False),
        pa.field("centerbias_log_likelihood", pa.float64(), nullable=False),
    ]
)
"""Scores of the members whose test images `fold` are, in bits per fixation on the grid:
`information_gain` over the centre bias of that fold's training images, whose own likelihood over
the uniform density's is `centerbias_log_likelihood`."""


@dataclass(frozen=True)
class Fold:
    """One cut of the images: positions to train on and to test on, and the centre bias of those to
    train on."""

    number: int
    train: list[int]
    test: list[int]
    centerbias: Centerbias


@dataclass(frozen=True)
class FittedFold:
    """A fold and the mixture of its members."""

    fold: Fold
    readout: Readout


def make_folds(data: TrainingSet, count: int, seed: int) -> list[Fold]:
    """Cut the images into folds: fold k tests on part k and trains on the rest.

    Raises:
        InputError: a fold has no images.
    """
    part = data.folds(count, seed)
    parts = [[i for i in data.images if part[i] == number] for number in range(count)]
    if not all(parts):
        raise InputError(
            f"{counted(len(data.images), 'images')} with fixations: too few for {count} folds"
        )
    folds = []
    for number in range(count):
        train = [i for i in data.images if part[i] != number]
        folds.append(Fold(number, train, parts[number], data.centerbias(train)))
    return folds


def cross_validate(
    data: TrainingSet,
    recipe: Recipe,
    report: Report,
    start: ModelBundle | None = None,
    train_members: TrainMembers = train_here,
) -> tuple[ModelBundle, list[FittedFold]]:
    """Train the members of every fold.

    Args:
        data: features and fixations.
        recipe: how.
        report: is called with each member's news; fold k's are numbers k * members + 1 and so on.
        start: see `fit_bundle`; its standardisation is that of all members.
        train_members: where members are trained.

    Returns:
        The mixture of all members over the centre bias of all images, and the folds. The channel
        statistics, which know no fixations, are those of all images.

    Raises:
        InputError: there are too few images, or `start` has another shape.
    """
    recipe = settled(recipe, start)
    split, training = recipe.split, recipe.training
    folds = make_folds(data, split.folds or 0, split.seed)
    count = len(folds) * split.members
    rehearsed = data.rehearsed(start.training.held_out_images if start else ())
    members = [
        Member(
            number,
            first,
            [*fold.train, *rehearsed],
            fold.test,
            data.centerbiases([*fold.train, *rehearsed]),
            replace(training, seed=training.seed + number),
        )
        for number, (first, fold) in enumerate(
            zip(
                starts(data, data.images, start, count, training),
                [fold for fold in folds for _ in range(split.members)],
                strict=True,
            ),
            1,
        )
    ]
    readouts = train_members(data, members, report)
    fitted = [
        FittedFold(fold, mixture(readouts[k * split.members : (k + 1) * split.members]))
        for k, fold in enumerate(folds)
    ]
    prior = data.centerbias(data.images)
    bundle = ModelBundle(
        backbone=data.backbone,
        readout=mixture(readouts),
        centerbias=torch.from_numpy(prior.log_density),
        display_size=data.display_size,
        training=describe(data, recipe, prior, [*data.images, *rehearsed], start),
    )
    return bundle, fitted


def judge_folds(
    data: TrainingSet, folds: list[FittedFold], on_image: Callable[[], None] = lambda: None
) -> pa.Table:
    """The scores of all folds' test images, of the schema `OUT_OF_FOLD`."""
    return pa.concat_tables([_judge(data, fitted, on_image) for fitted in folds])


def averages(out_of_fold: pa.Table) -> dict[str, float]:
    """What a bundle says it reached: mean out-of-fold gains over images, and over fixations."""
    gains = out_of_fold["information_gain"].to_numpy()
    counts = out_of_fold["fixations"].to_numpy()
    return {
        "out_of_fold_information_gain": round(float(gains.mean()), 4),
        "out_of_fold_information_gain_fixations": round(
            float(np.average(gains, weights=counts)), 4
        ),
    }


def _judge(data: TrainingSet, fitted: FittedFold, on_image: Callable[[], None]) -> pa.Table:
    fold = fitted.fold
    centerbias = torch.from_numpy(fold.centerbias.log_density)
    with side_by_side() as pool:
        found = judge_images(fitted.readout, data, fold.test, centerbias, pool, on_image)
    gains, baselines = zip(*found, strict=True)
    return pa.table(
        [
            [data.image_ids[i] for i in fold.test],
            [fold.number] * len(fold.test),
            [data.fixations[i] for i in fold.test],
            gains,
            baselines,
        ],
        schema=OUT_OF_FOLD,
    )
