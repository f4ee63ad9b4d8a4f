"""The gold standard: each viewer predicted from the other viewers of the same image.

What people have in common, an estimate from below of what any model of images can explain:
Kümmerer, Wallis & Bethge 2015 (PNAS 112, 16054). The density is a Gaussian kernel density of the
others' fixations, mixed with the centre bias and the uniform density.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from gazecore.metrics.kernels import fixation_map, kernel_rows
from gazecore.metrics.likelihood import log_likelihoods
from gazecore.metrics.recording import Recording

BANDWIDTHS = (0.005, 0.007, 0.01, 0.014, 0.02, 0.028, 0.04, 0.056, 0.08, 0.11, 0.16)
"""Candidates, as shares of an image's longer side; the search goes on between the best ones."""

_REFINEMENTS = 2
_BLOCK = 512
_LEAST_WEIGHT = 1e-6  # of each part: no pixel is impossible, and a viewer alone has a prediction


@dataclass(frozen=True)
class Trial:
    """A bandwidth that was tried.

    Attributes:
        bandwidth: as a share of an image's longer side.
        weights: of the kernel density, the centre bias and the uniform density; the most likely
            ones at this bandwidth, sum 1.
        information_gain: over the centre bias, bits, mean over the fixations that have others.
    """

    bandwidth: float
    weights: tuple[float, float, float]
    information_gain: float


@dataclass(frozen=True)
class GoldStandard:
    """A fitted gold standard.

    Attributes:
        bandwidth, weights: the best trial's.
        trials: all that were tried, by bandwidth.
    """

    bandwidth: float
    weights: tuple[float, float, float]
    trials: tuple[Trial, ...]

    def log_likelihoods(self, recording: Recording, log_centerbias: np.ndarray) -> np.ndarray:
        """Log density of each fixation, predicted from the other viewers of its image.

        Args:
            recording: of the image. A viewer without others is predicted from the centre bias.
            log_centerbias: (height, width), made without this image, logsumexp 0.

        Returns:
            float64 (n,), nats; the values that `log_density` has at the fixated pixels.
        """
        parts = np.column_stack(
            [
                _from_others(recording, self.bandwidth),
                np.exp(log_likelihoods(log_centerbias, recording.points)),
                np.full(len(recording.points), 1 / log_centerbias.size),
            ]
        )
        mixed = np.log(np.nan_to_num(parts) @ np.array(self.weights))
        alone = np.isnan(parts[:, 0])
        return np.asarray(np.where(alone, mixed - np.log1p(-self.weights[0]), mixed))

    def log_density(
        self, recording: Recording, log_centerbias: np.ndarray, subject: int | None = None
    ) -> np.ndarray:
        """The density that predicts one viewer from the others, or a new one from all.

        Args:
            recording, log_centerbias: as in `log_likelihoods`.
            subject: who is predicted and therefore left out; None leaves nobody out.

        Returns:
            float64 (height, width), natural logarithm, logsumexp 0.
        """
        kernel, centre, uniform = self.weights
        others = recording.points[recording.subjects != (-1 if subject is None else subject)]
        mixed = centre * np.exp(np.float64(log_centerbias)) + uniform / log_centerbias.size
        if not len(others):
            return np.asarray(np.log(mixed / (1 - kernel)))
        sigma = self.bandwidth * max(recording.height, recording.width)
        summed = fixation_map(others, recording.height, recording.width, sigma, "reflect")
        return np.asarray(np.log(mixed + kernel * summed / len(others)))


def fit(
    recordings: Sequence[Recording],
    centerbias: Callable[[Recording], np.ndarray],
    bandwidths: Sequence[float] = BANDWIDTHS,
) -> GoldStandard:
    """Choose bandwidth and mixing weights by the likelihood of each viewer given the others.

    For each bandwidth the weights are found by expectation maximisation, which reaches the one
    maximum there is; two rounds then try the bandwidths between the best one and its neighbours.

    Args:
        recordings: images and their fixations.
        centerbias: gives a recording's log centre bias (height, width), made without its image.
        bandwidths: candidates, as shares of an image's longer side.

    Raises:
        ValueError: no image has two viewers.
    """
    recordings = [r for r in recordings if len(np.unique(r.subjects)) > 1]
    if not recordings:
        raise ValueError("a gold standard needs an image with two viewers")
    others = np.concatenate([log_likelihoods(centerbias(r), r.points) for r in recordings])
    uniform = np.repeat(
        [1 / (r.height * r.width) for r in recordings], [len(r.points) for r in recordings]
    )

    def attempt(bandwidth: float) -> Trial:
        kernel = np.concatenate([_from_others(r, bandwidth) for r in recordings])
        parts = np.column_stack([kernel, np.exp(others), uniform])
        weights = _most_likely_weights(parts)
        gain = float((np.log(parts @ weights) - others).mean() / np.log(2))
        return Trial(bandwidth, (float(weights[0]), float(weights[1]), float(weights[2])), gain)

    trials = sorted(map(attempt, set(bandwidths)), key=lambda t: t.bandwidth)
    for _ in range(_REFINEMENTS):
        best = max(range(len(trials)), key=lambda i: trials[i].information_gain)
        around = trials[max(best - 1, 0) : best + 2]
        between = [
            attempt((low.bandwidth * high.bandwidth) ** 0.5) for low, high in pairwise(around)
        ]
        trials = sorted([*trials, *between], key=lambda t: t.bandwidth)
    chosen = max(trials, key=lambda t: t.information_gain)
    return GoldStandard(chosen.bandwidth, chosen.weights, tuple(trials))


def _from_others(recording: Recording, bandwidth: float) -> np.ndarray:
    """Kernel density of the other viewers at each fixation; NaN where there are none."""
    x, y = np.floor(recording.points).astype(int).T
    sigma = bandwidth * max(recording.height, recording.width)
    # Only fixated pixels are needed, so the kernel's value for each pair of fixations suffices.
    down, across = kernel_rows(y, recording.height, sigma), kernel_rows(x, recording.width, sigma)
    found = []
    for start in range(0, len(x), _BLOCK):  # of thousands of fixations, not all pairs at once
        block = slice(start, start + _BLOCK)
        other = recording.subjects[:, None] != recording.subjects[block]
        pairs = down[:, y[block]] * across[:, x[block]] * other
        with np.errstate(invalid="ignore"):
            found.append(pairs.sum(axis=0) / other.sum(axis=0))
    return np.concatenate(found) if found else np.empty(0)


def _most_likely_weights(parts: np.ndarray) -> np.ndarray:
    weights = np.array([0.8, 0.15, 0.05])
    for _ in range(1000):
        joint = parts * weights
        updated = (joint / joint.sum(axis=1, keepdims=True)).mean(axis=0)
        if np.abs(updated - weights).max() < 1e-6:
            break
        weights = updated
    floored = np.maximum(updated, _LEAST_WEIGHT)
    return np.asarray(floored / floored.sum())
