"""A higher ceiling: the best mixture of viewers, centre bias and model for each image by itself.

The gold standard of `goldstandard.py` has one bandwidth and one mixture for all images, and knows
nothing of the image; a good model can come near it, or pass it. Here, as in arXiv 2605.03885, each
image has its own: a kernel density of the other viewers whose kernels are narrower where fixations
lie close (Abramson 1982, Annals of Statistics 10, 1217), the centre bias, the uniform density and
the model's own density, mixed as predicts the viewers best, each from the others. The bandwidth
and the weights are fitted to the likelihoods that are reported, four free numbers an image, so that
it errs upwards a little where an image has few fixations.
"""

import numpy as np

from gazecore.metrics.recording import Recording

BANDWIDTHS = (0.01, 0.014, 0.02, 0.028, 0.04, 0.056)
"""Candidates, as shares of an image's longer side."""

_PILOT = 0.025
"""Bandwidth of the fixed kernels that say how close fixations lie, about the gold standard's."""

_SENSITIVITY = 0.5
"""Abramson's: kernels' widths go with the density to the power of minus a half."""


def log_likelihoods(
    recording: Recording, log_centerbias: np.ndarray, log_model: np.ndarray
) -> np.ndarray:
    """Log density of each fixation, predicted from the other viewers and all else that is known.

    Args:
        recording: of the image.
        log_centerbias, log_model: (height, width), logsumexp 0.

    Returns:
        float64 (n,), nats; NaN everywhere where there is one viewer.
    """
    if len(np.unique(recording.subjects)) < 2:
        return np.full(len(recording.points), np.nan)
    x, y = np.floor(recording.points).astype(int).T
    known = np.exp(np.stack([log[y, x].astype(np.float64) for log in (log_centerbias, log_model)]))
    uniform = np.full(len(x), 1 / log_centerbias.size)
    found = [
        _mixed(np.column_stack([kernel, *known, uniform]))
        for kernel in _from_others(recording, x, y)
    ]
    return max(found, key=lambda nats: float(nats.sum()))


def _from_others(recording: Recording, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Adaptive kernel density of the other viewers at each fixation, (bandwidths, n)."""
    found = np.empty((len(BANDWIDTHS), len(x)))
    side = max(recording.height, recording.width)
    for viewer in np.unique(recording.subjects):
        own = recording.subjects == viewer
        columns, rows = x[~own], y[~own]
        factors = _factors(recording, columns, rows)
        for number, bandwidth in enumerate(BANDWIDTHS):
            sigmas = bandwidth * side * factors
            down = _kernels(rows, recording.height, sigmas, y[own])
            across = _kernels(columns, recording.width, sigmas, x[own])
            found[number, own] = (down * across).mean(axis=0)
    return found


def _factors(recording: Recording, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How much wider than others each fixation's kernel is, their geometric mean 1."""
    sigmas = np.full(len(x), _PILOT * max(recording.height, recording.width))
    pilot = (
        _kernels(y, recording.height, sigmas, y) * _kernels(x, recording.width, sigmas, x)
    ).mean(axis=0)
    logs = -_SENSITIVITY * np.log(pilot)
    return np.asarray(np.exp(logs - logs.mean()))


def _kernels(centres: np.ndarray, side: int, sigmas: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Gaussians on the pixels of a side, each with sum 1 over them, (centres, at)."""
    cells = np.arange(side)
    whole = np.exp(-0.5 * ((cells - centres[:, None]) / sigmas[:, None]) ** 2)
    return np.asarray(whole[:, at] / whole.sum(axis=1, keepdims=True))


def _mixed(parts: np.ndarray) -> np.ndarray:
    """Log likelihoods (n,) under the most likely mixture of the parts (n, k)."""
    weights = np.full(parts.shape[1], 1 / parts.shape[1])
    for _ in range(500):
        joint = parts * weights
        updated = (joint / joint.sum(axis=1, keepdims=True)).mean(axis=0)
        if np.abs(updated - weights).max() < 1e-5:
            break
        weights = updated
    return np.asarray(np.log(parts @ weights))
