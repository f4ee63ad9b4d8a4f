"""What training maximises: the likelihood of the recorded fixations."""

import functools
import math
from collections.abc import Callable

import torch

from gazecore.model.centerbias import on_grid
from gazecore.model.readout import Readout, mix
from gazecore.training.examples import Example


def log_likelihood(log_density: torch.Tensor, example: Example) -> torch.Tensor:
    """Mean log likelihood per fixation, nats per grid cell, a scalar.

    Args:
        log_density: (grid_height, grid_width), logsumexp 0.
        example: the fixations.
    """
    return log_density.flatten()[example.cells].mean()


def priors(centerbias: torch.Tensor) -> Callable[[Example], torch.Tensor]:
    """What gives the centre bias on an example's grid.

    Args:
        centerbias: log density in normalised coordinates, (rows, columns) for all examples or
            (corpora, rows, columns).
    """

    @functools.lru_cache(maxsize=64)
    def prior(corpus: int, height: int, width: int) -> torch.Tensor:
        return on_grid(centerbias if centerbias.ndim == 2 else centerbias[corpus], height, width)

    return lambda example: prior(example.corpus, *example.grid)


def readout_likelihood(
    readout: Readout, example: Example, centerbias: torch.Tensor
) -> torch.Tensor:
    """`log_likelihood` of a readout's density; `centerbias` is on the example's grid."""
    members = readout(example.levels(), centerbias).flatten(2)
    # Members are mixed at the fixated cells alone.
    return mix(members[..., example.cells, None]).mean()


@torch.no_grad()
def judge(readout: Readout, example: Example, centerbias: torch.Tensor) -> tuple[float, float]:
    """How well an image's fixations are predicted, in bits per fixation on the grid.

    Returns:
        The readout's information gain over the centre bias, and the centre bias's log likelihood
        over that of the uniform density.
    """
    baseline = float(log_likelihood(centerbias, example))
    gain = float(readout_likelihood(readout, example, centerbias)) - baseline
    return gain / math.log(2), (baseline + math.log(centerbias.numel())) / math.log(2)
