"""What an evaluation leaves to query: a row per image, a row per fixation.

    DIR/images.parquet      image_id, fixations, viewers, and METRIC_PREDICTOR for every metric
    DIR/fixations.parquet   image_id, subject, index, x, y, and METRIC_PREDICTOR for the metrics
                            that single fixations have

METRIC_PREDICTOR is, for instance, `auc_model`, `auc_centerbias` or `auc_gold_standard`; null where
a predictor has no value.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from gazecore.corpus.schema import Corpus
from gazecore.evaluation.settings import PREDICTORS, Predictor
from gazecore.metrics.judgement import Judgement
from gazecore.metrics.names import PER_FIXATION, Metric

Judgements = Mapping[str, Mapping[Predictor, Judgement]]
"""image_id to what each predictor reached there."""


def image_table(corpus: Corpus, judgements: Judgements, metrics: tuple[Metric, ...]) -> pa.Table:
    """One row per judged image, in the order of `judgements`."""
    rows = corpus.rows_by_image()
    subjects = np.array(corpus.fixations["subject"].to_pylist(), dtype=object)
    columns: dict[str, pa.Array] = {
        "image_id": pa.array(list(judgements), pa.string()),
        "fixations": pa.array([len(rows[i]) for i in judgements], pa.int32()),
        "viewers": pa.array([len(set(subjects[rows[i]])) for i in judgements], pa.int32()),
    }
    for metric in metrics:
        for predictor in PREDICTORS:
            values = [
                found[predictor].image[metric] if predictor in found else np.nan
                for found in judgements.values()
            ]
            columns[f"{metric}_{predictor}"] = _nullable(np.array(values, dtype=np.float64))
    return pa.table(columns)


def fixation_table(corpus: Corpus, judgements: Judgements, metrics: tuple[Metric, ...]) -> pa.Table:
    """One row per fixation on the judged images, image after image."""
    rows = corpus.rows_by_image()
    taken = np.concatenate([rows[image_id] for image_id in judgements])
    table = corpus.fixations.select(["image_id", "subject", "index", "x", "y"]).take(taken)
    for metric in metrics:
        if metric in PER_FIXATION:
            for predictor in PREDICTORS:
                values = [
                    found[predictor].fixations[metric]
                    if predictor in found
                    else np.full(len(rows[image_id]), np.nan)
                    for image_id, found in judgements.items()
                ]
                name = f"{metric}_{predictor}"
                table = table.append_column(name, _nullable(np.concatenate(values)))
    return table


def with_ceiling(images: pa.Table, judgements: Judgements) -> pa.Table:
    """The table of images with `information_gain_ceiling`, see `metrics.ceiling`."""
    values = [found["ceiling"].image["information_gain"] for found in judgements.values()]
    return images.append_column("information_gain_ceiling", _nullable(np.array(values)))


def _nullable(values: np.ndarray) -> pa.Array:
    return pa.array(values, pa.float64(), mask=np.isnan(values))
