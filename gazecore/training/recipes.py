"""How readouts are trained: settings, which need no torch."""

import math
from dataclasses import dataclass, field, fields, replace
from typing import Literal

from gazecore.errors import InputError
from gazecore.model.spec import Activation

Shape = tuple[tuple[int, ...], Activation]
"""Output channels of a readout's 1x1 convolutions, and the nonlinearity between them."""

Part = Literal["calibration"]
"""Of a readout, what is trained alone; see `Readout.calibration`."""

NEW_SHAPE: Shape = ((16, 32, 2, 1), "softplus")


@dataclass(frozen=True)
class TrainingConfig:
    """How a readout is trained.

    Attributes:
        epochs: passes over the training images; the learning rate falls to zero over them, along a
            cosine. Six instead of twelve changed the gain on OSIE by 0.007 bit; after pretraining
            fewer are better (on MIT1003, 3 gained 0.01 to 0.02 bit more than 5).
        patience: epochs without a better state after which training ends; the best state is kept,
            not the last. Where training overfits, the best epoch was the third to fifth.
        learning_rate: of Adam, at the start. Half of it changed the gain on OSIE by 0.005 bit;
            after pretraining 1e-3 was best.
        weight_decay: on the convolutions' weights, times the learning rate (decoupled, Loshchilov &
            Hutter 2019). It is large because the first layer has 40,960 weights: one member reached
            0.05 bit more on OSIE with 3 than with 0.001, and 0.4 less with 10. After
            pretraining it matters little: 1 was best by 0.004.
        batch_size: images per step, each weighted equally. Larger ones make fewer, steadier steps
            of an epoch; of more workers than this, some have nothing to do.
        widths: output channels of the 1x1 convolutions. By default those of the readouts to start
            from, else the paper's, 16 32 2 1. The default model's 64 32 2 1 gains 0.01 bit out of
            fold on MIT1003 and is four times as large.
        activation: nonlinearity between them. By default that of the readouts to start from, else
            softplus, which reached 0.024 bit more out of fold on MIT1003 than the paper's relu.
        seed: of the initial weights and of the order of the images; the result varies by less than
            0.01 bit with it.
    """

    epochs: int = 8
    patience: int = 4
    learning_rate: float = 2e-3
    weight_decay: float = 3.0
    batch_size: int = 8
    widths: tuple[int, ...] | None = None
    activation: Activation | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "patience", "learning_rate", "batch_size"):
            if not 0 < getattr(self, name) < math.inf:  # so that what is no number fails too
                raise InputError(f"training.{name} must be positive, not {getattr(self, name)}")
        if not 0 <= self.weight_decay < math.inf:
            raise InputError(
                f"training.weight_decay must not be negative, not {self.weight_decay:g}"
            )

    def or_else(self, other: "TrainingConfig") -> "TrainingConfig":
        """The same with another's settings where these are the usual ones."""
        usual = [f.name for f in fields(self) if getattr(self, f.name) == f.default]
        return replace(self, **{name: getattr(other, name) for name in usual})

    @property
    def shape(self) -> Shape:
        """What readouts have that start from nothing."""
        return self.widths or NEW_SHAPE[0], self.activation or NEW_SHAPE[1]

    def of_shape(self, shape: Shape) -> "TrainingConfig":
        """The same with this shape. Raises InputError where another one is given."""
        if (self.widths or shape[0], self.activation or shape[1]) != shape:
            raise InputError(
                f"the readouts to start from have the shape {' '.join(map(str, shape[0]))} with "
                f"{shape[1]}, and keep it: leave out --training.widths and --training.activation"
            )
        return replace(self, widths=shape[0], activation=shape[1])


CALIBRATING = TrainingConfig(epochs=10, patience=10, learning_rate=6e-2, weight_decay=0)
"""How a calibration is trained: few numbers, from few images, that start near where they end."""


@dataclass(frozen=True)
class SplitConfig:
    """Which images train, stop and judge. Images that look the same stay together."""

    folds: int | None = None
    """Cross-validate over so many folds of the images: the members of a fold are judged on it, stop
    on the next one and train on the rest, so that every image gets a score of members that have not
    seen it. By default one part of the images is held out instead."""
    parts: int = 7
    """Without --folds, images are cut into so many parts at random. The first is held out from
    everything and judges the result; the others train."""
    members: int = 3
    """Readouts in the mixture, with --folds in each fold's. Without --folds each one stops on a
    part of its own and trains on the others. More cost time wherever the model is used."""
    seed: int = 0
    """Of the random cut."""

    def __post_init__(self) -> None:
        if self.members < 1:
            raise InputError(f"--members must be positive, not {self.members}")
        if self.folds is not None and self.folds < 3:
            raise InputError(f"cross-validation needs at least 3 folds, not {self.folds}")
        if self.members > self.parts - 2:
            raise InputError(
                f"--members {self.members} needs --parts {self.members + 2} or more, "
                f"not {self.parts}"
            )


@dataclass(frozen=True)
class Recipe:
    """How a bundle is made.

    Attributes:
        name: how the bundle calls the corpus.
        split: which images do what.
        training: of each member; its seed is the first member's.
        only: what of the members to start from is trained; None: all of them.
    """

    name: str
    split: SplitConfig
    training: TrainingConfig
    only: Part | None = None


@dataclass(frozen=True)
class Course:
    """A training from feature caches to a bundle, perhaps with a pretraining before it."""

    cache: tuple[str, ...]
    """Feature caches that `gazecore features` made, trained on together. Local or fsspec URIs."""
    out: str
    """The bundle to write, MODEL.safetensors. Local or any fsspec URI."""
    name: str = "corpus"
    """What the bundle calls the corpus."""
    split: SplitConfig = field(default_factory=SplitConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    init: str | None = None
    """Fine-tune: a bundle (a path, `default`) whose members the new ones start from, in turn. They
    keep its shape."""
    only: Part | None = None
    """`calibration`: adapt the bundle of --init to another corpus by what screens and laboratories
    differ in alone: the centre bias and its weight, the blur, and the gain of the log density, for
    all its members together. Fifty images and a minute are enough."""
    pretrain: tuple[str, ...] = ()
    """Train on these caches first: --members readouts, from which the others start in turn. The
    first of the --parts of each is held out."""
    pretrain_name: str = "corpus"
    """What the bundle calls the corpus of --pretrain."""
    pretraining: TrainingConfig = field(default_factory=TrainingConfig)
    """How the first readouts are trained."""

    def __post_init__(self) -> None:
        if not self.cache:
            raise InputError("there is nothing to train on: name a feature cache")
        if self.only and (self.init is None or self.split.folds):
            raise InputError(f"--only {self.only} adapts the bundle of --init, without --folds")
        if self.init is not None and self.pretrain:
            raise InputError("members start either from --init or from --pretrain")
        if self.pretrain:
            for name in ("widths", "activation"):
                one, other = getattr(self.training, name), getattr(self.pretraining, name)
                if None not in (one, other) and one != other:
                    raise InputError(
                        f"readouts keep their shape: --training.{name} and --pretraining.{name} "
                        "must be the same; give one of them"
                    )

    @property
    def recipe(self) -> Recipe:
        """Of the training."""
        training = self.training.or_else(CALIBRATING) if self.only else self.training
        return Recipe(self.name, self.split, training, self.only)

    @property
    def first_recipe(self) -> Recipe:
        """Of the pretraining."""
        return Recipe(self.pretrain_name, replace(self.split, folds=None), self.pretraining)

    def settled(self, start: Shape | None) -> "Course":
        """The same with the shape of the readouts to start from, or one shape for both stages.

        Raises:
            InputError: another one is asked for.
        """
        first, training = self.pretraining, self.training
        if start:
            training = training.of_shape(start)
        elif self.pretrain:
            training = replace(
                training,
                widths=training.widths or first.widths,
                activation=training.activation or first.activation,
            )
            first = first.of_shape(training.shape)
        return replace(
            self,
            training=training.of_shape(training.shape),
            pretraining=first.of_shape(first.shape),
        )
