"""The centre bias as a baseline: for images that it was made from, made without them.

Kernel density in normalised coordinates mixed with the uniform density, as in Kümmerer, Wallis &
Bethge 2015 (PNAS 112, 16054); the fit itself is `gazecore.model.centerbias`.
"""

from collections.abc import Sequence

import numpy as np

from gazecore.density.resample import to_size
from gazecore.metrics.recording import Recording
from gazecore.model import centerbias


class LeaveOneOutCenterbias:
    """The centre bias of a corpus, for each of its images made from all the others.

    Bandwidth and uniform share are chosen once, by cross-validation over images; leaving an image
    out subtracts its counts, so that a thousand images cost seconds.

    Attributes:
        bandwidth: of the kernel, as a share of the image's sides.
        uniform_share: weight of the uniform density.
    """

    def __init__(self, recordings: Sequence[Recording]) -> None:
        """Choose bandwidth and uniform share.

        Args:
            recordings: of the corpus, or of the part that baselines may be made from.

        Raises:
            ValueError: there is no fixation.
        """
        scaled = [r.points / (r.width, r.height) for r in recordings]
        fitted = centerbias.fit_images(scaled)
        self.bandwidth, self.uniform_share = fitted.bandwidth, fitted.uniform_share
        self._counts = centerbias.histogram(*np.concatenate(scaled).T)
        self._own = {r.image_id: p for r, p in zip(recordings, scaled, strict=True)}

    def log_density(self, image_id: str, height: int, width: int) -> np.ndarray:
        """The log density of fixations on all images but one.

        Args:
            image_id: the image that is judged; one that the centre bias was not made from gets
                that of all images.
            height, width: its size in pixels.

        Returns:
            float32 (height, width), natural logarithm, logsumexp 0.
        """
        x, y = self._own.get(image_id, np.empty((0, 2))).T
        others = self._counts - centerbias.histogram(x, y)
        density = centerbias.with_uniform(
            centerbias.smooth(others, self.bandwidth), self.uniform_share
        )
        return to_size(np.log(density), height, width)
