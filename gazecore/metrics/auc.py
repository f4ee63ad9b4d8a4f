"""Areas under the ROC curve: a saliency map separates fixated pixels from others.

They differ in the others. `auc`: all pixels. `auc_judd`: all pixels without a fixation, with the
fixated values as thresholds. `shuffled_auc`: where people looked on other images. All agree with
pysaliency; Kümmerer, Wallis & Bethge 2018 (ECCV, "Saliency Benchmarking Made Easy") compare them.
"""

import numpy as np

_FEW = 32
"""Values for which comparing each with all negatives is fastest."""

_BINS = 2**16


Counts = tuple[np.ndarray, np.ndarray]
"""What `count_below` returns."""


def auc(saliency: np.ndarray, points: np.ndarray, counts: Counts | None = None) -> np.ndarray:
    """For each fixation, the share of pixels whose saliency is lower; ties count half.

    Args:
        saliency: (height, width), finite; any monotone function of the density.
        points: (n, 2), x and y in pixels; the fixated pixel is (floor(x), floor(y)).
        counts: `count_below(at(saliency, points), saliency)`, if it is there already.

    Returns:
        float64 (n,), in (0, 1); its mean is the image's AUC.
    """
    below, not_above = counts or count_below(at(saliency, points), saliency)
    return np.asarray((below + not_above) / 2 / saliency.size)


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
    return shares_below(at(saliency, points), at(saliency, nonfixations))


def auc_judd(saliency: np.ndarray, points: np.ndarray, counts: Counts | None = None) -> float:
    """AUC-Judd of an image: the curve through the fixated values, against unfixated pixels.

    Judd, Durand & Torralba 2012 (MIT-CSAIL-TR-2012-001). pysaliency's `AUC_Judd(jitter=False)`: its
    jitter, noise of deviation 1e-7 that breaks ties in 8-bit maps, would drown a density.

    Args:
        saliency, points, counts: as in `auc`.

    Returns:
        In [0, 1].

    Raises:
        ValueError: there is no fixation, or no pixel without one.
    """
    values = at(saliency, points)
    x, y = np.floor(points).astype(int).T
    pixels = np.unique(y * saliency.shape[1] + x)
    negatives = saliency.size - len(pixels)
    if not len(values) or not negatives:
        raise ValueError("AUC-Judd needs fixated and unfixated pixels")
    everywhere, _ = counts or count_below(values, saliency)
    fixated, _ = count_below(values, saliency.ravel()[pixels])
    order = np.argsort(values, kind="stable")
    values, below = values[order], (everywhere - fixated)[order]
    false_alarms = np.concatenate([[1], 1 - below / negatives, [0]])
    hits = np.concatenate([[1], 1 - np.searchsorted(values, values) / len(values), [0]])
    return float((-np.diff(false_alarms) * (hits[1:] + hits[:-1])).sum() / 2)


def at(saliency: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The map's values (n,) at the pixels (floor(x), floor(y)) of points (n, 2)."""
    x, y = np.floor(points).astype(int).T
    return np.asarray(saliency[y, x])


def shares_below(values: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """For each value the share of negatives that are lower; ties count half.

    Args:
        values: (n,).
        negatives: any shape, not empty, finite.

    Returns:
        float64 (n,), in [0, 1].
    """
    below, not_above = count_below(values, negatives)
    return np.asarray((below + not_above) / 2 / negatives.size)


def count_below(values: np.ndarray, negatives: np.ndarray) -> Counts:
    """How many negatives are below each value, and how many are not above it; int (n,) each.

    The many pixels of a map are not sorted, which would take four times as long: they are counted
    in bins, and only those that share a bin with one of the values are sorted.

    Args:
        values: (n,).
        negatives: any shape, not empty, finite.
    """
    negatives = np.asarray(negatives).ravel()
    if len(values) <= _FEW:
        return (
            np.array([np.count_nonzero(negatives < value) for value in values], dtype=int),
            np.array([np.count_nonzero(negatives <= value) for value in values], dtype=int),
        )
    low, high = negatives.min(), negatives.max()
    with np.errstate(over="ignore"):
        scale = (_BINS - 1) / (high - low) if high > low else 0.0
    if not np.isfinite(scale):  # a range too narrow for the arithmetic
        low, scale = high, 0.0
    # Rounding is monotone, so a lower negative is never in a higher bin.
    bins, own = (
        np.clip((numbers - low) * negatives.dtype.type(scale), 0, _BINS - 1).astype(np.int32)
        for numbers in (negatives, values)
    )
    shared = np.zeros(_BINS, dtype=bool)
    shared[own] = True
    near = np.sort(negatives[shared[bins]])
    # Those in lower bins that nothing shares are below; the sorted ones are looked up.
    unshared = np.where(shared, 0, np.bincount(bins, minlength=_BINS)).cumsum()[own]
    return (
        unshared + np.searchsorted(near, values, side="left"),
        unshared + np.searchsorted(near, values, side="right"),
    )
