"""Normalised scanpath saliency. Peters, Iyer, Itti & Koch 2005 (Vision Research 45, 2397)."""

import numpy as np


def nss(saliency: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Saliency at the fixated pixels, in deviations from the map's mean.

    Args:
        saliency: (height, width), finite; the fixation density is the best map for this metric.
        points: (n, 2), x and y in pixels; the fixated pixel is (floor(x), floor(y)).

    Returns:
        float64 (n,), 0 at chance; its mean is the image's NSS. Of a constant map 0, whatever its
        size and value: pysaliency says so too where rounding leaves it no deviation, else 1 or -1.
    """
    x, y = np.floor(points).astype(int).T
    deviations = centred(saliency)
    deviation = np.sqrt(np.mean(deviations**2))
    values = deviations[y, x]
    return np.asarray(values / deviation if deviation else values)


def centred(map_: np.ndarray) -> np.ndarray:
    """A map minus its mean; exactly 0 where it is constant, whose mean need not round to itself.

    Args:
        map_: any shape, not empty, finite.

    Returns:
        float64 of that shape.
    """
    # A difference of two nearly equal numbers is exact, so this keeps what little they differ by.
    shifted = np.subtract(map_, map_.flat[0], dtype=np.float64)
    return np.asarray(shifted - shifted.mean())
