"""A readout that does not learn any more, on its device: what scoring computes with."""

import copy
import functools
import threading
from collections.abc import Callable, Sequence
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
"""Sides of grids whose matrices are kept."""

_LONGEST = 256
"""Cells of a side whose blur is kept, in 3 MB for ten members: all of the display size 1024."""

_tf32 = threading.Lock()


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
        # A copy: another model may be made of the same one, elsewhere.
        readout = copy.deepcopy(readout).to(device).requires_grad_(False)
        self._members = readout.config.members
        self._activation = ACTIVATIONS[readout.config.activation]
        self._weight, self._bias = readout.folded()
        self._later = readout.later_layers()
        self._centerbias_weight = readout.centerbias_weight
        sigmas = readout.log_blur.exp()
        self._make_blur = functools.partial(blur_matrix, sigmas)
        self._kept_blur = functools.lru_cache(_SIDES)(self._make_blur)
        self._bilinear = functools.lru_cache(_SIDES)(functools.partial(bilinear, like=self._weight))
        self.wide: Callable[[torch.Tensor, int, int], torch.Tensor] = self.plain
        if torch.device(device).type == "cuda" and find_spec("triton"):
            from gazecore.model import fused

            if fused.fits(readout.config):
                self.wide = fused.Wide(self._later, readout.config.activation)

    @torch.inference_mode()
    def __call__(self, features: Sequence[torch.Tensor], centerbias: torch.Tensor) -> torch.Tensor:
        """See `Readout.forward`."""
        x = self.first(features)
        height, width = centerbias.shape
        x = self._blur(height) @ self.wide(x, height, width) @ self._blur(width).mT
        return normalised(x, self._centerbias_weight, centerbias)

    def first(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """See `readout.first_layer`."""
        if not features[0].is_cuda:
            return first_layer(features, self._weight, self._bias, self._members)
        matmul = torch.backends.cuda.matmul
        with _tf32:  # the switch is the whole process's
            before, matmul.allow_tf32 = matmul.allow_tf32, True
            try:
                return first_layer(features, self._weight, self._bias, self._members)
            finally:
                matmul.allow_tf32 = before

    def _blur(self, side: int) -> torch.Tensor:
        return self._kept_blur(side) if side <= _LONGEST else self._make_blur(side)

    def plain(self, x: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """What `wide` computes, in torch: see `readout.pointwise`."""
        up, across = self._bilinear(x.shape[-2], height), self._bilinear(x.shape[-1], width)
        return pointwise(x, up, across, self._later, self._activation)
