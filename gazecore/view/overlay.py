"""An image with its fixation density drawn over it."""

from pathlib import Path
from typing import BinaryIO

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from gazecore.density.peaks import Blocks, apart, find_peaks
from gazecore.density.resample import to_size
from gazecore.ownership import MADE_BY

MASSES = (0.9, 0.7, 0.5, 0.3, 0.1)
"""Share of the fixations inside each contour, from the outermost to the innermost."""

SMALLEST = 512
"""Pixels of the longer side to which small images are enlarged, so that marks do not hide them."""

NARROWEST = 64
"""Pixels of the shorter side at least; of an image of 16:1 or more it is stretched to that."""

MOST_PEAKS = 9
"""How many peaks are marked at most."""

MARKER = 21
"""Diameter in pixels of a peak's marker."""

LEGEND = (540, 58)
"""Width at least, and height, of the legend in pixels."""

_NUMBERS = "Numbers: the highest peaks, 1 first; none where two would overlap."
_DOTS = "Dots: where people looked."

_COLOURS = matplotlib.colormaps["YlOrRd_r"](np.linspace(0.1, 0.85, len(MASSES)))
_DPI = 100
_POINTS = 72 / _DPI  # of type and lines, in a pixel


def draw_overlay(
    image: Image.Image,
    log_density: np.ndarray,
    file: Path | BinaryIO,
    points: np.ndarray | None = None,
    longer_side: int = 1024,
    legend: bool = True,
) -> None:
    """Write a PNG: the image, dimmed where few look, contours of the density, and its peaks.

    Each contour encloses the smallest area that holds 10, 30, 50, 70 or 90 % of the fixations.
    Peaks are numbered from the highest; where two markers would cover each other, the lower peak
    has none.

    Args:
        image: upright RGB. One that is smaller than SMALLEST is enlarged.
        log_density: on any grid of the same aspect, natural logarithm.
        file: the PNG to write.
        points: recorded fixations (n, 2), x and y in the image's pixels, drawn instead of peaks.
        longer_side: the picture is at most so many pixels wide or high, without the legend.
        legend: say below the picture what is seen in it.
    """
    width, height = picture_size(*image.size, longer_side)
    density = np.exp(to_size(log_density, height, width).astype(np.float64))
    levels = _levels(density)
    # Full brightness inside the contour of half the fixations, falling to a third far outside.
    brightness = 0.35 + 0.65 * np.clip(density / max(levels[2], 1e-300), 0, 1) ** 0.5
    pixels = np.asarray(image.resize((width, height)), dtype=np.float32) / 255
    canvas_width, below = (max(width, LEGEND[0]), LEGEND[1]) if legend else (width, 0)
    canvas_height = height + below
    figure = Figure(figsize=(canvas_width / _DPI, canvas_height / _DPI), dpi=_DPI)
    FigureCanvasAgg(figure)
    left = (canvas_width - width) // 2 / canvas_width
    axes = figure.add_axes(
        (left, below / canvas_height, width / canvas_width, height / canvas_height)
    )
    axes.set_axis_off()
    axes.imshow(pixels * brightness[..., None], extent=(0, width, height, 0), aspect="auto")
    unique, first = np.unique(levels, return_index=True)
    if density.max() > unique[0]:
        x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
        axes.contour(x, y, density, levels=unique, colors=list(_COLOURS[first]), linewidths=1.6)
    if points is None:
        _draw_peaks(axes, np.exp(log_density), height, width)
    else:
        x, y = (points * (width / image.width, height / image.height)).T
        axes.scatter(x, y, s=14, color="#22d3ee", edgecolors="black", linewidths=0.5)
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    if legend:
        _draw_legend(figure, _NUMBERS if points is None else _DOTS)
    figure.savefig(file, dpi=_DPI, format="png", metadata={"Software": MADE_BY})


def picture_size(width: int, height: int, longer_side: int = 1024) -> tuple[int, int]:
    """(width, height) in pixels at which an image of a size is drawn."""
    longer = min(longer_side, max(width, height, SMALLEST))
    scale = longer / max(width, height)
    drawn_width, drawn_height = (
        max(min(NARROWEST, longer), round(side * scale)) for side in (width, height)
    )
    return drawn_width, drawn_height


def _draw_peaks(axes: Axes, density: np.ndarray, height: int, width: int) -> None:
    size = (width, height)
    found = find_peaks(Blocks.of_cells(density), height, width)
    places = np.array([(peak.x, peak.y) for peak in found])
    # A marker at the border is drawn whole; it covers its peak still.
    half = np.minimum(MARKER / 2, np.array(size) / 2)
    places = np.clip(places, half, size - half)
    for number in apart(places, MARKER + 2, MOST_PEAKS):
        x, y = places[number]
        axes.plot(
            x, y, "o", color="white", markeredgecolor="black", markersize=(MARKER - 1) * _POINTS
        )
        axes.text(x, y, str(number + 1), ha="center", va="center_baseline", fontsize=9)


def _draw_legend(figure: Figure, marks: str) -> None:
    lines = [Line2D([], [], color=colour, linewidth=2.2) for colour in _COLOURS]
    figure.legend(
        lines,
        [f"{mass:.0%}" for mass in MASSES],
        title="Each line encloses this share of the predicted fixations:",
        loc="lower left",
        bbox_to_anchor=(0, 16 / figure.bbox.height),
        ncol=len(MASSES),
        frameon=False,
        fontsize=8,
        title_fontsize=8,
        borderpad=0.2,
        handlelength=1.6,
        columnspacing=1.4,
        alignment="left",
    )
    figure.text(
        8 / figure.bbox.width, 6 / figure.bbox.height, f"Dark: few people look. {marks}", fontsize=8
    )


def _levels(density: np.ndarray) -> np.ndarray:
    """Density on the border of the smallest area that holds each of MASSES."""
    ordered = np.sort(density, axis=None)[::-1]
    held = np.cumsum(ordered) / ordered.sum()
    return ordered[np.minimum(np.searchsorted(held, MASSES), ordered.size - 1)]
