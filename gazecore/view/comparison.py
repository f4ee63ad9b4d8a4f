"""The page that people read after a comparison: one HTML file with everything in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gazecore.view.pages import plot, png, render
from gazecore.view.report import METRIC_TITLES

AVERAGE_TITLES = {
    "js_bits": ("Jensen-Shannon divergence", "bit, 0 to 1"),
    "cc": ("CC", "correlation of both densities"),
    "peak_shift": ("Peak shift", "px"),
    "peak_shift_share": ("Peak shift", "of the diagonal"),
}
"""Name and unit of each average."""


@dataclass(frozen=True)
class PairIllustration:
    """A pair of images on the page.

    Attributes:
        image_id, image_id_b: their names.
        js_bits: how much they differ.
        first, second: the pictures, JPEG, or None where an image could not be read again.
    """

    image_id: str
    image_id_b: str
    js_bits: float
    first: bytes | None
    second: bytes | None


def render_comparison(
    summary: Mapping[str, Any], js_bits: np.ndarray, most: Sequence[PairIllustration]
) -> str:
    """The page as HTML; all text from outside is escaped.

    Args:
        summary: the content of summary.json.
        js_bits: divergence of each pair.
        most: the pairs that differ most.
    """
    return render(
        "comparison.html",
        summary=summary,
        titles=AVERAGE_TITLES,
        metric_titles=METRIC_TITLES,
        histogram=_histogram(js_bits),
        most=most,
    )


def _histogram(js_bits: np.ndarray) -> bytes:
    figure, axes = plot(2.8)
    axes.hist(js_bits, bins=40, range=(0, max(float(js_bits.max()), 1e-3)), color="#c2410c")
    axes.axvline(float(js_bits.mean()), color="black", linewidth=0.8)
    axes.set_xlabel("Jensen-Shannon divergence, bit (line: mean)")
    return png(figure)
