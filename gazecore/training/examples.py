"""What a readout is trained on: cached features and the fixations on their images."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from gazecore.corpus.schema import Corpus
from gazecore.corpus.splits import duplicate_groups, folds
from gazecore.errors import InputError
from gazecore.features.cache import CachedImage, FeatureCache
from gazecore.model import centerbias
from gazecore.model.backbone import STRIDE
from gazecore.model.deepgaze import GRID_STRIDE


@dataclass(frozen=True)
class Example:
    """One image's features and where people looked.

    Attributes:
        features: float16 (channels, h, w).
        cells: int64 (fixations,), the grid cell (row by row) of each fixation; at least one.
        grid: (grid_height, grid_width).
    """

    features: torch.Tensor
    cells: torch.Tensor
    grid: tuple[int, int]


def make_example(image: CachedImage, points: np.ndarray) -> Example:
    """Put the fixations of an image, (n, 2) x and y in pixels, on its grid."""
    height, width = (side * STRIDE // GRID_STRIDE for side in image.features.shape[1:])
    columns = np.floor(points[:, 0] / image.width * width).astype(np.int64)
    rows = np.floor(points[:, 1] / image.height * height).astype(np.int64)
    return Example(
        # A copy, because torch wants an array that may be written to.
        features=torch.from_numpy(image.features.copy()),
        cells=torch.from_numpy(rows * width + columns),
        grid=(height, width),
    )


class TrainingSet:
    """A feature cache and the fixations on its images.

    Attributes:
        cache: the features; an image is known by its position in it.
        images: positions of the images that have fixations.
        fixations: how many each image of the cache has.
    """

    def __init__(self, cache: FeatureCache, corpus: Corpus) -> None:
        """Join them. Raises InputError where the corpus lacks an image of the cache."""
        points = corpus.points()
        missing = [i for i in cache.image_ids if i not in points]
        if missing:
            raise InputError(f"the corpus lacks {missing[0]}, which the feature cache holds")
        self.cache = cache
        self.fixations = [len(points[i]) for i in cache.image_ids]
        self.images = [i for i, count in enumerate(self.fixations) if count]
        self._corpus = corpus
        self._points = [points[i] for i in cache.image_ids]

    def folds(self, count: int, seed: int) -> np.ndarray:
        """The fold of each image of the cache, int (n,); images that look the same share one."""
        return folds(duplicate_groups(self.cache.thumbnails()), count, seed)

    def centerbias(self, images: Sequence[int]) -> centerbias.Centerbias:
        """The centre bias of these images' fixations."""
        return centerbias.fit(*self._corpus.normalised([self.cache.image_ids[i] for i in images]))

    def read(self, groups: Iterable[Sequence[int]]) -> Iterator[list[Example]]:
        """The examples of each group of images; the next group is read while one is in use."""

        def read(group: Sequence[int]) -> list[Example]:
            return [make_example(self.cache[i], self._points[i]) for i in group]

        with ThreadPoolExecutor(1) as reader:
            ahead = None
            for group in groups:
                following = reader.submit(read, group)
                if ahead:
                    yield ahead.result()
                ahead = following
            if ahead:
                yield ahead.result()


def channel_statistics(
    cache: FeatureCache, images: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of each channel over positions and images, each float32 (channels,)."""
    sums = torch.zeros(cache.backbone.channels, dtype=torch.float64)
    squares, count = sums.clone(), 0
    for i in images:
        # torch widens float16 thirty times as fast as numpy.
        values = torch.from_numpy(cache[i].features.copy()).float().flatten(1)
        sums += values.sum(dim=1)
        squares += values.square().sum(dim=1)
        count += values.shape[1]
    mean = sums / count
    deviation = (squares / count - mean**2).clamp(min=0).sqrt()
    # A channel that never varies carries nothing; it must not be blown up.
    deviation[deviation < 1e-6] = 1.0
    return mean.float(), deviation.float()
