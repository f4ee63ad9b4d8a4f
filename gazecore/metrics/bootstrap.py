"""Averages over a corpus with bootstrap confidence intervals over images.

Fixations on one image are not independent of each other, so images are what is drawn anew (Efron
& Tibshirani 1993, chapters 8 and 13: percentile intervals).
"""

import functools
from dataclasses import dataclass

import numpy as np

_BLOCK = 256  # resamples at once: bounds memory to a few megabytes for a thousand images


@dataclass(frozen=True)
class Interval:
    """An average and its confidence interval, in the metric's unit."""

    mean: float
    low: float
    high: float


def average(values: np.ndarray, resamples: int = 2000, seed: int = 0) -> Interval:
    """Mean over images, each weighted equally.

    Args:
        values: (images,), one value each, such as the mean over its fixations.
        resamples: of the bootstrap.
        seed: of the bootstrap; the same seed gives the same interval.

    Raises:
        ValueError: there is no image.
    """
    return ratio(values, np.ones(len(values)), resamples, seed)


def average_over_fixations(
    values: np.ndarray, fixations: np.ndarray, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Mean over fixations, each weighted equally.

    Args:
        values: (images,), each the mean over its fixations.
        fixations: (images,), how many fixations each has.
        resamples, seed: as in `average`.
    """
    return ratio(values * fixations, fixations, resamples, seed)


def explained_information_gain(
    gains: np.ndarray, gold_standard: np.ndarray, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Share of the gold standard's information gain that a model reaches, over the same images.

    (LL model - LL baseline) / (LL gold standard - LL baseline), of averages over the images:
    Kümmerer, Wallis & Bethge 2015 (PNAS 112, 16054), "information gain explained".

    Args:
        gains, gold_standard: (images,), information gain over the same baseline.
        resamples, seed: as in `average`.
    """
    return ratio(gains, gold_standard, resamples, seed)


def ratio(
    numerators: np.ndarray, denominators: np.ndarray, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Sum over images of one quantity by that of another, with a 95 % interval.

    Args:
        numerators, denominators: (images,).
        resamples, seed: as in `average`.

    Raises:
        ValueError: there is no image, or the two differ in length.
    """
    images = len(numerators)
    if not images or images != len(denominators):
        raise ValueError(f"{images} numerators and {len(denominators)} denominators")
    pairs = np.column_stack([numerators, denominators]).astype(np.float64)
    drawn = [times.astype(np.float64) @ pairs for times in _draws(images, resamples, seed)]
    above, below = np.concatenate(drawn).T
    low, high = np.quantile(above / below, [0.025, 0.975])
    total = pairs.sum(axis=0)
    return Interval(float(total[0] / total[1]), float(low), float(high))


@functools.lru_cache(maxsize=2)
def _draws(images: int, resamples: int, seed: int) -> list[np.ndarray]:
    """How often each image is drawn, (resamples, images) in blocks; the same for all metrics."""
    rng, shares = np.random.default_rng(seed), np.full(images, 1 / images)
    sizes = [min(_BLOCK, resamples - start) for start in range(0, resamples, _BLOCK)]
    return [rng.multinomial(images, shares, size).astype(np.uint16) for size in sizes]
