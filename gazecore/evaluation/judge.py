"""One image after the other: the model, the centre bias and the gold standard, judged alike."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_limits

from gazecore.corpus.schema import Corpus
from gazecore.density.resample import to_size
from gazecore.evaluation.densities import Predicted
from gazecore.evaluation.settings import EvaluationConfig, Predictor
from gazecore.metrics import ceiling, goldstandard
from gazecore.metrics.auc import at
from gazecore.metrics.baseline import LeaveOneOutCenterbias
from gazecore.metrics.judgement import Judgement, judge
from gazecore.metrics.nonfixations import Nonfixations
from gazecore.metrics.recording import Recording, recordings
from gazecore.metrics.viewers import judge_viewers

_FITTED_IMAGES = 200
"""The gold standard's four numbers are fitted to so many images at most."""


class Judge:
    """The baselines of a corpus, and the judgement of densities by its fixations.

    Centre bias and nonfixations come from all of the corpus's images but the judged one.

    Attributes:
        centerbias: made from all images, for each of them without itself.
        gold_standard: fitted to the judged images; None if none has two viewers.
    """

    def __init__(self, corpus: Corpus, judged: Sequence[str], config: EvaluationConfig) -> None:
        """Make the baselines.

        Args:
            corpus: images and fixations.
            judged: the images that are going to be judged, each with a fixation at least.
            config: what to compute.
        """
        self._config = config
        everyone = recordings(corpus)
        self._position = {r.image_id: i for i, r in enumerate(everyone)}
        self._recordings = everyone
        self._nonfixations = Nonfixations(
            [r.points for r in everyone], [(r.height, r.width) for r in everyone]
        )
        self._expected_fixations = round(
            float(np.mean([len(r.points) for r in everyone if len(r.points)]))
        )
        self.centerbias = LeaveOneOutCenterbias(everyone)
        sample = np.unique(np.linspace(0, len(judged) - 1, _FITTED_IMAGES).round().astype(int))
        fitted = [self._recording(judged[i]) for i in sample]
        self.gold_standard = (
            goldstandard.fit(fitted, self._log_centerbias)
            if any(len(np.unique(r.subjects)) > 1 for r in fitted)
            else None
        )

    def judge(self, predicted: Predicted) -> dict[Predictor, Judgement]:
        """Judge all predictors of an image."""
        recording = self._recording(predicted.image_id)
        size = (recording.height, recording.width)
        log_centerbias = self._log_centerbias(recording)
        nonfixations = (
            self._nonfixations.of_image(self._position[predicted.image_id])
            if "sauc" in self._config.metrics
            else np.empty((0, 2))
        )
        baseline = predicted.log_baseline
        baseline = None if baseline is None else to_size(baseline, *size)
        common = (
            log_centerbias,
            nonfixations,
            self._config.sigma,
            self._expected_fixations,
            self._config.metrics,
            baseline,
        )
        found: dict[Predictor, Judgement] = {
            "model": judge(
                to_size(predicted.log_density, *size),
                recording.points,
                *common,
                saliency_map=predicted.saliency,
            ),
            "centerbias": judge(log_centerbias, recording.points, *common),
        }
        if self.gold_standard:
            found["gold_standard"] = judge_viewers(self.gold_standard, recording, *common)
        if self._config.ceiling:
            model = to_size(predicted.log_density, *size)
            nats = ceiling.log_likelihoods(recording, log_centerbias, model)
            over = at(log_centerbias if baseline is None else baseline, recording.points)
            gains = (nats - over) / np.log(2)
            found["ceiling"] = Judgement(
                {"information_gain": gains}, {"information_gain": float(gains.mean())}
            )
        return found

    def judge_all(
        self,
        densities: Iterable[Predicted],
        threads: int,
        on_image: Callable[[], None],
    ) -> dict[str, dict[Predictor, Judgement]]:
        """Judge many images side by side.

        Args:
            densities: what is judged on each image; taken as they are needed.
            threads: images at once.
            on_image: is called after each.

        Returns:
            image_id to what `judge` found.
        """
        found = {}
        waiting: deque[tuple[str, Future[dict[Predictor, Judgement]]]] = deque()
        # Numpy's own threads would only get in the way of ours.
        with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
            for predicted in densities:
                task = pool.submit(self.judge, predicted)
                waiting.append((predicted.image_id, task))
                if len(waiting) > 2 * threads:  # so that few densities are in memory at once
                    done, task = waiting.popleft()
                    found[done] = task.result()
                    on_image()
            for done, task in waiting:
                found[done] = task.result()
                on_image()
        return found

    def _recording(self, image_id: str) -> Recording:
        return self._recordings[self._position[image_id]]

    def _log_centerbias(self, recording: Recording) -> np.ndarray:
        return self.centerbias.log_density(recording.image_id, recording.height, recording.width)
