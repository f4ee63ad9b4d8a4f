"""The page that people read after a comparison: one HTML file with everything in it."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gazecore.view.report import METRIC_TITLES, data_uri

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
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["data_uri"] = data_uri
    template = resources.files("gazecore.view") / "comparison.html"
    return environment.from_string(template.read_text(encoding="utf-8")).render(
        summary=summary,
        titles=AVERAGE_TITLES,
        metric_titles=METRIC_TITLES,
        histogram=_histogram(js_bits),
        most=most,
    )


def _histogram(js_bits: np.ndarray) -> bytes:
    figure = Figure(figsize=(8, 2.8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.hist(js_bits, bins=40, range=(0, max(float(js_bits.max()), 1e-3)), color="#c2410c")
    axes.axvline(float(js_bits.mean()), color="black", linewidth=0.8)
    axes.set_xlabel("Jensen-Shannon divergence, bit (line: mean)")
    axes.set_ylabel("images")
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
