"""A training from feature caches to a bundle: open, check, pretrain, train, judge, write."""

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from typing import Protocol

from gazecore.evaluation.held_out import score_held_out
from gazecore.model.bundle import ModelBundle, load_bundle
from gazecore.model.record import TrainingRecord
from gazecore.shards.directory import claim
from gazecore.steps import Steps, uncounted
from gazecore.storage import Location
from gazecore.training.examples import TrainingSet, open_caches, require
from gazecore.training.fit import fit_bundle, require_enough, require_unseen, seen_before
from gazecore.training.folds import cross_validate
from gazecore.training.members import Report, TrainMembers, train_here
from gazecore.training.outputs import Outputs, require_readable
from gazecore.training.recipes import Course, Recipe


class TrainAt(Protocol):
    """Gives what trains the members of a stage."""

    def __call__(self, caches: Sequence[str], storage: Location) -> TrainMembers:
        """What trains on the caches, with checkpoints in `storage`."""


class Progress(Protocol):
    """Gives what is told the news of a stage."""

    def __call__(
        self, stage: str, members: int, images: int, epochs: int
    ) -> AbstractContextManager[Report]:
        """For the stage `pretraining` or `training`, of so many members with about so many images
        in an epoch, and at most so many epochs each."""


def _here(caches: Sequence[str], storage: Location) -> TrainMembers:
    return train_here


def _untold(stage: str, members: int, images: int, epochs: int) -> AbstractContextManager[Report]:
    return contextlib.nullcontext(lambda member, news: None)


@dataclass(frozen=True)
class Trained:
    """What a training left.

    Attributes:
        bundle: as it was written.
        outputs: where everything is.
        failed: image_id to message of the images that have no features.
        seen: image_id of held-out images that trained what the members started from.
    """

    bundle: ModelBundle
    outputs: Outputs
    failed: dict[str, str]
    seen: list[str]


def train(
    course: Course,
    command: str | None = None,
    train_at: TrainAt = _here,
    progress: Progress = _untold,
    steps: Steps = uncounted,
) -> Trained:
    """Train, judge and write; the same call continues where `train_at` keeps checkpoints.

    Args:
        course: what.
        command: what the bundle says that made it.
        train_at: where members are trained; by default in this process, without checkpoints.
        progress, steps: how somebody is told.

    Raises:
        InputError: the caches, the bundle to start from and the settings do not fit together, or
            something of others lies where the results go.
        RunMismatch: the outputs are of another training.
        RunFailed: a member cannot be trained.
    """
    outputs = Outputs(course.out)
    outputs.refuse_foreign()
    start = load_bundle(course.init) if course.init else None
    course = course.settled(start.readout.config.shape if start else None)
    data = _open(course.cache, steps)
    _check(course, data, start)
    identity = {
        **course.identity(),
        "corpus": data.fingerprint,
        "started_from": start.fingerprint if start else None,
    }

    def members(stage: str, caches: Sequence[str]) -> TrainMembers:
        storage = outputs.training / stage
        claim(storage / "training.json", identity, what=storage.uri)
        return train_at(caches, storage)

    if course.pretrain:
        first, other = course.first_recipe, _open(course.pretrain, steps)
        data = _open(course.cache, steps, course.pretrain)
        require_enough(other, first.split)
        identity["pretraining_corpus"] = other.fingerprint
        where = members("pretraining", course.pretrain)
        with progress("pretraining", *_amount(other, first)) as report:
            start = fit_bundle(other, first, report, None, where)
        outputs.pretrained.publish(start.to_bytes())
    where = members("members", [*course.cache, *course.pretrain])
    with progress("training", *_amount(data, course.recipe)) as report:
        if course.split.folds:
            bundle, folds = cross_validate(data, course.recipe, report, start, where)
        else:
            bundle, folds = fit_bundle(data, course.recipe, report, start, where), []
    record = replace(bundle.training, command=command)
    bundle = replace(bundle, training=record)
    own = {data.image_ids[i] for i in data.images}
    held_out = [i for i in record.held_out_images if i in own]
    with steps("judging", len(own) if folds else len(held_out)) as on_image:
        if folds:
            bundle = outputs.write_cross_validated(bundle, data, folds, on_image)
        else:
            bundle = outputs.write_held_out(
                bundle,
                lambda model: asdict(score_held_out(model, held_out, data.corpus, on_image)),
            )
    before = record.started_from or TrainingRecord()
    return Trained(bundle, outputs, data.failed, seen_before(data, held_out, before))


def _open(caches: Sequence[str], steps: Steps, beside: Sequence[str] = ()) -> TrainingSet:
    with steps("opening the features", len(caches) + len(beside)) as on_cache:
        return open_caches([*caches, *beside], on_cache, len(beside))


def _check(course: Course, data: TrainingSet, start: ModelBundle | None) -> None:
    """Raise what is wrong with the data before anything is computed."""
    split = course.split
    require_enough(data, split)
    if not split.folds:
        require_readable(data, split)
    if start:
        for cache in data.caches:
            require(cache, start.backbone, start.display_size, str(course.init))
        if split.folds:
            require_unseen(data, start.training, str(course.init))


def _amount(data: TrainingSet, recipe: Recipe) -> tuple[int, int, int]:
    """Members, images in an epoch of one, and epochs."""
    split = recipe.split
    parts = split.folds or split.parts
    images = len(data.images) * (parts - 1) // parts + len(data.beside)
    members = 1 if recipe.only else split.members * (split.folds or 1)
    return members, images, recipe.training.epochs
