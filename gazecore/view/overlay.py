"""An image with its fixation density drawn over it."""

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import matplotlib
import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from PIL import Image

from gazecore.density.peaks import Blocks, Peak, apart, find_peaks
from gazecore.density.resample import to_size
from gazecore.view.canvas import POINTS, Canvas, PictureFormat, picture_size, save_picture

MASSES = (0.9, 0.7, 0.5, 0.3, 0.1)
"""Share of the fixations inside each contour, from the outermost to the innermost."""

MOST_PEAKS = 9
"""How many peaks are marked at most."""

MARKER = 21
"""Diameter in pixels of a peak's marker."""

_NUMBERS = "Numbers: the peaks, 1 the highest; none where two would overlap."
_DOTS = "Dots: where people looked."

_COLOURS = matplotlib.colormaps["YlOrRd_r"](np.linspace(0.1, 0.85, len(MASSES)))
_HALO = withStroke(linewidth=3, foreground=(0, 0, 0, 0.45))


def draw_overlay(
    image: Image.Image,
    log_density: np.ndarray,
    file: Path | BinaryIO,
    points: np.ndarray | None = None,
    longer_side: int = 1024,
    legend: bool = True,
    peaks: Sequence[Peak] | None = None,
    format: PictureFormat = "png",
) -> None:
    """Write a picture: the image, dimmed where few look, contours of the density, and its peaks.

    Each contour encloses the smallest area that holds 10, 30, 50, 70 or 90 % of the fixations.
    Peaks are numbered from the highest; where two markers would cover each other, the lower peak
    has none.

    Args:
        image: upright RGB. One that is smaller than SMALLEST is enlarged.
        log_density: on any grid of the same aspect, natural logarithm.
        file: the picture to write.
        points: recorded fixations (n, 2), x and y in the image's pixels, drawn instead of peaks.
        longer_side: the picture is at most so many pixels wide or high, without the legend.
        legend: say below the picture what is seen in it.
        peaks: the highest first, in the image's pixels; by default those of the density as given.
        format: of the file.
    """
    width, height = picture_size(*image.size, longer_side)
    scale = np.array([width, height]) / image.size
    density = np.exp(to_size(log_density, height, width).astype(np.float64))
    levels = levels_of(density)
    # Full brightness inside the contour of half the fixations, falling to a third far outside.
    brightness = 0.35 + 0.65 * np.clip(density / max(levels[2], 1e-300), 0, 1) ** 0.5
    pixels = np.asarray(image.resize((width, height)), dtype=np.float32) / 255
    canvas = Canvas(width, height, legend)
    canvas.show(pixels * brightness[..., None])
    unique, first = np.unique(levels, return_index=True)
    if density.max() > unique[0]:
        x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
        lines = canvas.axes.contour(
            x, y, density, levels=unique, colors=list(_COLOURS[first]), linewidths=1.6
        )
        lines.set(path_effects=[_HALO])
    if points is not None:
        x, y = (points * scale).T
        canvas.axes.scatter(x, y, s=14, color="#22d3ee", edgecolors="black", linewidths=0.5)
    else:
        if peaks is None:
            peaks = find_peaks(Blocks.of_cells(np.exp(log_density)), image.height, image.width)
        _draw_peaks(canvas, np.array([(peak.x, peak.y) for peak in peaks]) * scale)
    if legend:
        _draw_legend(canvas, _NUMBERS if points is None else _DOTS)
    save_picture(canvas.image(), file, format)


def _draw_peaks(canvas: Canvas, places: np.ndarray) -> None:
    # A marker at the border is drawn whole; it covers its peak still.
    size = np.array([canvas.width, canvas.height])
    half = np.minimum(MARKER / 2, size / 2)
    places = np.clip(places, half, size - half)
    for number in apart(places, MARKER + 2, MOST_PEAKS):
        x, y = places[number]
        canvas.axes.plot(
            x, y, "o", color="white", markeredgecolor="black", markersize=(MARKER - 1) * POINTS
        )
        canvas.axes.text(x, y, str(number + 1), ha="center", va="center_baseline", fontsize=9)


def _draw_legend(canvas: Canvas, marks: str) -> None:
    lines = [Line2D([], [], color=colour, linewidth=2.2) for colour in _COLOURS]
    canvas.figure.legend(
        lines,
        [f"{mass:.0%}" for mass in MASSES],
        title="Each line encloses this share of the predicted fixations:",
        loc="lower left",
        bbox_to_anchor=(0, 16 / canvas.figure.bbox.height),
        ncol=len(MASSES),
        frameon=False,
        fontsize=8,
        title_fontsize=8,
        borderpad=0.2,
        handlelength=1.6,
        columnspacing=1.4,
        alignment="left",
    )
    canvas.say(f"Dark: few people look. {marks}")


def levels_of(density: np.ndarray) -> np.ndarray:
    """Of a density (h, w), its value on the border of the smallest area that holds each of
    MASSES."""
    ordered = np.sort(density, axis=None)[::-1]
    held = np.cumsum(ordered) / ordered.sum()
    return ordered[np.minimum(np.searchsorted(held, MASSES), ordered.size - 1)]
