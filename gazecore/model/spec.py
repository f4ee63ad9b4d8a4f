"""What models are called and made of, for those that need no torch to say so."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

DEFAULT = "default"
SHIPPED = (DEFAULT, "paper")
"""Names of the bundles in the package: the best one, and one with exactly the paper's readout."""

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
    """

    name: str
    taps: tuple[str, ...]
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    sha256: str

    @property
    def channels(self) -> int:
        """Number of feature channels."""
        return TINY_CHANNELS if self.name == "tiny" else 512 * len(self.taps)

    @property
    def key(self) -> str:
        """sha256 over everything that decides the features' values."""
        return hashlib.sha256(repr(sorted(asdict(self).items())).encode()).hexdigest()

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "BackboneSpec":
        """The spec that `dataclasses.asdict` and JSON made `values` of."""
        return cls(
            name=str(values["name"]),
            taps=tuple(values["taps"]),
            scale=float(values["scale"]),
            mean=tuple(values["mean"]),
            std=tuple(values["std"]),
            sha256=str(values["sha256"]),
        )
