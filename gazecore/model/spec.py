"""What models are called and made of, for those that need no torch to say so."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from gazecore.errors import InputError

DEFAULT = "default"
SHIPPED = {
    DEFAULT: "the best one; for research, as MIT1003 is, which trained it",
    "fast": "the default before: one scale, four fifths of the time; for research, likewise",
    "open": "trained on data of the MIT licence alone",
    "paper": "exactly the paper's readout; for research, as MIT1003 is, which trained it",
}
"""Names of the bundles in the package, and what each is for."""

Activation = Literal["softplus", "relu"]

TINY_CHANNELS = 8


@dataclass(frozen=True)
class BackboneSpec:
    """Which features a readout was trained on; part of a bundle's header.

    Attributes:
        name: `vgg19-oxford`, `vgg19-torchvision`, or `tiny` (the fake that tests use).
        taps: layers whose channels are concatenated, in this order.
        scale, mean, std: the input is (RGB * scale - mean) / std, RGB in 0..255.
        sha256: fingerprint of the weights (`vgg.fingerprint`).
        pyramid: the sizes at which the network sees an image, in parts of `network_size`: 1 first,
            then smaller ones. The paper has 1 alone.
    """

    name: str
    taps: tuple[str, ...]
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    sha256: str
    pyramid: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        sizes = self.pyramid
        if sizes[:1] != (1.0,) or list(sizes) != sorted(set(sizes), reverse=True) or sizes[-1] <= 0:
            raise InputError(
                f"the pyramid {' '.join(map(str, sizes))} must begin with 1 and go on with smaller "
                "sizes, all positive"
            )

    @property
    def channels(self) -> int:
        """Number of feature channels of each level of the pyramid."""
        return TINY_CHANNELS if self.name == "tiny" else 512 * len(self.taps)

    @property
    def key(self) -> str:
        """sha256 over everything that decides the features' values."""
        return hashlib.sha256(repr(sorted(self.to_json().items())).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it; a pyramid of one level goes without saying, as it did before there were
        others."""
        values = asdict(self)
        if self.pyramid == (1.0,):
            del values["pyramid"]
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "BackboneSpec":
        """The spec that `to_json` gave as `values`. Raises KeyError, TypeError, InputError."""
        return cls(
            name=str(values["name"]),
            taps=tuple(values["taps"]),
            scale=float(values["scale"]),
            mean=tuple(values["mean"]),
            std=tuple(values["std"]),
            sha256=str(values["sha256"]),
            pyramid=tuple(map(float, values.get("pyramid", (1.0,)))),
        )
