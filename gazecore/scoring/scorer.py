"""Scoring a shard: images become densities and their statistics."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gazecore.density.codec import encode
from gazecore.density.statistics import statistics
from gazecore.geometry import DEFAULT_FACTOR
from gazecore.images.decode import NetworkInput
from gazecore.model.deepgaze import DeepGaze, Prediction
from gazecore.scoring.pipeline import Pipeline, ReadingConfig, Row


@dataclass(frozen=True)
class ScorerConfig(ReadingConfig):
    """How images are scored.

    Attributes:
        density_factor: grid cells per stored density cell, in both directions.
    """

    density_factor: int = DEFAULT_FACTOR


class Scorer:
    """A model on its device, with the threads that feed it.

    Attributes:
        score: `Pipeline.process`: rows of SCORES for every image, of DENSITIES for the `ok` ones.
        clock: where the time goes.
    """

    def __init__(self, model: DeepGaze, config: ScorerConfig) -> None:
        self.model = model
        self.config = config
        self._pipeline = Pipeline(self, config)
        self.score = self._pipeline.process
        self.clock = self._pipeline.clock

    def batch_size(self, height: int, width: int) -> int:
        """See `Stage.batch_size`."""
        return self.model.backbone.batch_size(height, width)

    def compute(self, pixels: np.ndarray, at_once: int) -> Prediction:
        """See `Stage.compute`."""
        return self.model.predict(pixels, at_once)

    def finish(
        self, row: Row, image: NetworkInput, computed: Prediction, position: int
    ) -> tuple[Row, Row]:
        """See `Stage.finish`."""
        return summarise(
            row,
            (image.height, image.width),
            computed.log_density[position],
            computed.members[position],
            computed.centerbias,
            self.config.density_factor,
        )

    def close(self) -> None:
        """End the threads."""
        self._pipeline.close()


def summarise(
    row: Mapping[str, Any],
    size: tuple[int, int],
    log_density: np.ndarray,
    members: np.ndarray,
    centerbias: np.ndarray,
    factor: int,
) -> tuple[Row, Row]:
    """The SCORES and DENSITIES rows of one image.

    Args:
        row: the image's row of the plan.
        size: height and width of the original image.
        log_density, members, centerbias: as `density.statistics` takes them.
        factor: grid cells per stored cell.

    Raises:
        NotFinite: the density, or one of its statistics, is not finite.
    """
    height, width = size
    numbers = statistics(log_density, members, centerbias, height, width)
    values, offset = encode(log_density, factor)
    score = {
        "image_id": row["image_id"],
        "uri": row["uri"],
        "status": "ok",
        "height": height,
        "width": width,
        **numbers,
    }
    density = {
        "image_id": row["image_id"],
        "height": height,
        "width": width,
        "grid_height": values.shape[0],
        "grid_width": values.shape[1],
        "log_density": values.ravel(),
        "log_offset": offset,
    }
    return score, density
