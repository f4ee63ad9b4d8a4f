"""Normalised scanpath saliency. Peters, Iyer, Itti & Koch 2005 (Vision Research 45, 2397)."""

import numpy as np


def nss(saliency: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Saliency at the fixated pixels, in deviations from the map's mean.

    Args:
        saliency: (height, width), finite; the fixation density is the best map for this metric.
        points: (n, 2), x and y in pixels; the fixated pixel is (floor(x), floor(y)).

    Returns:
        float64 (n,), 0 at chance; its mean is the image's NSS. A map whose deviation is exactly
        zero is not divided by it (pysaliency's convention).
    """
    x, y = np.floor(points).astype(int).T
    mean = saliency.mean(dtype=np.float64)
    values = saliency[y, x] - mean
    deviation = saliency.std(dtype=np.float64)
    return np.asarray(values / deviation if deviation else values)
