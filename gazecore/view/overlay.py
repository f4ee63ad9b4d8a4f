"""An image with its fixation density drawn over it."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from gazecore.density.resample import to_size
from gazecore.density.statistics import peaks

MASSES = (0.9, 0.7, 0.5, 0.3, 0.1)
"""Share of the fixations inside each contour, from the outermost to the innermost."""

_LONGER_SIDE = 1024


def draw_overlay(image: Image.Image, log_density: np.ndarray, path: Path) -> None:
    """Write a PNG: the image, dimmed where few look, contours of the density, and its peaks.

    Each contour encloses the smallest area that holds 10, 30, 50, 70 or 90 % of the fixations.
    Peaks are numbered from the highest.

    Args:
        image: upright RGB; shown at most 1024 px wide or high.
        log_density: on any grid of the same aspect, natural logarithm.
        path: the PNG to write.
    """
    scale = min(1.0, _LONGER_SIDE / max(image.size))
    width, height = (max(1, round(side * scale)) for side in image.size)
    pixels = np.asarray(image.resize((width, height)), dtype=np.float32) / 255
    density = np.exp(to_size(log_density, height, width).astype(np.float64))
    levels = _levels(density)
    # Full brightness inside the contour of half the fixations, falling to a third far outside.
    brightness = 0.35 + 0.65 * np.clip(density / max(levels[2], 1e-300), 0, 1) ** 0.5
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.imshow(pixels * brightness[..., None], extent=(0, width, height, 0), aspect="auto")
    unique = np.unique(levels)
    if min(width, height) > 1 and density.max() > unique[0]:
        x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
        axes.contour(x, y, density, levels=unique, cmap="YlOrRd_r", linewidths=1.6)
    grid = np.exp(log_density)
    for number, (row, column) in enumerate(peaks(grid), start=1):
        x_peak = (column + 0.5) * width / grid.shape[1]
        y_peak = (row + 0.5) * height / grid.shape[0]
        axes.plot(x_peak, y_peak, "o", color="white", markeredgecolor="black", markersize=15)
        axes.text(x_peak, y_peak, str(number), ha="center", va="center_baseline", fontsize=9)
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    figure.savefig(path, dpi=100)


def _levels(density: np.ndarray) -> np.ndarray:
    """Density on the border of the smallest area that holds each of MASSES."""
    ordered = np.sort(density, axis=None)[::-1]
    held = np.cumsum(ordered) / ordered.sum()
    return ordered[np.minimum(np.searchsorted(held, MASSES), ordered.size - 1)]
