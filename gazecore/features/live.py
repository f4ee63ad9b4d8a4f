"""Features that are computed each time they are asked for, where there is no room for a cache."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image

from gazecore.cores import cores
from gazecore.corpus.schema import Corpus, load_corpus
from gazecore.corpus.splits import thumbnail
from gazecore.errors import ImageError
from gazecore.features.source import ImageFeatures
from gazecore.geometry import DisplaySize
from gazecore.images.decode import NetworkInput, to_network
from gazecore.images.fetch import fetch
from gazecore.images.formats import Limits
from gazecore.model.backbone import Backbone
from gazecore.model.spec import BackboneSpec
from gazecore.storage import Location


class LiveFeatures:
    """A corpus and a backbone: what `FeatureCache` reads, computed anew.

    Attributes:
        mirrored: never.
        uri: of the corpus.
        display_size: how large the images are shown.
        image_ids: the images that can be read.
        failed: image_id to error message of the others.
    """

    mirrored = False

    def __init__(
        self,
        uri: str,
        backbone: Backbone,
        display_size: DisplaySize,
        image_ids: Sequence[str] | None = None,
    ) -> None:
        """Open a corpus.

        Args:
            uri: of the corpus.
            backbone: on its device.
            display_size: how large the images are shown.
            image_ids: those that can be read, where that is known; None: every image is decoded
                once to find out.

        Raises:
            CorpusError: there is no corpus.
            StorageUnavailable: the storage of an image does not answer.
        """
        self.uri = Location(uri).uri
        self.display_size: DisplaySize = display_size
        self.failed: dict[str, str] = {}
        self._backbone = backbone
        self._computing = threading.Lock()
        self._corpus = load_corpus(uri)
        self._uris = dict(
            zip(self._corpus.image_ids, self._corpus.images["uri"].to_pylist(), strict=True)
        )
        self._sizes: list[tuple[int, int]] = []
        self._thumbnails: list[np.ndarray] = []
        self.image_ids: list[str] = list(image_ids or [])
        if image_ids is None:
            self._look()

    @property
    def backbone(self) -> BackboneSpec:
        """Which features these are."""
        return self._backbone.spec

    def corpus(self) -> Corpus:
        """The corpus that these are features of."""
        return self._corpus

    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of all images; empty where they were not decoded."""
        return self._sizes

    def thumbnails(self) -> np.ndarray:
        """Miniatures of all images, float32 (n, 256)."""
        return np.array(self._thumbnails, np.float32).reshape(-1, 256)

    def __getitem__(self, index: int) -> ImageFeatures:
        image_id = self.image_ids[index]
        image = self._read(image_id)
        size = self._backbone.batch_size(*image.pixels.shape[:2])
        batch = np.repeat(image.pixels[None], size, axis=0)
        with self._computing, torch.inference_mode():
            features = self._backbone.features(batch)[0].half().cpu().numpy()
        return ImageFeatures(image_id, image.height, image.width, features)

    def _read(self, image_id: str) -> NetworkInput:
        data = fetch(self._uris[image_id], None, Limits())
        return to_network(data, self.display_size)

    def _look(self) -> None:
        """Decode every image once."""

        def look(image_id: str) -> tuple[tuple[int, int], np.ndarray] | str:
            try:
                image = self._read(image_id)
            except ImageError as error:
                return str(error)
            return (image.height, image.width), thumbnail(Image.fromarray(image.pixels))

        with ThreadPoolExecutor(cores()) as readers:
            for image_id, found in zip(self._uris, readers.map(look, self._uris), strict=True):
                if isinstance(found, str):
                    self.failed[image_id] = found
                else:
                    self.image_ids.append(image_id)
                    self._sizes.append(found[0])
                    self._thumbnails.append(found[1])
