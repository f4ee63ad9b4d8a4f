"""What a readout is trained on: features and the fixations on their images."""

import bisect
import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from gazecore.corpus.schema import Corpus
from gazecore.corpus.splits import duplicate_groups, folds
from gazecore.errors import CorpusError, InputError
from gazecore.features.cache import FeatureCache, ImageFeatures, feature_key
from gazecore.geometry import DisplaySize
from gazecore.model import centerbias
from gazecore.model.spec import BackboneSpec

_STATISTICS = 1000


@dataclass(frozen=True)
class Example:
    """One image's features and where people looked.

    Attributes:
        features: float16 (1, channels, h, w) of each level of the image pyramid.
        cells: int64 (fixations,), the grid cell (row by row) of each fixation; at least one.
        grid: (grid_height, grid_width).
        corpus: which of the caches trained on together it is of, 0 being the first.
    """

    features: list[torch.Tensor]
    cells: torch.Tensor
    grid: tuple[int, int]
    corpus: int = 0

    def levels(self) -> list[torch.Tensor]:
        """The features as a readout takes them, float32."""
        # torch widens float16 thirty times as fast as numpy.
        return [level.float() for level in self.features]


def make_example(image: ImageFeatures, points: np.ndarray, corpus: int = 0) -> Example:
    """Put the fixations of an image, (n, 2) x and y in pixels, on its grid."""
    height, width = image.grid
    columns = np.floor(points[:, 0] / image.width * width).astype(np.int64)
    rows = np.floor(points[:, 1] / image.height * height).astype(np.int64)
    return Example(
        # A copy, because torch wants an array that may be written to.
        features=[torch.from_numpy(level.copy())[None] for level in image.features],
        cells=torch.from_numpy(rows * width + columns),
        grid=(height, width),
        corpus=corpus,
    )


class TrainingSet:
    """Features and the fixations on their images.

    Attributes:
        caches: an image is known by its position in all of them, one after the other.
        image_ids: of all images that have features.
        images: positions of those that have fixations, but for those of `beside`.
        beside: positions of those with fixations that only train, beside the others.
        fixations: how many each image has.
        corpus: all images and fixations in one.
        digests: which corpora these are, see `Corpus.digest`.
    """

    def __init__(self, caches: Sequence[FeatureCache], beside: int = 0) -> None:
        """Join them.

        Args:
            caches: of one backbone and display size.
            beside: so many of the last ones only train.

        Raises:
            InputError: there is no cache, they hold other features than the first one, two of
                them have an image of one name, or no image has fixations.
            CorpusError: an image was decoded to another size than its corpus says.
        """
        if not caches:
            raise InputError("there is nothing to train on: name a feature cache")
        self.caches = list(caches)
        for cache in caches:
            require(cache, self.backbone, self.display_size, caches[0].uri)
        corpora = [cache.corpus() for cache in caches]
        self._points: list[np.ndarray] = []
        self._normalised: list[np.ndarray] = []
        for cache, corpus in zip(caches, corpora, strict=True):
            points = corpus.points()
            rows = {row["image_id"]: row for row in corpus.images.to_pylist()}
            for image_id, size in zip(cache.image_ids, cache.sizes(), strict=True):
                if size != (expected := (rows[image_id]["height"], rows[image_id]["width"])):
                    raise CorpusError(
                        f"{image_id} is an image of {size[1]}x{size[0]} px, its corpus says "
                        f"{expected[1]}x{expected[0]}: its fixations would be misplaced"
                    )
            for image_id in cache.image_ids:
                row = rows[image_id]
                self._points.append(points[image_id])
                self._normalised.append(points[image_id] / (row["width"], row["height"]))
        self.image_ids = [i for cache in caches for i in cache.image_ids]
        if len(set(self.image_ids)) < len(self.image_ids):
            twice = next(i for i in self.image_ids if self.image_ids.count(i) > 1)
            raise InputError(f"two of the caches have an image {twice!r}: train on one of them")
        self.fixations = [len(points) for points in self._points]
        self.digests = [corpus.digest for corpus in corpora]
        self.corpus = Corpus(
            pa.concat_tables([corpus.images for corpus in corpora]),
            pa.concat_tables([corpus.fixations for corpus in corpora]),
        )
        self._ends: list[int] = np.cumsum([len(cache) for cache in caches]).tolist()
        seen = [i for i, count in enumerate(self.fixations) if count]
        own = len(caches) - beside
        self.images = [i for i in seen if self._corpus(i) < own]
        self.beside = [i for i in seen if self._corpus(i) >= own]
        if not self.images:
            raise InputError(f"no image of {caches[0].uri} has fixations")

    @property
    def backbone(self) -> BackboneSpec:
        """Which features these are."""
        return self.caches[0].backbone

    @property
    def display_size(self) -> DisplaySize:
        """How large the images are shown."""
        return self.caches[0].display_size

    @property
    def failed(self) -> dict[str, str]:
        """image_id to error message of the images that have no features."""
        return {i: why for cache in self.caches for i, why in cache.failed.items()}

    def features(self, image: int) -> ImageFeatures:
        """Features of one image."""
        number = self._corpus(image)
        return self.caches[number][image - (self._ends[number - 1] if number else 0)]

    def example(self, image: int) -> Example:
        """One image's features with its fixations."""
        return make_example(self.features(image), self._points[image], self._corpus(image))

    def _corpus(self, image: int) -> int:
        return bisect.bisect_right(self._ends, image)

    def rehearsed(self, held_out: Sequence[str]) -> list[int]:
        """Those of `beside` that are not held out, by image_id, and look like none of `images`."""
        judged = {int(self._groups[i]) for i in self.images}
        apart = set(held_out)
        return [
            i
            for i in self.beside
            if self.image_ids[i] not in apart and int(self._groups[i]) not in judged
        ]

    def folds(self, count: int, seed: int) -> np.ndarray:
        """The fold of each image, int (n,); images that look the same share one.

        Each cache's images are cut as they are without the others, so that what is held out of a
        corpus stays so in company.
        """
        found = np.empty(len(self.image_ids), dtype=int)
        owner = np.searchsorted(self._ends, self._groups, side="right")
        for number in range(len(self.caches)):
            own = owner == number
            found[own] = folds(self._groups[own], count, seed)
        return found

    @functools.cached_property
    def _groups(self) -> np.ndarray:
        return duplicate_groups(np.concatenate([cache.thumbnails() for cache in self.caches]))

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 of the images and their fixations: with other ones a training does not go on."""
        found = hashlib.sha256()
        for image_id, points in zip(self.image_ids, self._points, strict=True):
            found.update(f"{image_id}\n{len(points)}\n".encode())
            found.update(np.ascontiguousarray(points, "<f8").tobytes())
        return found.hexdigest()

    def centerbias(self, images: Sequence[int]) -> centerbias.Centerbias:
        """The centre bias of these images' fixations."""
        return centerbias.fit_images([self._normalised[i] for i in images])

    def centerbiases(self, images: Sequence[int]) -> torch.Tensor:
        """That of each cache's images, log densities (caches, rows, columns): corpora were recorded
        on different screens, and a readout is not to make up for the others' centre."""
        own = [[i for i in images if self._corpus(i) == n] for n in range(len(self.caches))]
        # A cache of which none is among them has no centre bias of its own, and needs none.
        found = [self.centerbias(part or images).log_density for part in own]
        return torch.from_numpy(np.stack(found))

    def read(self, groups: Iterable[Sequence[int]]) -> Iterator[list[Example]]:
        """The examples of each group of images; the next group is read while one is in use."""

        def read(group: Sequence[int]) -> list[Example]:
            return [self.example(i) for i in group]

        with ThreadPoolExecutor(1) as reader:
            ahead = None
            for group in groups:
                following = reader.submit(read, group)
                if ahead:
                    yield ahead.result()
                ahead = following
            if ahead:
                yield ahead.result()


def open_caches(
    uris: Sequence[str], on_cache: Callable[[], None] = lambda: None, beside: int = 0
) -> TrainingSet:
    """Open caches and join them. Raises what `FeatureCache` and `TrainingSet` raise."""
    caches = []
    for uri in uris:
        caches.append(FeatureCache(uri))
        on_cache()
    return TrainingSet(caches, beside)


def require(cache: FeatureCache, spec: BackboneSpec, display_size: DisplaySize, name: str) -> None:
    """Raise CorpusError where `name`, made for these features, does not fit this cache's."""
    if feature_key(spec, display_size) != feature_key(cache.backbone, cache.display_size):
        raise CorpusError(
            f"{name} is made for features of {spec.name} at display size {display_size}, "
            f"{cache.uri} has others, of {cache.backbone.name} at {cache.display_size}"
        )


def channel_statistics(
    data: TrainingSet, images: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of each channel of each level over positions and images, each float32
    (levels * channels,).

    Of more than a thousand images, a random thousand; each has hundreds of positions.
    """
    if len(images) > _STATISTICS:
        images = sorted(np.random.default_rng(0).choice(images, _STATISTICS, replace=False))
    shape = len(data.backbone.pyramid), data.backbone.channels
    sums = torch.zeros(shape, dtype=torch.float64)
    squares, counts = sums.clone(), torch.zeros(shape[0], 1, dtype=torch.float64)
    for i in images:
        for level, features in enumerate(data.example(i).levels()):
            values = features[0].flatten(1)
            sums[level] += values.sum(dim=1)
            squares[level] += values.square().sum(dim=1)
            counts[level] += values.shape[1]
    mean = sums / counts
    deviation = (squares / counts - mean**2).clamp(min=0).sqrt()
    # A channel that never varies carries nothing; it must not be blown up.
    deviation[deviation < 1e-6] = 1.0
    return mean.float().flatten(), deviation.float().flatten()
