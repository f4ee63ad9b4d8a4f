"""Areas under the ROC curve: a saliency map separates fixated pixels from others.

They differ in the others. `auc`: all pixels. `auc_judd`: all pixels without a fixation, with the
fixated values as thresholds. `shuffled_auc`: where people looked on other images. All agree with
pysaliency; Kümmerer, Wallis & Bethge 2018 (ECCV, "Saliency Benchmarking Made Easy") compare them.
"""

import numpy as np


def auc(saliency: np.ndarray, points: np.ndarray, ordered: np.ndarray | None = None) -> np.ndarray:
    """For each fixation, the share of pixels whose saliency is lower; ties count half.

    Args:
        saliency: (height, width), any monotone function of the density.
        points: (n, 2), x and y in pixels; the fixated pixel is (floor(x), floor(y)).
        ordered: all of the map's values, ascending, if they have been sorted already.

    Returns:
        float64 (n,), in (0, 1); its mean is the image's AUC.
    """
    ordered = np.sort(saliency, axis=None) if ordered is None else ordered
    return _shares_below(_at(saliency, points), ordered)


def shuffled_auc(saliency: np.ndarray, points: np.ndarray, nonfixations: np.ndarray) -> np.ndarray:
    """For each fixation, the share of nonfixations whose saliency is lower; ties count half.

    Tatler, Baddeley & Gilchrist 2005 (Vision Research 45, 643); nonfixations as pysaliency takes
    them, all fixations on all other images.

    Args:
        saliency: (height, width); the log ratio of the density to that of the nonfixations is the
            best map for this metric.
        points: (n, 2), x and y in pixels; the fixated pixel is (floor(x), floor(y)).
        nonfixations: (m, 2), like `points`; see `gazecore.metrics.nonfixations`.

    Returns:
        float64 (n,), in [0, 1]; its mean is the image's shuffled AUC.

    Raises:
        ValueError: there is no nonfixation.
    """
    if not len(nonfixations):
        raise ValueError("shuffled AUC needs fixations on other images")
    return _shares_below(_at(saliency, points), np.sort(_at(saliency, nonfixations)))


def auc_judd(saliency: np.ndarray, points: np.ndarray, ordered: np.ndarray | None = None) -> float:
    """AUC-Judd of an image: the curve through the fixated values, against unfixated pixels.

    Judd, Durand & Torralba 2012 (MIT-CSAIL-TR-2012-001). pysaliency's `AUC_Judd(jitter=False)`: its
    jitter, noise of deviation 1e-7 that breaks ties in 8-bit maps, would drown a density.

    Args:
        saliency, points, ordered: as in `auc`.

    Returns:
        In [0, 1].

    Raises:
        ValueError: there is no fixation, or no pixel without one.
    """
    values = np.sort(_at(saliency, points))[::-1]
    x, y = np.floor(points).astype(int).T
    pixels = np.unique(y * saliency.shape[1] + x)
    negatives = saliency.size - len(pixels)
    if not len(values) or not negatives:
        raise ValueError("AUC-Judd needs fixated and unfixated pixels")
    ordered = np.sort(saliency, axis=None) if ordered is None else ordered
    fixated = np.sort(saliency.ravel()[pixels])
    all_above = ordered.size - np.searchsorted(ordered, values, side="left")
    fixated_above = len(pixels) - np.searchsorted(fixated, values, side="left")
    false_alarms = np.concatenate([[0], (all_above - fixated_above) / negatives, [1]])
    ascending = values[::-1]
    hits = 1 - np.searchsorted(ascending, values, side="left") / len(values)
    hits = np.concatenate([[0], hits, [1]])
    return float((np.diff(false_alarms) * (hits[1:] + hits[:-1])).sum() / 2)


def _at(saliency: np.ndarray, points: np.ndarray) -> np.ndarray:
    x, y = np.floor(points).astype(int).T
    return np.asarray(saliency[y, x])


def _shares_below(values: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    below = np.searchsorted(ordered, values, side="left")
    not_above = np.searchsorted(ordered, values, side="right")
    return np.asarray((below + not_above) / 2 / ordered.size)
