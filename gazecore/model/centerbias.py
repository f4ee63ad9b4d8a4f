"""The centre bias: where people look before they see what is there.

A log density in normalised coordinates (x / width, y / height), so that it serves images of every
size. Fitted as a Gaussian kernel density of fixations mixed with a uniform density.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

RESOLUTION = 128
"""Cells per side on which the centre bias is kept."""

_BANDWIDTHS = (0.01, 0.014, 0.02, 0.028, 0.04, 0.056, 0.08, 0.11)
_UNIFORM_SHARES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)


@dataclass(frozen=True)
class Centerbias:
    """A fitted centre bias.

    Attributes:
        log_density: float32 (RESOLUTION, RESOLUTION), natural logarithm, logsumexp 0.
        bandwidth: of the kernel, as a share of the image's sides.
        uniform_share: weight of the uniform density.
    """

    log_density: np.ndarray
    bandwidth: float
    uniform_share: float


def fit(x: np.ndarray, y: np.ndarray, groups: np.ndarray, folds: int = 5) -> Centerbias:
    """Fit a centre bias; bandwidth and uniform share maximise the cross-validated likelihood.

    Args:
        x, y: fixations in normalised coordinates, 0 <= value < 1.
        groups: an integer per fixation, its image: an image is never on both sides of a fold.
        folds: number of cross-validation folds.

    Raises:
        ValueError: there is no fixation.
    """
    if not len(x):
        raise ValueError("a centre bias needs at least one fixation")
    counts = np.stack(
        [histogram(x[groups % folds == fold], y[groups % folds == fold]) for fold in range(folds)]
    )
    scores: dict[tuple[float, float], float] = {}
    for bandwidth in _BANDWIDTHS:
        kernel_densities = [smooth(counts.sum(axis=0) - held, bandwidth) for held in counts]
        for share in _UNIFORM_SHARES:
            scores[bandwidth, share] = sum(
                float((held * np.log(with_uniform(density, share))).sum())
                for held, density in zip(counts, kernel_densities, strict=True)
            )
    bandwidth, share = max(scores, key=lambda key: scores[key])
    density = with_uniform(smooth(counts.sum(axis=0), bandwidth), share)
    return Centerbias(np.log(density).astype(np.float32), bandwidth, share)


def fit_images(points: Sequence[np.ndarray]) -> Centerbias:
    """Fit a centre bias to the fixations of images, each (n, 2) x and y in normalised coordinates.

    Raises:
        ValueError: there is no fixation.
    """
    groups = np.repeat(np.arange(len(points)), [len(found) for found in points])
    x, y = np.concatenate([*points, np.empty((0, 2))]).T
    return fit(x, y, groups)


def on_grid(log_density: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """A log density in normalised coordinates, interpolated to a grid and normalised on it.

    Args:
        log_density: (rows, columns), natural logarithm.
        height, width: of the grid.

    Returns:
        (height, width), logsumexp 0.
    """
    resized = F.interpolate(
        log_density[None, None], size=(height, width), mode="bicubic", align_corners=False
    )[0, 0]
    return resized - resized.logsumexp(dim=(0, 1))


def histogram(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Fixations in normalised coordinates counted in (RESOLUTION, RESOLUTION) cells."""
    edges = np.linspace(0, 1, RESOLUTION + 1)
    return np.asarray(np.histogram2d(y, x, bins=(edges, edges))[0])


def smooth(counts: np.ndarray, bandwidth: float) -> np.ndarray:
    """The kernel density of counted fixations, sum 1; uniform where there is none."""
    # Mass that would leave the image comes back in at the border, so none is lost.
    density = gaussian_filter(counts, bandwidth * RESOLUTION, mode="reflect")
    total = density.sum()
    return density / total if total else np.full_like(density, 1 / density.size)


def with_uniform(density: np.ndarray, share: float) -> np.ndarray:
    """A density on cells mixed with the uniform one, whose weight is `share`."""
    return (1 - share) * density + share / density.size
