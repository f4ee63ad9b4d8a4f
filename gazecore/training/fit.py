"""From a training set to a bundle: split, centre bias, members, mixture."""

import copy
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
import torch

from gazecore.errors import InputError
from gazecore.model.bundle import ModelBundle
from gazecore.model.centerbias import Centerbias
from gazecore.model.readout import Readout
from gazecore.model.record import TrainingRecord
from gazecore.threads import side_by_side
from gazecore.training.examples import TrainingSet, channel_statistics
from gazecore.training.members import (
    Member,
    Report,
    TrainMembers,
    judge_images,
    mixture,
    new_readout,
    single,
    train_here,
)
from gazecore.training.recipes import Recipe, SplitConfig, TrainingConfig
from gazecore.wording import counted


def fit_bundle(
    data: TrainingSet,
    recipe: Recipe,
    report: Report,
    start: ModelBundle | None = None,
    train_members: TrainMembers = train_here,
) -> ModelBundle:
    """Train a mixture of readouts and judge it on images that took no part.

    Args:
        data: features and fixations.
        recipe: how.
        report: is called with each member's news.
        start: members begin as this bundle's members, and keep its standardisation and shape; None:
            they begin at random.
        train_members: where members are trained.

    Returns:
        A bundle whose metrics hold the information gain on the grid of the held-out images.

    Raises:
        InputError: there are too few images, or `start` has another shape.
    """
    split, recipe = recipe.split, settled(recipe, start)
    require_enough(data, split)
    part = data.folds(split.parts, split.seed)
    development = [i for i in data.images if part[i] != 0]
    held_out = [i for i in data.images if part[i] == 0]
    if recipe.only and start:
        firsts = [copy.deepcopy(start.readout)]  # all its members are adapted together
    else:
        firsts = starts(data, development, start, split.members, recipe.training)
    rehearsed = data.rehearsed(start.training.held_out_images if start else ())
    prior = data.centerbias(development)
    centerbias = torch.from_numpy(prior.log_density)
    train = [*development, *rehearsed]
    members = [
        Member(
            number,
            first,
            train,
            held_out,
            data.centerbiases(train),
            replace(recipe.training, seed=recipe.training.seed + number),
            recipe.only,
        )
        for number, first in enumerate(firsts, 1)
    ]
    readout = mixture(train_members(data, members, report))
    with side_by_side() as pool:
        gains = [gain for gain, _ in judge_images(readout, data, held_out, centerbias, pool)]
    return ModelBundle(
        backbone=data.backbone,
        readout=readout,
        centerbias=centerbias,
        display_size=data.display_size,
        training=describe(data, recipe, prior, train, start),
        metrics={"grid_information_gain": round(float(np.mean(gains)), 4)},
    )


def require_enough(data: TrainingSet, split: SplitConfig) -> None:
    """Raise InputError where there are too few images for a split, before anything is computed."""
    count = split.folds or split.parts
    part = data.folds(count, split.seed)
    if len({int(part[i]) for i in data.images}) < count:
        what = "folds" if split.folds else "parts"
        raise InputError(
            f"{counted(len(data.images), 'images')} with fixations: too few for {count} {what}"
        )


def seen_before(data: TrainingSet, judged: Sequence[str], start: TrainingRecord) -> list[str]:
    """The judged images that trained what members start from."""
    return [
        image_id
        for cache, digest in zip(data.caches, data.digests, strict=True)
        for image_id in start.seen(digest, set(judged).intersection(cache.image_ids))
    ]


def require_unseen(data: TrainingSet, start: TrainingRecord, name: str) -> None:
    """Raise InputError where out-of-fold scores would be those of images that were seen."""
    if seen := seen_before(data, data.image_ids, start):
        raise InputError(
            f"{name} was trained on {len(seen)} of these images, such as {seen[0]}: with --folds "
            "every image is judged by what has not seen it; start elsewhere, or without --folds"
        )


def starts(
    data: TrainingSet,
    images: list[int],
    start: ModelBundle | None,
    count: int,
    training: TrainingConfig,
) -> list[Readout]:
    """Where each of `count` members begins.

    Args:
        data, images: whose channel statistics new readouts take.
        start: its members are taken instead, round and round.
        count: members, numbered from 1.
        training: the shape and the seed, to which a member's number is added.
    """
    if start is not None:
        return [single(start.readout, number) for number in range(count)]
    standardisation, levels = channel_statistics(data, images), len(data.backbone.pyramid)
    return [
        new_readout(*standardisation, replace(training, seed=training.seed + number), levels)
        for number in range(1, count + 1)
    ]


def settled(recipe: Recipe, start: ModelBundle | None) -> Recipe:
    """The recipe with the shape of its readouts: that of the bundle they start from, if any.

    Raises:
        InputError: the recipe gives another one.
    """
    training = recipe.training
    shape = start.readout.config.shape if start else training.shape
    return replace(recipe, training=training.of_shape(shape))


def describe(
    data: TrainingSet,
    recipe: Recipe,
    prior: Centerbias,
    trained: Sequence[int],
    start: ModelBundle | None,
) -> TrainingRecord:
    """What a bundle says about its training, and about that of the bundle it started from."""
    return TrainingRecord(
        corpus=f"{recipe.name} beside {start.training.corpus}"
        if start and data.beside
        else recipe.name,
        corpora_sha256=data.digests,
        images=len(trained),
        fixations=sum(data.fixations[i] for i in trained),
        split=asdict(recipe.split),
        settings={
            **asdict(recipe.training),
            **({"only": recipe.only} if recipe.only else {}),
        },
        centerbias={"bandwidth": prior.bandwidth, "uniform_share": prior.uniform_share},
        held_out_images=[
            data.image_ids[i] for i in sorted({*data.images, *data.beside} - set(trained))
        ],
        started_from=start.training if start else None,
    )
