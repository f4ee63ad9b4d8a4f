"""DeepGaze II, whole: RGB pixels become log densities of fixations."""

import functools
from dataclasses import dataclass

import numpy as np
import torch

from gazecore.cores import cores
from gazecore.density.summary import Summary, summarise
from gazecore.geometry import GRID_STRIDE, parts
from gazecore.model.backbone import Backbone, SentWeights, load_backbone
from gazecore.model.bundle import ModelBundle
from gazecore.model.centerbias import on_grid
from gazecore.model.frozen import FrozenReadout
from gazecore.model.readout import mix


@dataclass(frozen=True)
class Prediction:
    """Densities of images of one size, on the grid; natural logarithms, logsumexp 0.

    Attributes:
        log_density: float32 (n, grid_height, grid_width), the mixture.
        members: float32 (n, members, grid_height, grid_width).
        centerbias: float32 (grid_height, grid_width).
    """

    log_density: np.ndarray
    members: np.ndarray
    centerbias: np.ndarray


class DeepGaze:
    """A bundle and its backbone on one device."""

    def __init__(self, bundle: ModelBundle, backbone: Backbone, device: str = "cpu") -> None:
        self.bundle = bundle
        self.backbone = backbone
        self.readout = FrozenReadout(bundle.readout, device)
        self._centerbias = bundle.centerbias.to(device)
        self._centerbias_on_grid = functools.lru_cache(maxsize=256)(
            functools.partial(on_grid, self._centerbias)
        )

    @classmethod
    def load(
        cls,
        bundle: ModelBundle,
        *,
        device: str = "auto",
        executor: str = "auto",
        backbone_source: str | SentWeights | None = None,
        threads: int | None = None,
        compiled: bool = False,
    ) -> "DeepGaze":
        """Load the bundle's backbone and put both on a device.

        Args:
            bundle: from `load_bundle`.
            device: `auto` (a GPU if there is one), or a torch device.
            executor, backbone_source, threads, compiled: see `load_backbone`.

        Raises:
            BundleError: the backbone's weights are not those the bundle was trained on.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        # The readout's convolutions stay in float32 proper: log densities need their digits.
        torch.backends.cudnn.allow_tf32 = False
        if device == "cpu":
            torch.set_num_threads(cores(threads))
        backbone = load_backbone(
            bundle.backbone,
            device=device,
            executor=executor,
            source=backbone_source,
            threads=threads,
            compiled=compiled,
        )
        return cls(bundle, backbone, device)

    @torch.inference_mode()
    def predict(self, images: np.ndarray) -> Prediction:
        """Log densities of images of one size. One does not depend on the others, but by rounding
        on how many a GPU is given at once.

        Args:
            images: uint8 RGB (n, h, w, 3) of a size that `network_size` gave.
        """
        mixtures, members = [], []
        for part in parts(len(images), self.backbone.batch_size(*images.shape[1:3])):
            found, centerbias = self.members(images[part])
            mixtures.append(mix(found).float().cpu())
            members.append(found.float().cpu())
        return Prediction(
            log_density=torch.cat(mixtures).numpy(),
            members=torch.cat(members).numpy(),
            centerbias=centerbias.float().cpu().numpy(),
        )

    @torch.inference_mode()
    def summarise(self, images: np.ndarray, factor: int) -> Summary:
        """What is kept of the densities of images; on a GPU it is on its way.

        Args:
            images: as `predict` takes them, no more than the backbone's batch size.
            factor: see `density.codec.encode`.
        """
        members, centerbias = self.members(images)
        return summarise(mix(members), members, centerbias, factor)

    @torch.inference_mode()
    def members(self, images: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Log densities (n, members, grid_height, grid_width) of images that the backbone takes at
        once, and the centre bias, on the device."""
        height, width = images.shape[1:3]
        centerbias = self._centerbias_on_grid(height // GRID_STRIDE, width // GRID_STRIDE)
        features = [level.to(centerbias.device) for level in self.backbone.features(images)]
        return self.readout(features, centerbias), centerbias
