"""An image with its fixation density drawn over it."""

from pathlib import Path
from typing import BinaryIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from gazecore.density.resample import to_size
from gazecore.density.statistics import peaks

MASSES = (0.9, 0.7, 0.5, 0.3, 0.1)
"""Share of the fixations inside each contour, from the outermost to the innermost."""


def draw_overlay(
    image: Image.Image,
    log_density: np.ndarray,
    file: Path | BinaryIO,
    points: np.ndarray | None = None,
    longer_side: int = 1024,
) -> None:
    """Write a PNG: the image, dimmed where few look, contours of the density, and its peaks.

    Each contour encloses the smallest area that holds 10, 30, 50, 70 or 90 % of the fixations.
    Peaks are numbered from the highest.

    Args:
        image: upright RGB.
        log_density: on any grid of the same aspect, natural logarithm.
        file: the PNG to write.
        points: recorded fixations (n, 2), x and y in the image's pixels, drawn instead of peaks.
        longer_side: the picture is at most so many pixels wide or high.
    """
    scale = min(1.0, longer_side / max(image.size))
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
    if points is None:
        _draw_peaks(axes, np.exp(log_density), height, width)
    else:
        x, y = points.T * scale
        axes.scatter(x, y, s=14, color="#22d3ee", edgecolors="black", linewidths=0.5)
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    figure.savefig(file, dpi=100, format="png")


def _draw_peaks(axes: Axes, density: np.ndarray, height: int, width: int) -> None:
    for number, (row, column) in enumerate(peaks(density), start=1):
        x = (column + 0.5) * width / density.shape[1]
        y = (row + 0.5) * height / density.shape[0]
        axes.plot(x, y, "o", color="white", markeredgecolor="black", markersize=15)
        axes.text(x, y, str(number), ha="center", va="center_baseline", fontsize=9)


def _levels(density: np.ndarray) -> np.ndarray:
    """Density on the border of the smallest area that holds each of MASSES."""
    ordered = np.sort(density, axis=None)[::-1]
    held = np.cumsum(ordered) / ordered.sum()
    return ordered[np.minimum(np.searchsorted(held, MASSES), ordered.size - 1)]
