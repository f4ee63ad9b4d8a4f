"""The averages of an evaluation, with their 95 % intervals."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from gazecore.evaluation.settings import PREDICTORS
from gazecore.metrics.bootstrap import (
    Interval,
    average,
    average_over_fixations,
    explained_information_gain,
)
from gazecore.metrics.names import PER_FIXATION, Metric


def summarise(images: pa.Table, metrics: tuple[Metric, ...]) -> dict[str, Any]:
    """Averages over images and over fixations.

    Args:
        images: from `image_table`.
        metrics: those that it has.

    Returns:
        `metrics`: for each metric and predictor the mean over images with `low` and `high`, or
        null; `metrics_over_fixations`: the same over fixations, for the metrics that single
        fixations have; `explained_information_gain`: the model's share of the gold standard's, over
        the images that have one, null where that is not surely above 0; `gold_standard_images`: how
        many these are; `ceiling`, where the images have it, the same of that.
    """
    counts = images["fixations"].to_numpy().astype(np.float64)

    def table(
        names: tuple[Metric, ...], mean: Callable[[np.ndarray, np.ndarray], Interval]
    ) -> dict[str, dict[str, dict[str, float] | None]]:
        found: dict[str, dict[str, dict[str, float] | None]] = {}
        for metric in names:
            found[metric] = {}
            for predictor in PREDICTORS:
                values = _column(images, f"{metric}_{predictor}")
                there = ~np.isnan(values)
                found[metric][predictor] = (
                    asdict(mean(values[there], counts[there])) if there.any() else None
                )
        return found

    single = tuple(name for name in metrics if name in PER_FIXATION)
    return {
        "metrics": table(metrics, lambda values, _: average(values)),
        "metrics_over_fixations": table(single, average_over_fixations),
        "explained_information_gain": _explained(images, "gold_standard"),
        **_ceiling(images),
        "gold_standard_images": images.num_rows - images[f"{metrics[0]}_gold_standard"].null_count,
    }


def _ceiling(images: pa.Table) -> dict[str, Any]:
    """Where the ceiling was asked for: `ceiling`, its information gain and the model's share."""
    if "information_gain_ceiling" not in images.column_names:
        return {}
    gains = _column(images, "information_gain_ceiling")
    gains = gains[~np.isnan(gains)]
    return {
        "ceiling": {
            "information_gain": asdict(average(gains)) if len(gains) else None,
            "explained_information_gain": _explained(images, "ceiling"),
        }
    }


def _explained(images: pa.Table, limiting: str) -> dict[str, float] | None:
    if "information_gain_model" not in images.column_names:
        return None
    gains, limit = (_column(images, f"information_gain_{name}") for name in ("model", limiting))
    there = ~np.isnan(gains) & ~np.isnan(limit)
    if not there.any() or average(limit[there]).low <= 0:
        return None
    return asdict(explained_information_gain(gains[there], limit[there]))


def _column(images: pa.Table, name: str) -> np.ndarray:
    return np.asarray(images[name].to_numpy(zero_copy_only=False), dtype=np.float64)
