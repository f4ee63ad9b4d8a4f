"""Cross-validation over images: each one gets a score from a member that has not seen it."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import numpy as np
import pyarrow as pa
import torch

from gazecore.errors import InputError
from gazecore.model.bundle import ModelBundle
from gazecore.model.centerbias import Centerbias
from gazecore.model.readout import Readout
from gazecore.training.examples import TrainingSet
from gazecore.training.fit import SplitConfig, starts
from gazecore.training.loop import Member, TrainMembers, judge_images, mixture, train_here
from gazecore.training.trainer import Epoch, TrainingConfig, side_by_side

OUT_OF_FOLD = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("fold", pa.int32(), nullable=False),
        pa.field("fixations", pa.int32(), nullable=False),
        pa.field("information_gain", pa.float64(), nullable=False),
        pa.field("centerbias_log_likelihood", pa.float64(), nullable=False),
    ]
)
"""Scores of the member whose test images `fold` are, in bits per fixation on the grid:
`information_gain` over the centre bias of that fold's training images, whose own likelihood over
the uniform density's is `centerbias_log_likelihood`."""


@dataclass(frozen=True)
class Fold:
    """One cut of the images: positions to train on, to stop on and to test on, and the centre bias
    of those to train on."""

    number: int
    train: list[int]
    stop: list[int]
    test: list[int]
    centerbias: Centerbias


def make_folds(data: TrainingSet, count: int, seed: int) -> list[Fold]:
    """Cut the images into folds: fold k tests on part k, stops on part k + 1, trains on the rest.

    Raises:
        InputError: a fold has no images.
    """
    part = data.folds(count, seed)
    parts = [[i for i in data.images if part[i] == number] for number in range(count)]
    if not all(parts):
        raise InputError(f"{len(data.images)} images with fixations are too few for {count} folds")
    folds = []
    for number in range(count):
        following = (number + 1) % count
        train = [i for i in data.images if part[i] not in (number, following)]
        folds.append(Fold(number, train, parts[following], parts[number], data.centerbias(train)))
    return folds


def cross_validate(
    data: TrainingSet,
    corpus_name: str,
    split: SplitConfig,
    training: TrainingConfig,
    report: Callable[[int, Epoch], None],
    start: Readout | None = None,
    train_members: TrainMembers = train_here,
) -> tuple[ModelBundle, pa.Table]:
    """Train one member per fold.

    Args:
        data: features and fixations.
        corpus_name: how the bundle calls the corpus.
        split: says how many folds.
        training: how.
        report: is called with the fold's number, from 1, and each of its epochs.
        train_members: where members are trained.
        start: see `fit_bundle`; its standardisation is that of all members.

    Returns:
        The mixture of all members over the centre bias of all images, and a table of the schema
        `OUT_OF_FOLD`. The channel statistics, which know no fixations, are those of all images.

    Raises:
        InputError: there are too few images.
    """
    folds = make_folds(data, split.folds, split.seed)
    members = [
        Member(
            fold.number + 1,
            first,
            fold.train,
            fold.stop,
            torch.from_numpy(fold.centerbias.log_density),
            replace(training, seed=training.seed + fold.number + 1),
        )
        for fold, first in zip(
            folds, starts(data, data.images, start, len(folds), training), strict=True
        )
    ]
    readouts = train_members(data, members, report)
    table = pa.concat_tables(
        [judge_fold(one, data, fold) for one, fold in zip(readouts, folds, strict=True)]
    )
    return join(readouts, data, corpus_name, split, training, table), table


def judge_fold(readout: Readout, data: TrainingSet, fold: Fold) -> pa.Table:
    """The scores of a fold's test images, of the schema `OUT_OF_FOLD`."""
    centerbias = torch.from_numpy(fold.centerbias.log_density)
    with side_by_side() as pool:
        found = judge_images(readout, data, fold.test, centerbias, pool)
    gains, baselines = zip(*found, strict=True)
    return pa.table(
        [
            [data.cache.image_ids[i] for i in fold.test],
            [fold.number] * len(fold.test),
            [data.fixations[i] for i in fold.test],
            gains,
            baselines,
        ],
        schema=OUT_OF_FOLD,
    )


def join(
    members: list[Readout],
    data: TrainingSet,
    corpus_name: str,
    split: SplitConfig,
    training: TrainingConfig,
    out_of_fold: pa.Table,
) -> ModelBundle:
    """The bundle of all folds' members; its metrics are those of the out-of-fold scores."""
    prior = data.centerbias(data.images)
    gains = out_of_fold["information_gain"].to_numpy()
    counts = out_of_fold["fixations"].to_numpy()
    return ModelBundle(
        backbone=data.cache.backbone,
        readout=mixture(members),
        centerbias=torch.from_numpy(prior.log_density),
        display_size=data.cache.display_size,
        training={
            "corpus": corpus_name,
            "images": len(data.images),
            "fixations": int(counts.sum()),
            "split": asdict(split),
            "settings": asdict(training),
            "centerbias": {"bandwidth": prior.bandwidth, "uniform_share": prior.uniform_share},
        },
        metrics={
            "out_of_fold_information_gain": round(float(gains.mean()), 4),
            "out_of_fold_information_gain_fixations": round(
                float(np.average(gains, weights=counts)), 4
            ),
        },
    )
