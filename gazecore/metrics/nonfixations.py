"""Nonfixations of the shuffled AUC: where people looked on all other images of a corpus."""

from collections.abc import Sequence

import numpy as np


class Nonfixations:
    """Fixations of a corpus, ready to be scaled to the size of each of its images.

    Args:
        points: for each image (n, 2), x and y in its own pixels; n may be 0.
        sizes: for each image (height, width).
    """

    def __init__(self, points: Sequence[np.ndarray], sizes: Sequence[tuple[int, int]]) -> None:
        self._sizes = np.array(sizes)
        self._image = np.repeat(np.arange(len(points)), [len(p) for p in points])
        self._x, self._y = np.concatenate([*points, np.empty((0, 2))]).T

    def of_image(self, index: int) -> np.ndarray:
        """Fixations on the other images, scaled to this image's size as pysaliency scales them.

        Args:
            index: the image's position in the corpus.

        Returns:
            float64 (m, 2), whole pixels.
        """
        height, width = self._sizes[index]
        x = self._x * (width / self._sizes[:, 1])[self._image]
        y = self._y * (height / self._sizes[:, 0])[self._image]
        pixels = np.column_stack([np.floor(x), np.floor(y)])[self._image != index]
        # A fixation on the last pixel's far edge may round up and out of the image.
        return np.asarray(np.minimum(pixels, [width - 1, height - 1]))
