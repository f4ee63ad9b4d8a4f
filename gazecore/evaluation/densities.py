"""The densities that are judged, found in runs by image_id."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gazecore.corpus.schema import Corpus
from gazecore.errors import InputError
from gazecore.results.reader import DensityLookup, open_results


@dataclass(frozen=True)
class Predicted:
    """What is judged on an image.

    Attributes:
        image_id: in the corpus.
        log_density: of the model, on any grid, natural logarithm.
        log_baseline: what information gain is over, on any grid; None for the centre bias.
        saliency: a map of the image's size, by which all but the likelihoods is judged where the
            model gives no density of its own.
    """

    image_id: str
    log_density: np.ndarray
    log_baseline: np.ndarray | None = None
    saliency: np.ndarray | None = None


class Densities:
    """The densities of the judged images, and those of a baseline where there is one.

    Attributes:
        images: those that can be judged, in the order that reads them fastest.
        left_out: how many cannot, by reason.
        run: URI of the run.
        model: fingerprint of the run's model.
        model_name, trained_on: what the run calls it, and says that it was trained on.
    """

    def __init__(self, corpus: Corpus, chosen: list[str], run: str, baseline: str) -> None:
        """Find the densities.

        Args:
            corpus: images and fixations.
            chosen: images that should be judged.
            run: a run that has densities of them.
            baseline: `centerbias`, `uniform`, or a run.

        Raises:
            InputError: there is no such run, or no image remains.
        """
        results = open_results(run)
        self.run, self.model = results.run.location.uri, results.run.settings.model
        note = results.run.model
        self.model_name, self.trained_on = note.name or "the model", note.trained_on
        self._model = DensityLookup(results)
        self._baseline: DensityLookup | np.ndarray | None = None
        sizes = {r["image_id"]: (r["height"], r["width"]) for r in corpus.images.to_pylist()}
        scores = results.read_scores(["image_id", "status"]).to_pylist()
        failed = {row["image_id"] for row in scores if row["status"] != "ok"}
        there = self._model.by_shard(chosen)
        images = [i for i in there if self._model.size(i) == sizes[i]]
        self.left_out = {
            "images that could not be scored": len(failed.intersection(chosen)),
            "images that are not in the run": len(set(chosen) - set(there) - failed),
            "images of another size in the run": len(there) - len(images),
        }
        if baseline == "uniform":
            self._baseline = np.zeros((2, 2))
        elif baseline != "centerbias":
            try:
                self._baseline = DensityLookup(open_results(baseline))
            except InputError as error:
                raise InputError(f"a baseline is centerbias, uniform or a run: {error}") from error
            known = [
                i for i in images if i in self._baseline and self._baseline.size(i) == sizes[i]
            ]
            self.left_out["images that the baseline lacks"] = len(images) - len(known)
            images = known
        self.left_out = {why: count for why, count in self.left_out.items() if count}
        if not images:
            reasons = [f"{count:,} {why}" for why, count in self.left_out.items()]
            raise InputError(
                f"no image can be judged: {', '.join(reasons)}; the corpus names them like "
                f"{chosen[0]!r}"
            )
        self.images = images

    def __iter__(self) -> Iterator[Predicted]:
        """Each image with the model's log density and the baseline's, on their grids."""
        for image_id in self.images:
            baseline = self._baseline
            if isinstance(baseline, DensityLookup):
                baseline = baseline.on_grid(image_id)
            yield Predicted(image_id, self.of_model(image_id), baseline)

    def of_model(self, image_id: str) -> np.ndarray:
        """The model's log density of one of `images`, on its grid."""
        return self._model.on_grid(image_id)
