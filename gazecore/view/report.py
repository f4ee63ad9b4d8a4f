"""The page that people read after an evaluation: one HTML file with everything in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gazecore.view.pages import plot, png, render

METRIC_TITLES = {
    "information_gain": ("Information gain", "bit per fixation over the baseline"),
    "log_likelihood": ("Log-likelihood", "bit per fixation over the uniform density"),
    "auc": ("AUC", "against all pixels"),
    "auc_judd": ("AUC-Judd", "against unfixated pixels"),
    "sauc": ("Shuffled AUC", "against fixations on other images"),
    "nss": ("NSS", "deviations"),
    "cc": ("CC", "correlation of maps"),
    "kldiv": ("KLDiv", "nat, lower is better"),
    "sim": ("SIM", "overlap of maps"),
}
"""Name and unit of each metric."""


@dataclass(frozen=True)
class Illustration:
    """An image on the page.

    Attributes:
        image_id: its name.
        caption: what is said of it.
        jpeg: the picture, or None if the image could not be read again.
    """

    image_id: str
    caption: str
    jpeg: bytes | None


def render_report(
    summary: Mapping[str, Any],
    gains: Mapping[str, np.ndarray],
    best: Sequence[Illustration],
    worst: Sequence[Illustration],
) -> str:
    """The page as HTML; all text from outside is escaped.

    Args:
        summary: the content of summary.json.
        gains: predictor's title to information gain of each image; may be empty.
        best, worst: examples, the most telling first.
    """
    return render(
        "report.html",
        summary=summary,
        titles=METRIC_TITLES,
        histogram=_histogram(gains) if gains else None,
        groups=[("Best predicted", best), ("Worst predicted", worst)],
    )


def _histogram(gains: Mapping[str, np.ndarray]) -> bytes:
    figure, axes = plot(3.2)
    everything = np.concatenate(list(gains.values()))
    bins = np.linspace(everything.min() - 1e-9, everything.max() + 1e-9, 41).tolist()
    for (title, values), colour in zip(gains.items(), ("#c2410c", "#64748b"), strict=False):
        label = f"{title}, mean {values.mean():.2f}"
        axes.hist(values, bins, histtype="stepfilled", alpha=0.35, color=colour, label=label)
        axes.hist(values, bins, histtype="step", color=colour)
        axes.axvline(float(values.mean()), color=colour, linewidth=1.2)
    axes.axvline(0, color="black", linewidth=0.8, linestyle=":")
    axes.set_xlabel("information gain, bit per fixation")
    axes.legend(frameon=False)
    return png(figure)
