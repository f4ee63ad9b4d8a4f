"""The names of metrics, as the evaluation's results have them."""

from typing import Literal, get_args

Metric = Literal[
    "information_gain", "log_likelihood", "auc", "auc_judd", "sauc", "nss", "cc", "kldiv", "sim"
]
METRICS: tuple[Metric, ...] = get_args(Metric)
PER_IMAGE = ("auc_judd", "cc", "kldiv", "sim")
PER_FIXATION = tuple(name for name in METRICS if name not in PER_IMAGE)
