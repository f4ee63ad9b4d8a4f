"""Local maxima of a density."""

import numpy as np
from scipy import ndimage

PEAK_SHARE = 0.05
"""A local maximum counts as a peak from this share of the highest one's density."""


def peaks(density: np.ndarray) -> np.ndarray:
    """Local maxima with at least 5 % of the highest one's density.

    Args:
        density: (h, w), not logarithmic. A plateau is one peak.

    Returns:
        int (n, 2), row and column, the highest first.
    """
    is_maximum = density == ndimage.maximum_filter(density, size=3, mode="nearest")
    others = np.where(is_maximum, -np.inf, density)
    # A plateau that goes on to where something higher begins is a step, not a peak.
    is_step = is_maximum & (ndimage.maximum_filter(others, size=3, mode="nearest") >= density)
    labels, _ = ndimage.label(is_maximum, structure=np.ones((3, 3)))
    numbers, first = np.unique(labels, return_index=True)
    rows, columns = np.unravel_index(first, density.shape)
    heights = density[rows, columns]
    kept = (
        (numbers > 0) & ~np.isin(numbers, labels[is_step]) & (heights >= PEAK_SHARE * density.max())
    )
    places = np.column_stack([rows, columns])[kept]
    return np.asarray(places[np.argsort(-heights[kept], kind="stable")])
