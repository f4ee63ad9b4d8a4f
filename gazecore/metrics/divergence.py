"""How far two densities are from each other."""

import numpy as np


def jensen_shannon(first: np.ndarray, second: np.ndarray) -> float:
    """Jensen-Shannon divergence in bits: the mean KL of both from their mean (Lin 1991, IEEE
    Transactions on Information Theory 37, 145).

    Args:
        first, second: densities of one shape, >= 0, sum 1.

    Returns:
        0 (the same) to 1 (nothing in common).
    """
    mean = (first + second) / 2
    total = sum(_kl(density, mean) for density in (first, second))
    return float(np.clip(total / (2 * np.log(2)), 0.0, 1.0))


def _kl(density: np.ndarray, other: np.ndarray) -> float:
    """In nats; 0 log 0 is 0. `other` is at least half of `density`."""
    there = density > 0
    p = density[there]
    return float(p @ np.log(p / other[there]))
