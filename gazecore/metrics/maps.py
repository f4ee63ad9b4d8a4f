"""Metrics that compare a saliency map with the smoothed map of the fixations.

All are per image, and all follow pysaliency, whose definitions are those of the MIT saliency
benchmark (Bylinskii, Judd, Oliva, Torralba & Durand 2019, IEEE TPAMI 41, 740, section 4). The
empirical map is `gazecore.metrics.kernels.fixation_map`.
"""

import numpy as np

from gazecore.metrics.nss import centred

MIT_REGULARISATION = 2.2204e-16
"""The benchmark's constant in `kldiv` (MATLAB's eps)."""


def cc(saliency: np.ndarray, empirical: np.ndarray) -> float:
    """Pearson correlation of two maps over their pixels.

    Args:
        saliency, empirical: (height, width), finite.

    Returns:
        In [-1, 1]; 0 if only the saliency map is constant, NaN if the empirical map is.
    """
    first, second = (centred(np.asarray(map_)).ravel() for map_ in (saliency, empirical))
    own, other = first @ first, second @ second
    if not other:
        return float("nan")
    return float(first @ second / np.sqrt(own * other)) if own else 0.0


def kldiv(
    saliency: np.ndarray,
    empirical: np.ndarray,
    minimum: float = 1e-20,
    regularisation: float = 0.0,
) -> float:
    """Kullback-Leibler divergence of the saliency map, read as a density, from the empirical map.

    sum q log(r + q / (p + r)), with p from `saliency` and q from `empirical`; 0 is best. The
    defaults are pysaliency's `image_based_kl_divergence`; `minimum=0,
    regularisation=MIT_REGULARISATION` is what the MIT/Tuebingen benchmark reports.

    Args:
        saliency, empirical: (height, width), finite; see `to_density`.
        minimum: is added to both maps.
        regularisation: r above.

    Returns:
        Nats; without any regularisation infinite where p is 0 and q is not.
    """
    p, q = to_density(saliency, minimum), to_density(empirical, minimum)
    if not regularisation:  # 0 log 0 = 0; with it, such pixels need no care
        looked_at = q > 0
        p, q = p[looked_at], q[looked_at]
    with np.errstate(divide="ignore"):
        return float(q.ravel() @ np.log(regularisation + q / (p + regularisation)).ravel())


def sim(saliency: np.ndarray, empirical: np.ndarray) -> float:
    """Similarity: what two maps, read as densities, have in common; in [0, 1].

    Args:
        saliency, empirical: (height, width), finite; see `to_density`.
    """
    return float(np.minimum(to_density(saliency), to_density(empirical)).sum())


def to_density(map_: np.ndarray, minimum: float = 0.0) -> np.ndarray:
    """A map divided by its sum, after its minimum is brought to zero if that is negative.

    Args:
        map_: (height, width), finite. A map of zeros becomes uniform.
        minimum: is added first.

    Returns:
        float64 (height, width), >= 0, sum 1.
    """
    map_ = np.asarray(map_, dtype=np.float64)
    lowest = map_.min()
    if lowest < 0:
        map_ = map_ - lowest
    if minimum:
        map_ = map_ + minimum
    total = map_.sum()
    return map_ / total if total else np.full_like(map_, 1 / map_.size)
