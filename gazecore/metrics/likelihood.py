"""Likelihoods of fixations. Kümmerer, Wallis & Bethge 2015 (PNAS 112, 16054).

Explained information gain is a ratio of averages, so it is in `gazecore.metrics.bootstrap`.
"""

import numpy as np


def log_likelihoods(log_density: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Log density at the fixated pixels.

    Args:
        log_density: (height, width) over the image's pixels, natural logarithm, logsumexp 0.
        points: (n, 2), x and y in pixels; the fixated pixel is (floor(x), floor(y)).

    Returns:
        float64 (n,), nats.
    """
    x, y = np.floor(points).astype(int).T
    return np.asarray(log_density[y, x], dtype=np.float64)


def log_likelihood_bits(log_density: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Log-likelihood of each fixation against the uniform density, in bits, float64 (n,).

    The information gain over a uniform baseline, which is how the field reports log-likelihoods.
    """
    nats = log_likelihoods(log_density, points) + np.log(log_density.size)
    return np.asarray(nats / np.log(2))


def information_gain(
    log_density: np.ndarray, baseline: np.ndarray, points: np.ndarray
) -> np.ndarray:
    """Information gain of each fixation over a baseline density, in bits, float64 (n,)."""
    gains = log_likelihoods(log_density, points) - log_likelihoods(baseline, points)
    return np.asarray(gains / np.log(2))
