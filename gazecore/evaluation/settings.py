"""What an evaluation computes, and of which predictors."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from gazecore.errors import InputError
from gazecore.metrics.names import METRICS, Metric

Predictor = Literal["model", "centerbias", "gold_standard", "ceiling"]
PREDICTORS: tuple[Predictor, ...] = get_args(Predictor)[:3]
"""Those that have all metrics; the ceiling has information gain alone, where it is asked for."""

MapsAre = Literal["saliency", "density", "log-density"]
"""What the values of others' maps are: of any scale, densities but for a factor, or their logs."""


@dataclass(frozen=True)
class EvaluationConfig:
    """What is computed, and how the maps of fixations are smoothed."""

    metrics: tuple[Metric, ...] = METRICS
    """Which metrics; by default all."""
    sigma: float = 35.0
    """Deviation in pixels of the empirical maps of CC, KLDiv and SIM, usually one degree of visual
    angle: 35 for MIT1003 and MIT300, 24 for OSIE."""
    ceiling: bool = False
    """Give the share of a higher ceiling, too: of each image the best mixture of other viewers, the
    centre bias and the model itself (arXiv 2605.03885). Takes about a second an image."""

    def __post_init__(self) -> None:
        if not 0 < self.sigma < math.inf:
            raise InputError(f"sigma must be positive, not {self.sigma:g}")
        if not self.metrics or len(set(self.metrics)) < len(self.metrics):
            raise InputError("metrics must name at least one metric, and each once")
