"""Naming features in a few bytes, so that other processes can open them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gazecore.geometry import DisplaySize
from gazecore.model.spec import BackboneSpec

if TYPE_CHECKING:
    from gazecore.features.source import Features


@dataclass(frozen=True)
class OnTheFly:
    """How features are computed where there is no cache.

    Attributes:
        backbone: which features.
        weights: where the backbone's weights come from, None: its own package.
        display_size: how large the images are shown.
        image_ids: the images that can be read; None: to be found out.
    """

    backbone: BackboneSpec
    weights: str | None
    display_size: DisplaySize
    image_ids: tuple[str, ...] | None = None


@dataclass(frozen=True)
class FeaturesConfig:
    """Where features come from."""

    on_the_fly: bool = False
    """Compute the features in the workers, each time anew, instead of reading a cache: name corpora
    then in place of caches. For GPUs; on CPUs it takes some twenty times as long."""
    backbone: str | None = None
    """With --on-the-fly: `vgg19-oxford` or `vgg19-torchvision`. By default that of --init, else
    `vgg19-oxford`."""
    backbone_weights: str | None = None
    """With --on-the-fly: where its weights come from, a package, a path or a URI."""
    display_size: DisplaySize | None = None
    """With --on-the-fly: longer side at which images are shown to the model, or `native`. By
    default that of --init, else 1024."""

    def settled(self, backbone: str, display_size: DisplaySize) -> "FeaturesConfig":
        """The same, with these where it gives none."""
        return replace(
            self,
            backbone=self.backbone or backbone,
            display_size=self.display_size or display_size,
        )

    def sources(self, uris: Sequence[str]) -> tuple["FeatureSource", ...]:
        """These caches, or these corpora on the fly."""
        from gazecore.storage import Location

        how = None
        if self.on_the_fly:
            from gazecore.model.backbone import make_spec

            spec = make_spec(self.backbone or "vgg19-oxford", self.backbone_weights)
            how = OnTheFly(spec, self.backbone_weights, self.display_size or "1024")
        return tuple(FeatureSource(Location(uri).uri, how) for uri in uris)


@dataclass(frozen=True)
class FeatureSource:
    """The URI of a cache, or of a corpus with what to compute."""

    uri: str
    on_the_fly: OnTheFly | None = None

    def open(self) -> "Features":
        """Open the cache, or load the backbone: on this process's GPU if it has one.

        Raises:
            CorpusError: there is no such cache or corpus.
        """
        if self.on_the_fly is None:
            from gazecore.features.cache import FeatureCache

            return FeatureCache(self.uri)

        import torch

        from gazecore.features.live import LiveFeatures
        from gazecore.model.backbone import load_backbone

        how = self.on_the_fly
        device = "cuda" if torch.cuda.is_available() else "cpu"
        backbone = load_backbone(how.backbone, device=device, source=how.weights)
        return LiveFeatures(self.uri, backbone, how.display_size, how.image_ids)

    def known(self, features: "Features") -> "FeatureSource":
        """This source with what opening it found out, so that others need not."""
        if self.on_the_fly is None:
            return self
        found = replace(self.on_the_fly, image_ids=tuple(features.image_ids))
        return replace(self, on_the_fly=found)
