"""The stored form of a density: a few kilobytes that plain SQL can decode.

The log density is averaged over blocks of grid cells, rounded to steps of 1/32 nat, and stored as
int16 with one offset that normalises it:

    log_density[i] / 32.0 + log_offset        natural logarithm, row by row, logsumexp 0
"""

import numpy as np
from scipy.special import logsumexp

from gazecore.errors import InputError
from gazecore.geometry import DEFAULT_FACTOR

STEP = 1 / 32
"""Nats per step."""


FACTORS = (1, 2, 4)


def check_factor(factor: int) -> None:
    """Raise InputError for a factor other than FACTORS."""
    if factor not in FACTORS:
        raise InputError(f"density_factor must be one of {FACTORS}, not {factor}")


def encode(log_density: np.ndarray, factor: int = DEFAULT_FACTOR) -> tuple[np.ndarray, float]:
    """Store a log density.

    Args:
        log_density: (h, w), natural logarithm, logsumexp 0; h and w multiples of `factor`.
        factor: grid cells per stored cell, 1, 2 or 4.

    Returns:
        int16 (h / factor, w / factor) in steps of 1/32 nat, and the offset in nats.
    """
    check_factor(factor)
    height, width = log_density.shape
    blocks = log_density.reshape(height // factor, factor, width // factor, factor)
    means = blocks.mean(axis=(1, 3), dtype=np.float64)
    # Relative to the maximum, so that the range of int16 (1024 nat) is never left at the top.
    steps = np.rint((means - means.max()) / STEP)
    quantised = np.clip(steps, np.iinfo(np.int16).min, 0).astype(np.int16)
    return quantised, -float(logsumexp(quantised * STEP))


def decode(values: np.ndarray, offset: float) -> np.ndarray:
    """The log density that `encode` stored: float64, natural logarithm, logsumexp 0."""
    decoded: np.ndarray = values * STEP + offset
    return decoded
