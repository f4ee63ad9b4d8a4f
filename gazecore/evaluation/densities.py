"""The densities that are judged, found in runs by image_id."""

from collections.abc import Iterator

import numpy as np

from gazecore.corpus.schema import Corpus
from gazecore.errors import InputError
from gazecore.results import read
from gazecore.results.lookup import DensityLookup


class Densities:
    """The densities of the judged images, and those of a baseline where there is one.

    Attributes:
        images: those that can be judged, in the order that reads them fastest.
        left_out: how many cannot, by reason.
        run: URI of the run.
        model: fingerprint of the run's model.
    """

    def __init__(self, corpus: Corpus, chosen: list[str], run: str, baseline: str) -> None:
        """Find the densities.

        Args:
            corpus: images and fixations.
            chosen: images that should be judged.
            run: a run that has densities of them.
            baseline: `centerbias`, `uniform`, or a run.

        Raises:
            InputError: there is no such run, or it has none of the images.
        """
        results = read.open(run)
        self.run, self.model = results.run.location.uri, results.run.settings.model
        self._model = DensityLookup(results)
        self._sizes = {r["image_id"]: (r["height"], r["width"]) for r in corpus.images.to_pylist()}
        scored = self._model.by_shard(chosen)
        if not scored:
            raise InputError(
                f"{run} has no density of any image that is to be judged: "
                f"the corpus names them like {chosen[0]!r}"
            )
        self.left_out = {"images without a density": len(chosen) - len(scored)}
        self._baseline: DensityLookup | np.ndarray | None = None
        if baseline == "uniform":
            self._baseline = np.zeros((2, 2))
        elif baseline != "centerbias":
            self._baseline = DensityLookup(read.open(baseline))
            both = [i for i in scored if i in self._baseline]
            self.left_out["images that the baseline lacks"] = len(scored) - len(both)
            scored = both
        if not scored:
            raise InputError(f"the baseline {baseline} has no density of any of the images")
        self.images = scored

    def __iter__(self) -> Iterator[tuple[str, np.ndarray, np.ndarray | None]]:
        """Image, the model's log density and the baseline's, each on its grid."""
        for image_id in self.images:
            baseline = self._baseline
            if isinstance(baseline, DensityLookup):
                baseline = baseline.on_grid(image_id, *self._sizes[image_id])
            yield image_id, self.of_model(image_id), baseline

    def of_model(self, image_id: str) -> np.ndarray:
        """The model's log density of one of `images`, on its grid."""
        return self._model.on_grid(image_id, *self._sizes[image_id])
