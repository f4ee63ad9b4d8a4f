"""Area under the ROC curve, with all pixels as negatives (pysaliency's uniform AUC)."""

import numpy as np


def auc(saliency: np.ndarray, points: np.ndarray) -> np.ndarray:
    """For each fixation, the share of pixels whose saliency is lower; ties count half.

    Args:
        saliency: (height, width), any monotone function of the density.
        points: (n, 2), x and y in pixels; the fixated pixel is (floor(x), floor(y)).

    Returns:
        float64 (n,); its mean is the image's AUC.
    """
    x, y = np.floor(points).astype(int).T
    ordered = np.sort(saliency, axis=None)
    values = saliency[y, x]
    below = np.searchsorted(ordered, values, side="left")
    not_above = np.searchsorted(ordered, values, side="right")
    return np.asarray((below + not_above) / 2 / ordered.size)
