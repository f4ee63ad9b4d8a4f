"""The features stage: images become features of the frozen backbone, in a cache."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from gazecore.corpus.splits import thumbnail
from gazecore.errors import InputError, NotFinite
from gazecore.features.cache import FEATURES, OUTCOMES, CacheDirectory
from gazecore.images.decode import NetworkInput
from gazecore.model.backbone import Backbone, SentWeights, load_backbone
from gazecore.model.spec import BackboneSpec
from gazecore.shards.stage import ReadingConfig, Row
from gazecore.storage import Location, parquet_bytes


@dataclass(frozen=True)
class FeaturesConfig:
    """What computes the features of a cache. A `StageConfig`.

    Attributes:
        where: URI of the cache.
        shard_size: images per shard.
        backbone: which features.
        reading: how images are read.
        weights: the backbone's weights; None for those that its package on each node holds.
    """

    where: str
    shard_size: int
    backbone: BackboneSpec
    reading: ReadingConfig = field(default_factory=ReadingConfig)
    weights: SentWeights | None = None

    def build(self, threads: int | None = None, gpu: bool | None = None) -> "FeaturesStage":
        """See `StageConfig.build`."""
        if gpu is None:
            gpu = torch.cuda.is_available()
        backbone = load_backbone(
            self.backbone,
            device="cuda" if gpu else "cpu",
            source=self.weights,
            threads=threads,
            compiled=gpu,
        )
        return FeaturesStage(backbone, CacheDirectory(Location(self.where), self.shard_size))


class FeaturesStage:
    """A backbone on its device, and the cache that its features go to. A `Stage`."""

    def __init__(self, backbone: Backbone, cache: CacheDirectory) -> None:
        self.backbone = backbone
        self.cache = cache

    def batch_size(self, height: int, width: int) -> int:
        """See `Stage.batch_size`."""
        return self.backbone.batch_size(height, width)

    @torch.inference_mode()
    def compute(self, pixels: np.ndarray) -> list[np.ndarray]:
        """See `Stage.compute`: float16 features (n, channels, h, w) of each level."""
        return [level.half().cpu().numpy() for level in self.backbone.features(pixels)]

    def finish(
        self, row: Row, image: NetworkInput, computed: list[np.ndarray], position: int
    ) -> tuple[Row, Row]:
        """See `Stage.finish`: rows of OUTCOMES and FEATURES; what is not finite in float16 is
        refused."""
        features = [level[position] for level in computed]
        if not all(np.isfinite(level).all() for level in features):
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
            "grid_height": features[0].shape[1],
            "grid_width": features[0].shape[2],
            "features": b"".join(level.astype("<f2").tobytes() for level in features),
        }
        return outcome, result

    def commit(self, shard: int, outcomes: list[Row], results: list[Row]) -> None:
        """See `Stage.commit`: one row group for each image's features."""
        self.cache.commit(
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

    def mend(self, shard: int, outcomes: list[Row], results: list[Row]) -> None:
        """See `Stage.mend`."""
        raise InputError("a cache's failed images are not tried again: delete it and begin anew")
