"""How much better one run predicts recorded fixations than another, image by image."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from gazecore.cores import cores
from gazecore.corpus.schema import Corpus
from gazecore.evaluation.densities import Densities, Predicted
from gazecore.evaluation.judge import Judge
from gazecore.evaluation.selection import select_images
from gazecore.evaluation.settings import EvaluationConfig
from gazecore.metrics.bootstrap import average
from gazecore.results.run import Run

_MOST_THREADS = 16


class JudgedRuns:
    """Two runs and a corpus: which images can be judged, and the differences of all metrics.

    Attributes:
        images: that have fixations, and densities of their size in both runs.
        left_out: how many cannot be judged, by reason.
    """

    def __init__(self, corpus: Corpus, runs: tuple[Run, Run]) -> None:
        """Find the images. Raises InputError where there is none."""
        chosen, self.left_out = select_images(corpus, None, None, None)
        self._corpus, self._densities = corpus, list[Densities]()
        self.images = chosen
        for run in runs:
            densities = Densities(corpus, self.images, run.location.uri, "centerbias")
            for why, count in densities.left_out.items():
                self.left_out[why] = self.left_out.get(why, 0) + count
            self.images = densities.images
            self._densities.append(densities)

    def judge(
        self, config: EvaluationConfig, on_image: Callable[[], None]
    ) -> tuple[pa.Table, dict[str, dict[str, Any]]]:
        """Judge both runs by the same fixations and baselines.

        Args:
            config: what to compute.
            on_image: is called after each image of each run.

        Returns:
            A row for each image: image_id, fixations, and METRIC_a, METRIC_b and METRIC_difference
            (b - a); and for each metric the means `a`, `b` and `difference` over the images that
            have it in both, with 95 % intervals, that of the difference of pairs.
        """
        judge = Judge(self._corpus, self.images, config)
        found = [
            judge.judge_all(
                (Predicted(i, densities.of_model(i)) for i in self.images),
                cores(_MOST_THREADS), on_image,
            )
            for densities in self._densities
        ]  # fmt: skip
        points = self._corpus.points()
        columns: dict[str, Any] = {
            "image_id": self.images,
            "fixations": pa.array([len(points[i]) for i in self.images], pa.int32()),
        }
        summary: dict[str, dict[str, Any]] = {}
        for metric in config.metrics:
            a, b = (np.array([own[i]["model"].image[metric] for i in self.images]) for own in found)
            values = {"a": a, "b": b, "difference": b - a}
            for name, own in values.items():
                columns[f"{metric}_{name}"] = pa.array(own, mask=np.isnan(own))
            there = ~np.isnan(values["difference"])
            if there.any():
                summary[metric] = {n: asdict(average(own[there])) for n, own in values.items()}
        return pa.table(columns), summary
