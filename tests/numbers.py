"""Statistics of one density in numpy, step by step: what the batched ones are compared with."""

import math
from itertools import product
from typing import Any

import numpy as np

from gazecore.density.peaks import DISTANCE, LEAST_HEIGHT, PROMINENCE
from gazecore.errors import NotFinite
from gazecore.geometry import DEFAULT_FACTOR


def reference_statistics(
    log_density: np.ndarray,
    members: np.ndarray,
    centerbias: np.ndarray,
    height: int,
    width: int,
) -> dict[str, Any]:
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
    peaks = found.pop("peaks")
    if lost := [name for name, value in found.items() if value and not math.isfinite(value)]:
        raise NotFinite(f"{', '.join(lost)} of its density cannot be computed: not finite")
    return found | {"peaks": peaks}


def _statistics(
    log_density: np.ndarray, members: np.ndarray, centerbias: np.ndarray, height: int, width: int
) -> dict[str, Any]:
    rows, columns = log_density.shape
    log_p = log_density.astype(np.float64)
    p = np.exp(log_p)
    p /= p.sum()
    x = (np.arange(columns) + 0.5) * (width / columns)
    y = (np.arange(rows) + 0.5) * (height / rows)
    px, py = p.sum(axis=0), p.sum(axis=1)
    mean_x, mean_y = float(px @ x), float(py @ y)
    peaks = reference_peaks(p, height, width)
    area_50, area_90 = _areas(p, (0.5, 0.9))
    return {
        "information_bits": _bits(p, log_p - centerbias),
        "concentration_bits": _bits(p, log_p + np.log(p.size)),
        "peak_x": peaks[0]["x"],
        "peak_y": peaks[0]["y"],
        "mean_x": mean_x,
        "mean_y": mean_y,
        "std_x": float(np.sqrt(px @ (x - mean_x) ** 2)),
        "std_y": float(np.sqrt(py @ (y - mean_y) ** 2)),
        "cov_xy": float((y - mean_y) @ p @ (x - mean_x)),
        "area_50": area_50,
        "area_90": area_90,
        "center_mass": float(_central_half(rows) @ p @ _central_half(columns)),
        "n_peaks": len(peaks),
        "disagreement_bits": _disagreement(members, log_p),
        "peaks": peaks,
    }


def reference_peaks(p: np.ndarray, height: int, width: int) -> list[dict[str, float]]:
    """Peaks of a density, found by letting the water down cell by cell."""
    rows, columns = p.shape
    blocks = {
        (row, column): [(i, j) for i in range(row, min(row + DEFAULT_FACTOR, rows))
                        for j in range(column, min(column + DEFAULT_FACTOR, columns))]
        for row, column in product(
            range(0, rows, DEFAULT_FACTOR), range(0, columns, DEFAULT_FACTOR))
    }  # fmt: skip
    top = {at: max(cells, key=lambda c: p[c]) for at, cells in blocks.items()}
    passes = _passes({at: float(p[cell]) for at, cell in top.items()})
    highest = float(p.max())
    found: list[dict[str, float]] = []
    for at in sorted(passes, key=lambda at: (-p[top[at]], at)):
        value, (row, column) = float(p[top[at]]), top[at]
        if value < PROMINENCE * passes[at] or value < LEAST_HEIGHT * highest:
            continue
        x, y = (column + 0.5) * width / columns, (row + 0.5) * height / rows
        if all(math.dist((x, y), (f["x"], f["y"])) >= DISTANCE * max(height, width) for f in found):
            found.append({"x": x, "y": y, "height": value / highest, "share": 0.0})
    down, across = (math.ceil(side / DEFAULT_FACTOR) for side in p.shape)
    for (row, column), cells in blocks.items():
        middle = (
            (column // DEFAULT_FACTOR + 0.5) * width / across,
            (row // DEFAULT_FACTOR + 0.5) * height / down,
        )
        away = [math.dist(middle, (f["x"], f["y"])) for f in found]
        half = math.hypot(width / across, height / down) / 2
        if min(away) <= max(DISTANCE * max(height, width), half):
            found[away.index(min(away))]["share"] += float(sum(p[cell] for cell in cells))
    return found


def _passes(heights: dict[tuple[int, int], float]) -> dict[tuple[int, int], float]:
    """Each local maximum, and how high the water is when its island joins one that is higher."""
    island: dict[tuple[int, int], tuple[int, int]] = {}
    passes: dict[tuple[int, int], float] = {}
    for at in sorted(heights, key=lambda at: (-heights[at], at)):
        steps = product((-DEFAULT_FACTOR, 0, DEFAULT_FACTOR), repeat=2)
        around = {island[n] for d in steps if (n := (at[0] + d[0], at[1] + d[1])) in island}
        mine, *drowned = sorted(around, key=lambda top: (-heights[top], top)) or [at]
        island[at] = mine
        passes.setdefault(mine, 0.0)
        for other in drowned:
            passes[other] = heights[at]
            island |= {cell: mine for cell, top in island.items() if top == other}
    return passes


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
