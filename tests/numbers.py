"""Statistics of one density in numpy, step by step: what the batched ones are compared with."""

import math

import numpy as np

from gazecore.density.peaks import peaks
from gazecore.errors import NotFinite


def reference_statistics(
    log_density: np.ndarray,
    members: np.ndarray,
    centerbias: np.ndarray,
    height: int,
    width: int,
) -> dict[str, float | int | None]:
    """Summary statistics of one density.

    Args:
        log_density: (grid_height, grid_width), natural logarithm, logsumexp 0.
        members: (members, grid_height, grid_width), the mixture's parts, likewise.
        centerbias: (grid_height, grid_width), likewise.
        height, width: of the original image, pixels.

    Returns:
        The statistics columns of `results.schema.SCORES`. disagreement_bits is None for a model
        of one member.

    Raises:
        NotFinite: the density, a member, the centre bias or a statistic is not finite.
    """
    for what, values in (
        ("density", log_density), ("density of a member", members), ("centre bias", centerbias)
    ):  # fmt: skip
        if not np.isfinite(values).all():
            raise NotFinite(f"the {what} that the model gives it is not finite")
    with np.errstate(all="ignore"):  # of finite values that are too large
        found = _statistics(log_density, members, centerbias, height, width)
    if lost := [name for name, value in found.items() if value and not math.isfinite(value)]:
        raise NotFinite(f"{', '.join(lost)} of its density cannot be computed: not finite")
    return found


def _statistics(
    log_density: np.ndarray, members: np.ndarray, centerbias: np.ndarray, height: int, width: int
) -> dict[str, float | int | None]:
    rows, columns = log_density.shape
    log_p = log_density.astype(np.float64)
    p = np.exp(log_p)
    p /= p.sum()
    x = (np.arange(columns) + 0.5) * (width / columns)
    y = (np.arange(rows) + 0.5) * (height / rows)
    px, py = p.sum(axis=0), p.sum(axis=1)
    mean_x, mean_y = float(px @ x), float(py @ y)
    peak_row, peak_column = np.unravel_index(int(p.argmax()), p.shape)
    area_50, area_90 = _areas(p, (0.5, 0.9))
    return {
        "information_bits": _bits(p, log_p - centerbias),
        "concentration_bits": _bits(p, log_p + np.log(p.size)),
        "peak_x": float(x[peak_column]),
        "peak_y": float(y[peak_row]),
        "mean_x": mean_x,
        "mean_y": mean_y,
        "std_x": float(np.sqrt(px @ (x - mean_x) ** 2)),
        "std_y": float(np.sqrt(py @ (y - mean_y) ** 2)),
        "cov_xy": float((y - mean_y) @ p @ (x - mean_x)),
        "area_50": area_50,
        "area_90": area_90,
        "center_mass": float(_central_half(rows) @ p @ _central_half(columns)),
        "n_peaks": len(peaks(p)),
        "disagreement_bits": _disagreement(members, log_p),
    }


def _bits(p: np.ndarray, log_ratio: np.ndarray) -> float:
    # A divergence of equal densities may round to just below zero.
    return max(0.0, float((p * log_ratio).sum() / np.log(2)))


def _areas(p: np.ndarray, masses: tuple[float, ...]) -> list[float]:
    """Smallest share of the area that holds each mass; the last cell counts by the part needed."""
    ordered = np.sort(p, axis=None)[::-1]
    held = np.cumsum(ordered)
    areas = []
    for mass in masses:
        last = min(int(np.searchsorted(held, mass)), p.size - 1)
        missing = mass - (held[last - 1] if last else 0.0)
        areas.append(float((last + missing / ordered[last]) / p.size))
    return areas


def _central_half(cells: int) -> np.ndarray:
    """How much of each cell lies between a quarter and three quarters of the side."""
    edges = np.clip(np.arange(cells + 1) / cells, 0.25, 0.75)
    return np.diff(edges) * cells


def _disagreement(members: np.ndarray, log_p: np.ndarray) -> float | None:
    """Mean KL of the members from their mixture, bits."""
    if len(members) == 1:
        return None
    log_members = members.astype(np.float64)
    return _bits(np.exp(log_members), log_members - log_p) / len(members)
