"""Gaussian smoothing of fixations and densities, in two forms that are fast for each.

Both equal `scipy.ndimage.gaussian_filter` (truncated at four deviations, the kernel's weights sum
to one), which is what pysaliency uses. Fixations are few, so their map is a product of two thin
matrices; a density is everywhere, so it is smoothed in the Fourier domain.
"""

from typing import Literal

import numpy as np
import scipy.fft

Border = Literal["constant", "reflect"]
"""Mass that leaves the image is lost ("constant", as the MIT/Tuebingen benchmark smooths) or comes
back in at the border ("reflect", pysaliency's default for fixation maps)."""

TRUNCATE = 4.0
"""Deviations after which the kernel is cut."""


def fixation_map(
    points: np.ndarray, height: int, width: int, sigma: float, border: Border = "constant"
) -> np.ndarray:
    """The smoothed empirical map: a Gaussian at every fixated pixel, summed.

    Args:
        points: (n, 2), x and y in pixels; the fixated pixel is (floor(x), floor(y)).
        height, width: of the image.
        sigma: the kernel's deviation in pixels; the field takes about one degree of visual angle,
            35 px for MIT1003 and MIT300.
        border: see `Border`.

    Returns:
        float64 (height, width), fixations per pixel, >= 0.

    Raises:
        ValueError: sigma is not positive.
    """
    x, y = np.floor(points).astype(int).T
    map_: np.ndarray = kernel_rows(y, height, sigma, border).T @ kernel_rows(
        x, width, sigma, border
    )
    return map_


def kernel_rows(
    positions: np.ndarray, length: int, sigma: float, border: Border = "reflect"
) -> np.ndarray:
    """One-dimensional kernels on a line of pixels.

    Args:
        positions: int (n,), 0 <= position < length.
        length: of the line.
        sigma: in pixels.
        border: see `Border`.

    Returns:
        float64 (n, length); with "reflect" every row sums to one.

    Raises:
        ValueError: sigma is not positive.
    """
    weights = _weights(sigma)
    offsets = np.arange(len(weights)) - len(weights) // 2
    targets = positions[:, None] + offsets
    spread = np.broadcast_to(weights, targets.shape)
    if border == "reflect":  # ... c b a | a b c ... c | c b a ..., as often as it takes
        targets = targets % (2 * length)
        targets = np.minimum(targets, 2 * length - 1 - targets)
    else:
        inside = (targets >= 0) & (targets < length)
        targets, spread = np.where(inside, targets, 0), np.where(inside, spread, 0.0)
    flat = (targets + np.arange(len(positions))[:, None] * length).ravel()
    rows = np.bincount(flat, weights=spread.ravel(), minlength=len(positions) * length)
    return rows.reshape(len(positions), length)


def smooth(map_: np.ndarray, sigma: float) -> np.ndarray:
    """A map smoothed with a Gaussian, zero outside the image.

    Args:
        map_: (height, width), >= 0.
        sigma: in pixels.

    Returns:
        float64 (height, width), >= 0; equal to `gaussian_filter(map_, sigma, mode="constant")` up
        to about 1e-15 of its maximum.

    Raises:
        ValueError: sigma is not positive.
    """
    weights = _weights(sigma)
    radius = len(weights) // 2
    if not radius:  # nothing to smooth; the transform's rounding would be all that varies
        return np.array(map_, dtype=np.float64)
    padded = [scipy.fft.next_fast_len(side + radius, real=True) for side in map_.shape]
    transformed = scipy.fft.rfft2(np.asarray(map_, dtype=np.float64), s=padded)
    for axis, side in enumerate(padded):
        # The symmetric kernel, centred at 0 and wrapped, has a real response. A side shorter than
        # the kernel sees it wrap more than once, hence the sum at repeated positions.
        centred = np.bincount((np.arange(len(weights)) - radius) % side, weights, minlength=side)
        response = scipy.fft.fft(centred).real[: transformed.shape[axis]]
        transformed *= response[:, None] if axis == 0 else response
    back = scipy.fft.irfft2(transformed, s=padded)[: map_.shape[0], : map_.shape[1]]
    return np.asarray(np.maximum(back, 0.0))


def _weights(sigma: float) -> np.ndarray:
    if not sigma > 0:
        raise ValueError(f"sigma must be positive, not {sigma}")
    radius = int(TRUNCATE * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return np.asarray(weights / weights.sum())
