"""The page that people read after a comparison: one HTML file with everything in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gazecore.view.charts import histogram
from gazecore.view.layers import Layers
from gazecore.view.pages import name_of, render
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
        first, second: what is seen of both.
    """

    image_id: str
    image_id_b: str
    js_bits: float
    first: Layers
    second: Layers


def render_comparison(
    summary: Mapping[str, Any],
    js_bits: np.ndarray,
    most: Sequence[PairIllustration],
    command: str = "",
) -> str:
    """The page as HTML; all text from outside is escaped.

    Args:
        summary: the content of summary.json.
        js_bits: divergence of each pair.
        most: the pairs that differ most.
        command: that the page names.
    """
    runs = [summary["comparison"][which]["run"] for which in ("a", "b")]
    names = [name_of(run) for run in runs]
    values = {"Jensen-Shannon divergence": js_bits}
    return render(
        "comparison.html",
        "comparison",
        command=command,
        names=names if names[0] != names[1] else runs,
        summary=summary,
        titles=AVERAGE_TITLES,
        metric_titles=METRIC_TITLES,
        histogram=histogram(values, "Jensen-Shannon divergence, bit", least=0.0),
        most=most,
    )
