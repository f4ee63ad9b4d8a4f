"""The image pyramid: one image at the sizes at which the backbone sees it.

Burt & Adelson 1983, "The Laplacian pyramid as a compact image code", have its name and idea.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from gazecore.geometry import level_sizes


def levels(pixels: torch.Tensor, pyramid: Sequence[float]) -> list[torch.Tensor]:
    """Images at each level's size, the first being the images themselves.

    Smaller ones are averages under a triangle (antialiased bilinear), so that no value leaves the
    range of the pixels and CPUs and GPUs agree to rounding.

    Args:
        pixels: float32 (n, 3, h, w), of a size that `network_size` gave.
        pyramid: see `BackboneSpec.pyramid`.
    """
    height, width = pixels.shape[2:]
    sizes = level_sizes(height, width, pyramid)
    return [pixels] + [
        F.interpolate(pixels, size=size, mode="bilinear", antialias=True, align_corners=False)
        for size in sizes[1:]
    ]
