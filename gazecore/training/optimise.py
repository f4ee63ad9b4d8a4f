"""One readout in training: its steps, their order, and the state between them."""

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from gazecore.errors import InputError, RunFailed
from gazecore.model.readout import Readout
from gazecore.training.examples import Example
from gazecore.training.objective import priors, readout_likelihood
from gazecore.training.recipes import Part, TrainingConfig


@dataclass(frozen=True)
class Epoch:
    """What an epoch reached.

    Attributes:
        number: from 1.
        loss: in training, nats per fixation.
        information_gain: held out, bits per fixation over the centre bias, images weighted equally.
        images: trained on in this epoch, by all ranks.
        seconds: how long it took this process to train and to judge; less, if it was restored in
            the middle of it.
    """

    number: int
    loss: float
    information_gain: float
    images: int
    seconds: float = field(compare=False)


@dataclass(frozen=True)
class Share:
    """One process's part of a step: its images, and how many all processes have together."""

    images: list[int]
    total: int


@dataclass(frozen=True)
class Peers:
    """The processes that train one readout together.

    Attributes:
        rank: this one, 0..ranks-1.
        ranks: how many there are.
        all_reduce: puts in place of each tensor of a list its sum over all ranks. All ranks call
            it equally often, with tensors of the same shapes.
    """

    rank: int = 0
    ranks: int = 1
    all_reduce: Callable[[list[torch.Tensor]], None] = lambda tensors: None


class Trainer:
    """Maximum-likelihood training of one readout, alone or as one of several processes.

    The order of the images is a permutation of (seed, epoch); of every batch each rank takes its
    slice. A rank's loss is the sum over its images divided by the whole batch's number, so that
    the sum over ranks does not depend on how many there are.
    """

    def __init__(
        self,
        readout: Readout,
        images: list[int],
        centerbias: torch.Tensor,
        config: TrainingConfig,
        pool: Executor,
        peers: Peers = Peers(),
        only: Part | None = None,
    ) -> None:
        """Begin at the first step.

        Args:
            readout: where training starts; it is changed in place.
            images: to train on.
            centerbias: log density in normalised coordinates, one for all images or, with a
                dimension more in front, one for each corpus.
            config: how.
            pool: from `threads.side_by_side`.
            peers: who else trains this readout.
            only: the part of it that is trained; None: all of it.
        """
        if not images:
            raise InputError("there is no image to train on")
        self.readout = readout.requires_grad_(only is None)
        self.config = config
        self.peers = peers
        self.centerbias = centerbias
        self.pool = pool
        self.epoch = 0
        self.history: list[Epoch] = []
        self._images = images
        self._position = 0
        self._loss = 0.0
        self._since = time.monotonic()
        self._prior = priors(centerbias)
        shrinking: list[torch.nn.Parameter] = []
        if only == "calibration":
            others = readout.calibration()
        else:
            shrinking = list(readout.weights)
            others = [*readout.biases, readout.log_blur, readout.centerbias_weight]
        self._parameters = [p.requires_grad_(True) for p in (*shrinking, *others)]
        self._optimiser = torch.optim.AdamW(
            [
                {"params": shrinking, "weight_decay": config.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=config.learning_rate,
        )

    @property
    def steps(self) -> int:
        """Steps taken since the first; the same on all ranks."""
        return self.epoch * -(-len(self._images) // self.config.batch_size) + self._position

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        return self.epoch >= self.config.epochs

    def shares(self) -> list[Share]:
        """This rank's part of each step that is left of this epoch; it may be empty."""
        rng = np.random.default_rng((self.config.seed, self.epoch))
        order = rng.permutation(self._images)
        size = self.config.batch_size
        batches = [order[i : i + size].tolist() for i in range(0, len(order), size)]
        return [
            Share(batch[self.peers.rank :: self.peers.ranks], len(batch))
            for batch in batches[self._position :]
        ]

    def step(self, examples: list[Example], total: int) -> float:
        """Take one step.

        Args:
            examples: this rank's share.
            total: images of all ranks' shares.

        Returns:
            The loss over all ranks, nats per fixation.

        Raises:
            RunFailed: it is not finite.
        """
        sums = [torch.zeros(()), *map(torch.zeros_like, self._parameters)]
        with self._dropped_out():
            for part in self.pool.map(self._gradients, examples):
                for one, value in zip(sums, part, strict=True):
                    one += value / total
        self.peers.all_reduce(sums)
        loss = sums[0].item()
        if not math.isfinite(loss):
            raise RunFailed(
                f"the loss became {loss} in epoch {self.epoch + 1}: lower the learning rate"
            )
        for parameter, gradient in zip(self._parameters, sums[1:], strict=True):
            parameter.grad = gradient
        for group in self._optimiser.param_groups:
            group["lr"] = self._learning_rate()
        self._optimiser.step()
        self._position += 1
        self._loss += loss
        return loss

    def end_epoch(self, gains: Iterable[float]) -> Epoch:
        """Close an epoch with the gains that this rank found on its held-out images.

        Raises:
            RunFailed: their mean is not finite.
        """
        found = list(gains)
        sums = [torch.tensor([sum(found), len(found)], dtype=torch.float64)]
        self.peers.all_reduce(sums)
        gain = float(sums[0][0] / sums[0][1])
        if not math.isfinite(gain):
            raise RunFailed(
                f"the held-out information gain became {gain} in epoch {self.epoch + 1}: "
                "lower the learning rate"
            )
        self.epoch += 1
        now = time.monotonic()
        loss, seconds = self._loss / self._position, now - self._since
        done = Epoch(self.epoch, loss, gain, len(self._images), seconds)
        self.history.append(done)
        self._position, self._loss, self._since = 0, 0.0, now
        return done

    def state(self) -> dict[str, Any]:
        """All that the next step depends on; `torch.load` reads it back with `weights_only`."""
        return copy.deepcopy(
            {
                "readout": self.readout.state_dict(),
                "optimiser": self._optimiser.state_dict(),
                "epoch": self.epoch,
                "position": self._position,
                "loss": self._loss,
                "history": [asdict(epoch) for epoch in self.history],
            }
        )

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave, to a trainer of the same images and config."""
        state = copy.deepcopy(state)
        self.readout.load_state_dict(state["readout"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.epoch, self._position = state["epoch"], state["position"]
        self._loss = state["loss"]
        self.history = [Epoch(**epoch) for epoch in state["history"]]

    def _learning_rate(self) -> float:
        in_epoch = -(-len(self._images) // self.config.batch_size)
        done = (self.epoch * in_epoch + self._position) / (self.config.epochs * in_epoch)
        return self.config.learning_rate * (1 + math.cos(math.pi * done)) / 2

    @contextmanager
    def _dropped_out(self) -> Iterator[None]:
        """Without a part of the feature channels of each level, others in each step (dropout,
        Srivastava et al. 2014): a channel of infinite deviation has no weight and no gradient."""
        usual, share = self.readout.feature_std, self.config.dropout
        if not share:
            yield
            return
        rng = np.random.default_rng((self.config.seed, self.epoch, self._position))
        kept = torch.from_numpy(rng.random(len(usual)) >= share)
        self.readout.feature_std = torch.where(kept, usual * (1 - share), math.inf)
        try:
            yield
        finally:
            self.readout.feature_std = usual

    def _gradients(self, example: Example) -> tuple[torch.Tensor, ...]:
        """An image's loss and its gradient by each parameter."""
        likelihood = readout_likelihood(self.readout, example, self._prior(example))
        return -likelihood.detach(), *torch.autograd.grad(-likelihood, self._parameters)
