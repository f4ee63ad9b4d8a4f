"""Log densities from one grid to another."""

import numpy as np
from PIL import Image


def normalise(log_density: np.ndarray) -> np.ndarray:
    """Shift a log density of shape (..., h, w) so that each one's probabilities sum to one."""
    highest = log_density.max(axis=(-2, -1), keepdims=True)
    total = np.exp(log_density - highest).sum(axis=(-2, -1), dtype=np.float64, keepdims=True)
    shifted: np.ndarray = log_density - (highest + np.log(total))
    return shifted.astype(np.float32, copy=False)


def to_size(log_density: np.ndarray, height: int, width: int) -> np.ndarray:
    """Interpolate a log density (bicubic, pixel areas aligned) and renormalise it.

    Args:
        log_density: (grid_height, grid_width), natural logarithm.
        height, width: of the result; the original image's for full resolution.

    Returns:
        float32 (height, width), logsumexp 0.
    """
    source = Image.fromarray(np.ascontiguousarray(log_density, dtype=np.float32))
    resized = source.resize((width, height), Image.Resampling.BICUBIC)
    return normalise(np.asarray(resized))
