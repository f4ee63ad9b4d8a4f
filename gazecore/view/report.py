"""The page that people read after an evaluation: one HTML file with everything in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gazecore.view.charts import histogram
from gazecore.view.layers import Layers
from gazecore.view.pages import render

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
        layers: what is seen of it.
    """

    image_id: str
    caption: str
    layers: Layers


def render_report(
    summary: Mapping[str, Any],
    gains: Mapping[str, np.ndarray],
    best: Sequence[Illustration],
    worst: Sequence[Illustration],
    command: str = "",
) -> str:
    """The page as HTML; all text from outside is escaped.

    Args:
        summary: the content of summary.json.
        gains: predictor's title to information gain of each image; may be empty.
        best, worst: examples, the most telling first.
        command: that the page names.
    """
    return render(
        "report.html",
        "evaluation",
        command=command,
        summary=summary,
        titles=METRIC_TITLES,
        baseline=BASELINES.get(summary["baseline"], f"the densities of {summary['baseline']}"),
        ceiling=CEILING,
        densities_from=MAPS.get(summary.get("maps_are", ""), ""),
        share_of=share_of(summary) if summary["explained_information_gain"] else "",
        histogram=histogram(gains, "information gain, bit per fixation"),
        means={title: float(values.mean()) for title, values in gains.items()},
        groups=[("Best predicted", best), ("Worst predicted", worst)],
    )


BASELINES = {"centerbias": "the centre bias", "uniform": "the uniform density"}
"""What pages call a baseline that is no run."""


MAPS = {
    "saliency": "These are no densities: their likelihoods are those of the best density that a "
    "blur, a rising nonlinearity and a centre bias make of them, fitted to other images; all else "
    "is judged on the maps themselves.",
    "density": "They are taken for densities, each divided by its sum.",
    "log-density": "They are log densities, judged as they are.",
}
"""How others' maps became densities, by what they are."""


CEILING = (
    "for each image the best mixture of the other viewers, the centre bias, the uniform density "
    "and the model itself"
)


def share_of(summary: Mapping[str, Any]) -> str:
    """What an explained information gain is a share of, in words."""
    baseline = BASELINES.get(summary["baseline"], f"the densities of {summary['baseline']}")
    found = (
        f"of the information that the gold standard (each viewer predicted from the others) has "
        f"over {baseline}"
    )
    if summary["explained_information_gain"]["mean"] < 0:
        found += "; below 0, because the model predicts worse than these"
    return found
