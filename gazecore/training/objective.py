"""What training maximises: the likelihood of the recorded fixations."""

from dataclasses import dataclass

import numpy as np
import torch

from gazecore.features.cache import CachedImage
from gazecore.model.backbone import STRIDE
from gazecore.model.deepgaze import GRID_STRIDE


@dataclass(frozen=True)
class Batch:
    """Images of one feature size with their fixations.

    Attributes:
        features: float32 (n, channels, h, w).
        image, cell: int64 (fixations,), the image and the grid cell (row by row) of each fixation.
        counts: float32 (n,), fixations per image, at least one.
        grid: (grid_height, grid_width).
    """

    features: torch.Tensor
    image: torch.Tensor
    cell: torch.Tensor
    counts: torch.Tensor
    grid: tuple[int, int]


def make_batches(images: list[CachedImage], points: list[np.ndarray]) -> list[Batch]:
    """One batch per feature size among `images`; `points` holds (n, 2) x and y in pixels."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for i, image in enumerate(images):
        by_shape.setdefault(image.features.shape, []).append(i)
    batches = []
    for shape, members in by_shape.items():
        height, width = (side * STRIDE // GRID_STRIDE for side in shape[1:])
        cells = []
        for i in members:
            columns = points[i][:, 0] / images[i].width * width
            rows = points[i][:, 1] / images[i].height * height
            cells.append(np.floor(rows).astype(np.int64) * width + np.floor(columns).astype(int))
        counts = [len(c) for c in cells]
        batches.append(
            Batch(
                features=torch.from_numpy(np.stack([images[i].features for i in members])).float(),
                image=torch.from_numpy(np.repeat(np.arange(len(members)), counts)),
                cell=torch.from_numpy(np.concatenate(cells)),
                counts=torch.tensor(counts, dtype=torch.float32),
                grid=(height, width),
            )
        )
    return batches


def log_likelihoods(log_density: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Mean log likelihood per fixation of each image, nats per grid cell, (n,).

    Args:
        log_density: (n, grid_height, grid_width), logsumexp 0.
        batch: the same n images.
    """
    flat = log_density.flatten(1)
    values = flat[batch.image, batch.cell]
    sums = torch.zeros(len(flat), dtype=values.dtype).index_add(0, batch.image, values)
    return sums / batch.counts
