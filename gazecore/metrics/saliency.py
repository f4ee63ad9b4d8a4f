"""Saliency maps made from a density, one for each metric.

Metrics reward different maps, so one map cannot do well in all; a density that is converted to
the map that each metric expects can. Kümmerer, Wallis & Bethge 2018 (ECCV, "Saliency Benchmarking
Made Easy: Separating Models, Maps and Metrics"), as the MIT/Tuebingen benchmark does it:

    NSS, AUC       the density itself
    shuffled AUC   log density minus log density of the nonfixations
    CC, KLDiv      the density smoothed like the empirical maps
    SIM            the map with the highest expected similarity to them
"""

import numpy as np
from PIL import Image
from scipy.optimize import brentq
from scipy.special import gammaincinv

from gazecore.metrics.kernels import kernel_rows, smooth

_CELLS_PER_SIGMA = 4  # of the grid for SIM: its map is as smooth as the kernel
_SHAPES = (1e-6, 1e6)  # beyond, a gamma distribution is all but zero, or all but its mean


def for_nss(log_density: np.ndarray) -> np.ndarray:
    """The density: float64 (height, width), sum 1. It is the best map for the AUCs, too."""
    return np.asarray(np.exp(log_density, dtype=np.float64))


def for_shuffled_auc(log_density: np.ndarray, log_nonfixations: np.ndarray) -> np.ndarray:
    """The log ratio of a density to that of the nonfixations.

    Args:
        log_density: (height, width), logsumexp 0.
        log_nonfixations: likewise, of the fixations on other images: the centre bias, or the mean
            prediction for other images.

    Returns:
        (height, width), any real values.
    """
    return np.asarray(log_density - log_nonfixations)


def for_cc_and_kldiv(density: np.ndarray, sigma: float) -> np.ndarray:
    """The expected empirical map: the density smoothed with the empirical maps' kernel.

    Args:
        density: (height, width), sum 1.
        sigma: of the empirical maps, pixels.

    Returns:
        float64 (height, width), >= 0; what leaves the image at its border is lost.
    """
    return smooth(density, sigma)


def for_sim(density: np.ndarray, sigma: float, fixations: int = 100) -> np.ndarray:
    """The map with the highest expected SIM to empirical maps of fixations from the density.

    The benchmark climbs to it by stochastic gradients. Here the optimum is written down: SIM is
    a sum of min(s_i, q_i), whose expectation has the slope P(q_i > s_i) in s_i, so at the best map
    of sum 1 that probability is the same at every pixel: s is one quantile of each pixel's
    distribution. That distribution, of a mean of `fixations` kernels, is taken as the gamma
    distribution with its mean and variance.

    Args:
        density: (height, width), sum 1.
        sigma: of the empirical maps, pixels.
        fixations: expected on an image; 100 for MIT1003, 260 for MIT300.

    Returns:
        float64 (height, width), >= 0, sum 1.

    Raises:
        ValueError: there is no fixation, or sigma is not positive.
    """
    if fixations < 1:
        raise ValueError(f"an empirical map needs at least one fixation, not {fixations}")
    height, width = density.shape
    rows, columns = (_cells(side, sigma) for side in (height, width))
    coarse = _resize(density, rows, columns, Image.Resampling.BOX)
    down = kernel_rows(np.arange(rows), rows, sigma * rows / height, "constant")
    across = kernel_rows(np.arange(columns), columns, sigma * columns / width, "constant")
    # Moments of one fixation's kernel at each cell; kernels are symmetric.
    mean = down @ coarse @ across
    total = mean.sum()
    mean, square = mean / total, (down**2) @ coarse @ (across**2) / total**2
    variance = np.maximum(square - mean**2, 1e-30) / fixations
    shape = np.clip(mean**2 / variance, *_SHAPES)
    nodes = np.geomspace(shape.min(), shape.max() * (1 + 1e-9), 256)

    def quantile(probability: float) -> np.ndarray:
        relative = gammaincinv(nodes, probability) / nodes  # of the mean
        return np.asarray(mean * np.interp(np.log(shape), np.log(nodes), relative))

    probability = brentq(lambda q: quantile(q).sum() - 1, 0, 1 - 1e-12, xtol=1e-9)
    fine = np.maximum(_resize(quantile(probability), height, width, Image.Resampling.BICUBIC), 0)
    return np.asarray(fine / fine.sum())


def _cells(side: int, sigma: float) -> int:
    return min(side, int(np.ceil(_CELLS_PER_SIGMA * side / sigma))) if sigma > 0 else side


def _resize(map_: np.ndarray, height: int, width: int, how: Image.Resampling) -> np.ndarray:
    # Pillow computes in float32, whose small numbers the scale keeps away from underflow.
    scale = map_.max()
    image = Image.fromarray((map_ / scale).astype(np.float32))
    resized = np.asarray(image.resize((width, height), how), dtype=np.float64)
    return np.asarray(resized / resized.sum())
