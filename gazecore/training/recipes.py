"""How readouts are trained: settings, which need no torch."""

import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from gazecore.errors import InputError
from gazecore.model.spec import Activation

Shape = tuple[tuple[int, ...], Activation]
"""Output channels of a readout's 1x1 convolutions, and the nonlinearity between them."""

Part = Literal["calibration"]
"""Of a readout, what is trained alone; see `Readout.calibration`."""

NEW_SHAPE: Shape = ((64, 32, 2, 1), "softplus")
"""Of readouts that start from nothing: the default model's."""


@dataclass(frozen=True)
class TrainingConfig:
    """How a readout is trained; by default as one that starts from nothing.

    Attributes:
        epochs: see `TrainingSettings`, as all others.
    """

    epochs: int = 6
    learning_rate: float = 2e-3
    weight_decay: float = 1.0
    dropout: float = 0.5
    batch_size: int = 8
    widths: tuple[int, ...] | None = None
    activation: Activation | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "learning_rate", "batch_size"):
            if not 0 < getattr(self, name) < math.inf:  # so that what is no number fails too
                raise InputError(f"training.{name} must be positive, not {getattr(self, name)}")
        if not 0 <= self.weight_decay < math.inf:
            raise InputError(
                f"training.weight_decay must not be negative, not {self.weight_decay:g}"
            )
        if not 0 <= self.dropout < 1:
            raise InputError(f"training.dropout must be at least 0 and below 1, not {self.dropout}")

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


FINE_TUNING = TrainingConfig(epochs=3, learning_rate=1e-3, weight_decay=0.3)
"""Readouts that have been trained before."""

CALIBRATING = TrainingConfig(epochs=10, learning_rate=6e-2, weight_decay=0, dropout=0)
"""How a calibration is trained: few numbers, from few images, that start near where they end."""


@dataclass(frozen=True)
class TrainingSettings:
    """How a readout is trained."""

    epochs: int | None = None
    """Passes over the images; the learning rate falls to zero over them, along a cosine. By default
    6, of readouts that were trained before 3, and 10 of a calibration."""
    learning_rate: float | None = None
    """Of Adam, at the start. By default 2e-3, 1e-3 and 6e-2."""
    weight_decay: float | None = None
    """On the convolutions' weights, decoupled (Loshchilov & Hutter 2019). By default 1, 0.3 and
    0."""
    dropout: float | None = None
    """Share of the feature channels that each step does without. By default 0.5, 0.5 and 0."""
    batch_size: int = 8
    """Images of a step, each weighted equally. Of more workers than this, some have nothing to
    do."""
    widths: tuple[int, ...] | None = None
    """Channels of the 1x1 convolutions. By default 64 32 2 1; the paper's are 16 32 2 1."""
    activation: Activation | None = None
    """Nonlinearity between them. By default softplus; the paper's is relu."""
    seed: int = 0
    """Of the initial weights and of the order of the images."""

    def over(self, usual: TrainingConfig) -> TrainingConfig:
        """The usual config with what is set here. Raises InputError."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(usual, **{name: v for name, v in given.items() if v is not None})


@dataclass(frozen=True)
class SplitConfig:
    """Which images train and judge. Images that look the same stay together."""

    folds: int | None = None
    """Cross-validate over so many folds of the images: the members of a fold are judged on it and
    train on the rest, so that every image gets a score of members that have not seen it. By default
    one part of the images is held out instead."""
    parts: int = 7
    """Without --folds, images are cut into so many parts at random. The first is held out from
    everything and judges the result; the others train."""
    members: int = 3
    """Readouts in the mixture, with --folds in each fold's. More cost time wherever the model is
    used."""
    seed: int = 0
    """Of the random cut."""

    def __post_init__(self) -> None:
        if self.members < 1:
            raise InputError(f"--members must be positive, not {self.members}")
        if self.folds is not None and self.folds < 3:
            raise InputError(f"cross-validation needs at least 3 folds, not {self.folds}")
        if self.parts < 2:
            raise InputError(f"--parts must be at least 2, not {self.parts}")


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
    training: TrainingSettings = field(default_factory=TrainingSettings)
    init: str | None = None
    """Fine-tune: a bundle (a path, `default`) whose members the new ones start from, in turn. They
    keep its shape."""
    only: Part | None = None
    """`calibration`: adapt the bundle of --init to another corpus by what screens and laboratories
    differ in alone: the centre bias and its weight, the blur, and the gain of the log density, for
    all its members together. Fifty images and a minute are enough."""
    pretrain: tuple[str, ...] = ()
    """Train --members readouts on these caches first, from which the others start in turn, and go
    on with them beside the others, so that nothing is forgotten. The first of the --parts of each
    is held out."""
    pretrain_name: str = "corpus"
    """What the bundle calls the corpus of --pretrain."""

    def __post_init__(self) -> None:
        if not self.cache:
            raise InputError("there is nothing to train on: name a feature cache")
        if self.only and (self.init is None or self.split.folds):
            raise InputError(f"--only {self.only} adapts the bundle of --init, without --folds")
        if self.init is not None and self.pretrain:
            raise InputError("members start either from --init or from --pretrain")

    @property
    def recipe(self) -> Recipe:
        """Of the training."""
        if self.only:
            usual = CALIBRATING
        else:
            usual = FINE_TUNING if self.init or self.pretrain else TrainingConfig()
        return Recipe(self.name, self.split, self.training.over(usual), self.only)

    @property
    def first_recipe(self) -> Recipe:
        """Of the pretraining, which is always the usual one for readouts of the same shape."""
        own = self.training
        training = TrainingConfig(
            batch_size=own.batch_size, widths=own.widths, activation=own.activation, seed=own.seed
        )
        return Recipe(self.pretrain_name, replace(self.split, folds=None), training)

    def identity(self) -> dict[str, Any]:
        """What decides the result, but for what the caches and the bundle of --init hold."""
        found = {f.name: getattr(self, f.name) for f in fields(Course)}
        del found["out"]
        return {**found, "split": asdict(self.split), "training": asdict(self.recipe.training)}

    def settled(self, start: Shape | None) -> "Course":
        """The same with the shape of the readouts to start from, or else the usual one.

        Raises:
            InputError: another one is asked for.
        """
        usual = self.recipe.training
        widths, activation = usual.of_shape(start or usual.shape).shape
        return replace(self, training=replace(self.training, widths=widths, activation=activation))
