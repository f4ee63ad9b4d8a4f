"""From a shard's images to the rows of a feature cache."""

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from gazecore.corpus.splits import thumbnail
from gazecore.errors import NotFinite
from gazecore.features.cache import FEATURES, OUTCOMES, CacheDirectory
from gazecore.images.decode import NetworkInput
from gazecore.model.backbone import Backbone
from gazecore.scoring.pipeline import Pipeline, ReadingConfig, Row
from gazecore.storage import parquet_bytes


class FeatureExtractor:
    """A backbone on its device, with the threads that feed it.

    Attributes:
        extract: `Pipeline.process`: rows of OUTCOMES for every image, of FEATURES for the `ok`.
        clock: where the time goes.
    """

    def __init__(self, backbone: Backbone, config: ReadingConfig, mirrored: bool = False) -> None:
        """Args: mirrored: mirror the images left to right before the backbone sees them."""
        self.backbone = backbone
        self._mirrored = mirrored
        pipeline = Pipeline(self, config)
        self.extract = pipeline.process
        self.clock = pipeline.clock

    def batch_size(self, height: int, width: int) -> int:
        """See `Stage.batch_size`."""
        return self.backbone.batch_size(height, width)

    @torch.inference_mode()
    def compute(self, pixels: np.ndarray, at_once: int) -> np.ndarray:
        """See `Stage.compute`: float16 features (n, channels, h, w)."""
        if self._mirrored:
            pixels = pixels[:, :, ::-1]
        # Always the same shape, so that an image meets the same kernels in any company.
        missing = at_once - len(pixels)
        padded = np.pad(pixels, [(0, missing), (0, 0), (0, 0), (0, 0)])
        features: np.ndarray = self.backbone.features(padded)[: len(pixels)].half().cpu().numpy()
        return features

    def finish(
        self, row: Row, image: NetworkInput, computed: np.ndarray, position: int
    ) -> tuple[Row, Row]:
        """See `Stage.finish`; features that are not finite in float16 are refused."""
        features = computed[position]
        if not np.isfinite(features).all():
            raise NotFinite("its features are not finite, or too large for float16")
        size = {"height": image.height, "width": image.width}
        outcome = {
            "image_id": row["image_id"],
            "uri": row["uri"],
            "status": "ok",
            **size,
            "thumbnail": thumbnail(Image.fromarray(image.pixels)).astype("<f4").tobytes(),
        }
        result = {
            "image_id": row["image_id"],
            **size,
            "grid_height": features.shape[1],
            "grid_width": features.shape[2],
            "features": features.astype("<f2").tobytes(),
        }
        return outcome, result


def commit_features(
    cache: CacheDirectory, shard: int, outcomes: list[Row], results: list[Row]
) -> None:
    """Publish a shard: one row group for each image's features."""
    cache.commit(
        shard,
        parquet_bytes(pa.Table.from_pylist(outcomes, OUTCOMES)),
        # Noise does not compress, and an uncompressed row group is read without a copy.
        parquet_bytes(
            pa.Table.from_pylist(results, FEATURES),
            row_group_size=1,
            compression="none",
            use_dictionary=False,
            write_statistics=False,
        ),
    )
