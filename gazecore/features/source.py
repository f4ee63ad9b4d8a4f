"""Where training finds features: a cache, or the backbone itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gazecore.corpus.schema import Corpus
from gazecore.geometry import DisplaySize
from gazecore.model.spec import BackboneSpec


@dataclass(frozen=True)
class ImageFeatures:
    """Features of one image.

    Attributes:
        image_id: as in the corpus.
        height, width: of the original image, pixels.
        features: float16 (channels, h, w).
    """

    image_id: str
    height: int
    width: int
    features: np.ndarray


class Features(Protocol):
    """Features of a corpus, by position; any number of threads may ask."""

    @property
    def uri(self) -> str:
        """Where they are from."""
        ...

    @property
    def backbone(self) -> BackboneSpec:
        """Which features these are."""
        ...

    @property
    def display_size(self) -> DisplaySize:
        """How large the images are shown."""
        ...

    @property
    def mirrored(self) -> bool:
        """Whether these are features of the images mirrored left to right."""
        ...

    @property
    def image_ids(self) -> list[str]:
        """The images that have features."""
        ...

    @property
    def failed(self) -> Mapping[str, str]:
        """image_id to error message of those that have none."""
        ...

    def __getitem__(self, index: int) -> ImageFeatures: ...

    def corpus(self) -> Corpus:
        """The corpus that these are features of."""
        ...

    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of all images, as they were decoded."""
        ...

    def thumbnails(self) -> np.ndarray:
        """Miniatures of all images, float32 (n, 256)."""
        ...


def feature_key(spec: BackboneSpec, display_size: DisplaySize) -> str:
    """What features and a model must agree on."""
    return f"{spec.key}-{display_size}"
