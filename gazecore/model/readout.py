"""The readout: features become log densities. Kümmerer, Wallis & Bethge 2016 (arXiv 1610.01563)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from gazecore.errors import BundleError

Activation = Literal["softplus", "relu"]

ACTIVATIONS: dict[Activation, Callable[[torch.Tensor], torch.Tensor]] = {
    "softplus": F.softplus,
    "relu": F.relu,
}

_ROWS = 32


@dataclass(frozen=True)
class ReadoutConfig:
    """The shape of a readout.

    Attributes:
        channels: feature channels that it reads.
        widths: output channels of its 1x1 convolutions; the paper's are 16, 32, 2, 1.
        activation: the nonlinearity between them.
        members: how many readouts are mixed.
    """

    channels: int
    widths: tuple[int, ...] = (16, 32, 2, 1)
    activation: Activation = "softplus"
    members: int = 1

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise BundleError(f"readout.activation {self.activation!r} is not {list(ACTIVATIONS)}")
        if not self.widths or self.widths[-1] != 1 or min(self.widths) < 1:
            raise BundleError(f"readout.widths {self.widths} must be positive and end with 1")
        if self.channels < 1 or self.members < 1:
            raise BundleError("readout.channels and readout.members must be positive")


class Readout(nn.Module):
    """A mixture of readouts over one backbone, evaluated side by side.

    Each member standardises the channels, runs 1x1 convolutions with a pointwise nonlinearity
    between them, blurs, adds its multiple of the centre bias, and normalises. The mixture averages
    the members' probabilities.

    The paper upsamples the features and then convolves. A 1x1 convolution and a bilinear
    interpolation commute (both are linear, and the interpolation's weights sum to one), so the
    first layer runs here at the features' own resolution and its few channels are upsampled.
    """

    def __init__(self, config: ReadoutConfig) -> None:
        super().__init__()
        self.config = config
        members = config.members
        self.feature_mean: torch.Tensor
        self.feature_std: torch.Tensor
        self.register_buffer("feature_mean", torch.zeros(config.channels))
        self.register_buffer("feature_std", torch.ones(config.channels))
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        incoming = config.channels
        for width in config.widths:
            # Gaussian with the variance that keeps activations' scale (He et al. 2015).
            deviation = math.sqrt(2 / incoming)
            self.weights.append(nn.Parameter(torch.randn(members, width, incoming) * deviation))
            self.biases.append(nn.Parameter(torch.zeros(members, width)))
            incoming = width
        # Widths of the blur in grid cells, kept positive by the exponential.
        self.log_blur = nn.Parameter(torch.full((members,), math.log(2.0)))
        self.centerbias_weight = nn.Parameter(torch.ones(members))

    def forward(self, features: torch.Tensor, centerbias: torch.Tensor) -> torch.Tensor:
        """Log density of each member.

        Args:
            features: (n, channels, h, w), as the backbone gives them.
            centerbias: log density on the grid, (grid_h, grid_w), natural logarithm.

        Returns:
            (n, members, grid_h, grid_w), natural logarithm, logsumexp 0 over each grid.
        """
        grid = (centerbias.shape[-2], centerbias.shape[-1])
        weight = self.weights[0] / self.feature_std
        bias = self.biases[0] - weight @ self.feature_mean
        x = F.conv2d(features, weight.flatten(0, 1)[:, :, None, None], bias.flatten())
        x = F.interpolate(x, size=grid, mode="bilinear", align_corners=False)
        # In bands of rows: the wide layers then take little memory.
        x = torch.cat([self._pointwise(rows) for rows in torch.split(x, _ROWS, dim=2)], dim=2)
        x = blur(x, self.log_blur.exp())
        x = x + self.centerbias_weight[:, None, None] * centerbias
        return x.flatten(2).log_softmax(dim=2).view_as(x)

    def _pointwise(self, x: torch.Tensor) -> torch.Tensor:
        """All layers after the first: (n, members * widths[0], h, w) to (n, members, h, w)."""
        activation = ACTIVATIONS[self.config.activation]
        for weight, bias in list(zip(self.weights, self.biases, strict=True))[1:]:
            kernel = weight.flatten(0, 1)[:, :, None, None]
            x = F.conv2d(activation(x), kernel, bias.flatten(), groups=self.config.members)
        return x


def mix(log_densities: torch.Tensor) -> torch.Tensor:
    """Average of the members' probabilities: (n, members, h, w) log densities to (n, h, w)."""
    return torch.logsumexp(log_densities, dim=1) - math.log(log_densities.shape[1])


def blur(maps: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """Gaussian blur with one width per channel, edges replicated, cut off at four widths.

    Args:
        maps: (n, channels, h, w).
        sigmas: (channels,), in grid cells, positive.
    """
    channels, height, width = maps.shape[1:]
    widest = float(sigmas.detach().max())
    if not math.isfinite(widest):
        return maps * math.nan
    radius = max(1, min(math.ceil(4 * widest), 2 * max(height, width)))
    offsets = torch.arange(-radius, radius + 1, device=maps.device, dtype=maps.dtype)
    kernels = torch.exp(-0.5 * (offsets / sigmas[:, None]) ** 2)
    kernels = torch.where(offsets.abs() <= 4 * sigmas[:, None], kernels, 0)
    kernels = (kernels / kernels.sum(dim=1, keepdim=True))[:, None, :]
    maps = F.pad(maps, (radius, radius, radius, radius), mode="replicate")
    maps = F.conv2d(maps, kernels[:, :, None, :], groups=channels)
    return F.conv2d(maps, kernels[:, :, :, None], groups=channels)
