"""A readout that does not learn any more, on its device: what scoring computes with."""

import functools
from collections.abc import Callable
from importlib.util import find_spec

import torch

from gazecore.model.readout import (
    ACTIVATIONS,
    Readout,
    bilinear,
    blur_matrix,
    first_layer,
    normalised,
    pointwise,
)

_SIDES = 128
"""Sides of grids whose matrices are kept; each takes up to 3 MB."""


class FrozenReadout:
    """What `Readout` computes, to float32's rounding, with all that depends on its parameters alone
    made once.

    On GPUs its wide part is one kernel (`fused.py`), and the first layer's product is taken in
    TF32: the features come out of bfloat16, which has fewer digits still.

    Attributes:
        wide: upsampling and the layers after the first: (n, members, widths[0], h, w), height and
            width to (n, members, height, width).
    """

    def __init__(self, readout: Readout, device: str) -> None:
        readout = readout.to(device).requires_grad_(False)
        self._members = readout.config.members
        self._activation = ACTIVATIONS[readout.config.activation]
        self._weight, self._bias = readout.folded()
        self._later = readout.later_layers()
        self._centerbias_weight = readout.centerbias_weight
        sigmas = readout.log_blur.exp()
        self._blur = functools.lru_cache(_SIDES)(functools.partial(blur_matrix, sigmas))
        self._bilinear = functools.lru_cache(_SIDES)(functools.partial(bilinear, like=self._weight))
        self.wide: Callable[[torch.Tensor, int, int], torch.Tensor] = self.plain
        if torch.device(device).type == "cuda" and find_spec("triton"):
            from gazecore.model import fused

            if fused.fits(readout.config):
                self.wide = fused.Wide(self._later, readout.config.activation)

    @torch.inference_mode()
    def __call__(self, features: torch.Tensor, centerbias: torch.Tensor) -> torch.Tensor:
        """See `Readout.forward`."""
        x = self.first(features)
        height, width = centerbias.shape
        x = self._blur(height) @ self.wide(x, height, width) @ self._blur(width).mT
        return normalised(x, self._centerbias_weight, centerbias)

    def first(self, features: torch.Tensor) -> torch.Tensor:
        """See `readout.first_layer`."""
        matmul = torch.backends.cuda.matmul
        before, matmul.allow_tf32 = matmul.allow_tf32, True
        try:
            return first_layer(features, self._weight, self._bias, self._members)
        finally:
            matmul.allow_tf32 = before

    def plain(self, x: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """What `wide` computes, in torch: see `readout.pointwise`."""
        up, across = self._bilinear(x.shape[-2], height), self._bilinear(x.shape[-1], width)
        return pointwise(x, up, across, self._later, self._activation)
