"""A backbone that needs no weights, for tests."""

import hashlib
from dataclasses import replace

import numpy as np
import torch

from gazecore.geometry import STRIDE
from gazecore.model.pyramid import levels
from gazecore.model.spec import TINY_CHANNELS, BackboneSpec
from gazecore.model.vgg import normalise

_TINY_SEED = 20161005
TINY_SPEC = BackboneSpec(
    name="tiny",
    taps=("mean",),
    scale=1 / 255,
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    sha256=hashlib.sha256(f"tiny {TINY_CHANNELS} {_TINY_SEED}".encode()).hexdigest(),
)


class TinyBackbone:
    """A fake backbone for tests: channel mixes of the mean colour of each 16x16 block, with fixed
    weights. It needs no weights file and takes a millisecond."""

    def __init__(self, images_at_once: int = 1, pyramid: tuple[float, ...] = (1.0,)) -> None:
        """Begin.

        Args:
            images_at_once: what `batch_size` says, as a GPU's executor would.
            pyramid: see `BackboneSpec`.
        """
        self.spec = replace(TINY_SPEC, pyramid=pyramid)
        self._images_at_once = images_at_once
        rng = np.random.default_rng(_TINY_SEED)
        self._mix = rng.normal(size=(3, TINY_CHANNELS)).astype(np.float32)

    def batch_size(self, height: int, width: int) -> int:
        """See `Backbone.batch_size`."""
        return self._images_at_once

    def features(self, images: np.ndarray) -> list[torch.Tensor]:
        """See `Backbone.features`."""
        pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32))
        return [self._level(seen.numpy()) for seen in levels(pixels, self.spec.pyramid)]

    def _level(self, pixels: np.ndarray) -> torch.Tensor:
        n, _, h, w = pixels.shape
        blocks = pixels.reshape(n, 3, h // STRIDE, STRIDE, w // STRIDE, STRIDE)
        means = normalise(blocks.mean(axis=(3, 5)).transpose(0, 2, 3, 1), self.spec)
        return torch.from_numpy(np.moveaxis(np.maximum(means @ self._mix, 0), -1, 1).copy())
