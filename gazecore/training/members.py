"""The training loop of one readout, and what goes into it and comes out of it."""

import copy
import functools
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import torch

from gazecore.errors import InputError
from gazecore.model.readout import Readout, ReadoutConfig
from gazecore.threads import side_by_side
from gazecore.training.examples import Example, TrainingSet
from gazecore.training.objective import judge, priors
from gazecore.training.optimise import Epoch, Peers, Trainer
from gazecore.training.recipes import Part, TrainingConfig

_READ_AT_ONCE = 8


def run(
    trainer: Trainer,
    data: TrainingSet,
    held_out: list[int],
    report: Callable[[Epoch], None],
    on_step: Callable[[int], None] = lambda images: None,
) -> Readout:
    """Train to the end, from wherever the trainer stands.

    Args:
        trainer: new or restored.
        data: holds the trainer's images.
        held_out: images that each epoch is judged on, for people to see; each rank judges its
            slice.
        report: is called after every epoch.
        on_step: is called after every step with the images that all ranks trained on, and may take
            `trainer.state()`.

    Returns:
        The readout of the last epoch.

    Raises:
        InputError: no image is held out.
        RunFailed: the loss is not finite.
    """
    if not held_out:
        raise InputError("there is no image to judge the epochs by")
    own = held_out[trainer.peers.rank :: trainer.peers.ranks]
    while not trainer.finished:
        shares = trainer.shares()
        steps = data.read(share.images for share in shares)
        for share, examples in zip(shares, steps, strict=True):
            trainer.step(examples, share.total)
            on_step(share.total)
        found = judge_images(trainer.readout, data, own, trainer.centerbias, trainer.pool)
        report(trainer.end_epoch([gain for gain, _ in found]))
    return copy.deepcopy(trainer.readout).eval().requires_grad_(False)


@dataclass(frozen=True)
class Member:
    """A readout that is to be trained.

    Attributes:
        number: from 1.
        start: where it begins.
        train, held_out: images to train on, and those that each epoch is judged on.
        centerbias: see `Trainer`.
        config: how.
        only: see `Trainer`.
    """

    number: int
    start: Readout
    train: list[int]
    held_out: list[int]
    centerbias: torch.Tensor
    config: TrainingConfig
    only: Part | None = None

    def trainer(self, pool: Executor, peers: Peers = Peers()) -> Trainer:
        """At the first step; `pool` and `peers` as `Trainer` takes them."""
        return Trainer(self.start, self.train, self.centerbias, self.config, pool, peers, self.only)


Report = Callable[[int, Epoch | int], None]
"""Takes a member's number, and an epoch that it ended or how many images it was trained on since
the last word."""

TrainMembers = Callable[[TrainingSet, list[Member], Report], list[Readout]]
"""Trains members: here, or on a cluster."""


def train_here(data: TrainingSet, members: list[Member], report: Report) -> list[Readout]:
    """Train members one after the other in this process, from the first step to the end."""
    found = []
    for member in members:
        with side_by_side() as pool:
            trainer = member.trainer(pool)
            show = functools.partial(report, member.number)
            found.append(run(trainer, data, member.held_out, show, show))
    return found


def judge_images(
    readout: Readout,
    data: TrainingSet,
    images: list[int],
    centerbias: torch.Tensor,
    pool: Executor,
    on_image: Callable[[], None] = lambda: None,
) -> list[tuple[float, float]]:
    """`judge` of each image.

    Args:
        readout, data, images: what is judged, on which images.
        centerbias: see `objective.priors`.
        pool: from `side_by_side`.
        on_image: is called after each.
    """
    prior = priors(centerbias)

    def judge_example(example: Example) -> tuple[float, float]:
        return judge(readout, example, prior(example))

    groups = [images[i : i + _READ_AT_ONCE] for i in range(0, len(images), _READ_AT_ONCE)]
    judged = []
    for examples in data.read(groups):
        for found in pool.map(judge_example, examples):
            judged.append(found)
            on_image()
    return judged


def new_readout(
    mean: torch.Tensor, deviation: torch.Tensor, config: TrainingConfig, levels: int = 1
) -> Readout:
    """A readout with random weights that reads channels of this mean and deviation, those of each
    of the pyramid's levels one after the other."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        readout = Readout(ReadoutConfig(len(mean) // levels, *config.shape, levels=levels))
    readout.feature_mean, readout.feature_std = mean, deviation
    return readout


def single(readout: Readout, number: int) -> Readout:
    """One member of a mixture as a readout of its own; `number` counts round and round."""
    config = readout.config
    number %= config.members
    alone = Readout(replace(config, members=1))
    alone.load_state_dict(
        {
            key: value if key.startswith("feature_") else value[number : number + 1]
            for key, value in readout.state_dict().items()
        }
    )
    return alone


def mixture(readouts: list[Readout]) -> Readout:
    """One readout whose members are those of the given ones, which share their standardisation."""
    members = sum(readout.config.members for readout in readouts)
    joined = Readout(replace(readouts[0].config, members=members))
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
