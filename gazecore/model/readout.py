"""The readout: features become log densities. Kümmerer, Wallis & Bethge 2016 (arXiv 1610.01563)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from gazecore.errors import BundleError
from gazecore.model.spec import Activation

_BAND = {"cpu": 2**20, "cuda": 2**26}
"""Values of the first layer that are worked on at once: what fits a core's caches, or 256 MB."""

_LARGE = 80.0

_FARTHEST = 4096
"""Cells at which the widest blur is cut off, whatever its width."""


class _Softplus(torch.autograd.Function):
    """log(1 + exp(x)) by vectorised exp and log, absolute error 1e-7.

    torch's own takes four times as long on CPUs, because its log1p is slow, and another exp in
    backward. The derivative is 1 - 1 / (1 + exp(x)), one pass over what forward made.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        """Keep 1 + exp(x) for the derivative."""
        # From 80 on, where float32's exp would soon overflow, softplus is x to the last digit.
        grown = x.clamp(max=_LARGE).exp_().add_(1)
        ctx.save_for_backward(grown)
        value = grown.log()
        return torch.maximum(value, x, out=value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        """Times the logistic function."""
        (grown,) = ctx.saved_tensors
        return torch.addcdiv(gradient, gradient, grown, value=-1)


def softplus(x: torch.Tensor) -> torch.Tensor:
    """log(1 + exp(x)), differentiable once."""
    value: torch.Tensor = _Softplus.apply(x)
    return value


ACTIVATIONS: dict[Activation, Callable[[torch.Tensor], torch.Tensor]] = {
    "softplus": softplus,
    "relu": F.relu,
}


@dataclass(frozen=True)
class ReadoutConfig:
    """The shape of a readout.

    Attributes:
        channels: feature channels that it reads of each level.
        widths: output channels of its 1x1 convolutions; the paper's are 16, 32, 2, 1.
        activation: the nonlinearity between them.
        members: how many readouts are mixed.
        levels: of the image pyramid whose features it reads.
    """

    channels: int
    widths: tuple[int, ...] = (16, 32, 2, 1)
    activation: Activation = "softplus"
    members: int = 1
    levels: int = 1

    @property
    def shape(self) -> tuple[tuple[int, ...], Activation]:
        """Widths and activation."""
        return self.widths, self.activation

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise BundleError(f"readout.activation {self.activation!r} is not {list(ACTIVATIONS)}")
        if not self.widths or self.widths[-1] != 1 or min(self.widths) < 1:
            raise BundleError(f"readout.widths {self.widths} must be positive and end with 1")
        if min(self.channels, self.members, self.levels) < 1:
            raise BundleError("readout.channels, .members and .levels must be positive")


class Readout(nn.Module):
    """A mixture of readouts over one backbone, evaluated side by side.

    Each member standardises the channels, runs 1x1 convolutions with a pointwise nonlinearity
    between them, blurs, adds its multiple of the centre bias, and normalises. The mixture averages
    the members' probabilities.

    The paper upsamples the features and then convolves. A 1x1 convolution and a bilinear
    interpolation commute (both are linear, and the interpolation's weights sum to one), so the
    first layer runs here at the features' own resolution and its few channels are upsampled.

    The features of each level of an image pyramid have a first layer of their own, which are
    upsampled to the positions of the largest level and added.
    """

    def __init__(self, config: ReadoutConfig) -> None:
        super().__init__()
        self.config = config
        members = config.members
        self.feature_mean: torch.Tensor
        self.feature_std: torch.Tensor
        incoming = config.levels * config.channels
        self.register_buffer("feature_mean", torch.zeros(incoming))
        self.register_buffer("feature_std", torch.ones(incoming))
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for width in config.widths:
            # Gaussian with the variance that keeps activations' scale (He et al. 2015).
            deviation = math.sqrt(2 / incoming)
            self.weights.append(nn.Parameter(torch.randn(members, width, incoming) * deviation))
            self.biases.append(nn.Parameter(torch.zeros(members, width)))
            incoming = width
        # Widths of the blur in grid cells, kept positive by the exponential.
        self.log_blur = nn.Parameter(torch.full((members,), math.log(2.0)))
        self.centerbias_weight = nn.Parameter(torch.ones(members))

    def forward(self, features: Sequence[torch.Tensor], centerbias: torch.Tensor) -> torch.Tensor:
        """Log density of each member.

        Args:
            features: (n, channels, h, w) of each level, as the backbone gives them.
            centerbias: log density on the grid, (grid_h, grid_w), natural logarithm.

        Returns:
            (n, members, grid_h, grid_w), natural logarithm, logsumexp 0 over each grid.
        """
        weight, bias = self.folded()
        x = first_layer(features, weight, bias, self.config.members)
        height, width = centerbias.shape
        up, across = (
            bilinear(*sides, x) for sides in ((x.shape[-2], height), (x.shape[-1], width))
        )
        x = pointwise(x, up, across, self.later_layers(), ACTIVATIONS[self.config.activation])
        x = blur(x, self.log_blur.exp())
        return normalised(x, self.centerbias_weight, centerbias)

    def folded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight (members * widths[0], levels * channels) and bias (members * widths[0],) of all
        members' first layer, which standardise the features, too."""
        weight = self.weights[0] / self.feature_std
        bias = self.biases[0] - weight @ self.feature_mean
        return weight.flatten(0, 1), bias.flatten()

    def calibration(self) -> list[nn.Parameter]:
        """What adapts densities to another screen and laboratory, four numbers a member where the
        last layer reads two channels: its weights, which are the gain of the log density, the width
        of the blur, and the weight of the centre bias."""
        return [self.weights[-1], self.log_blur, self.centerbias_weight]

    def later_layers(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Weight (members, width, incoming) and bias (members, width) of each later layer."""
        return list(zip(self.weights, self.biases, strict=True))[1:]


def first_layer(
    features: Sequence[torch.Tensor], weight: torch.Tensor, bias: torch.Tensor, members: int
) -> torch.Tensor:
    """The first layer, at each level's own resolution, added at that of the largest level.

    Args:
        features: (n, channels, h, w) of each level.
        weight, bias: from `Readout.folded`.
        members: of the mixture.

    Returns:
        (n, members, widths[0], h, w), of the first level's h and w.
    """
    largest, *smaller = features
    n, channels, h, w = largest.shape
    weights = torch.split(weight, channels, dim=1)
    x = (weights[0] @ largest.flatten(2) + bias[:, None]).view(n, -1, h, w)
    for part, level in zip(weights[1:], smaller, strict=True):
        found = (part @ level.flatten(2)).view(n, -1, *level.shape[2:])
        x = x + F.interpolate(found, size=(h, w), mode="bilinear", align_corners=False)
    return x.view(n, members, -1, h, w)


def pointwise(
    x: torch.Tensor,
    up: torch.Tensor,
    across: torch.Tensor,
    later: list[tuple[torch.Tensor, torch.Tensor]],
    activation: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """What the first layer found, upsampled, and the layers after it.

    Args:
        x: (n, members, widths[0], h, w), from `first_layer`.
        up, across: from `bilinear`, (height, h) and (width, w).
        later: see `Readout.later_layers`.
        activation: before each layer.

    Returns:
        (n, members, height, width).
    """
    n, members, channels = x.shape[:3]
    height, width = len(up), len(across)
    x = x.flatten(0, 1) @ across.T
    layers = [(kernel.repeat(n, 1, 1), b.repeat(n, 1)[..., None]) for kernel, b in later]
    # In bands of rows: the wide layers then take little memory, and stay in the CPU's caches.
    band = max(1, _BAND[x.device.type] // (n * members * channels * width))
    found = []
    for rows in torch.split(up, band):
        part = (rows @ x).flatten(2)
        for kernel, bias in layers:
            part = torch.baddbmm(bias, kernel, activation(part))
        found.append(part)
    return torch.cat(found, dim=2).view(n, members, height, width)


def normalised(
    maps: torch.Tensor, centerbias_weight: torch.Tensor, centerbias: torch.Tensor
) -> torch.Tensor:
    """Log densities of blurred maps (n, members, height, width) and the centre bias."""
    x = maps + centerbias_weight[:, None, None] * centerbias
    return x.flatten(2).log_softmax(dim=2).view_as(x)


def mix(log_densities: torch.Tensor) -> torch.Tensor:
    """Average of the members' probabilities: (n, members, h, w) log densities to (n, h, w)."""
    return torch.logsumexp(log_densities, dim=1) - math.log(log_densities.shape[1])


def blur(maps: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """Gaussian blur with one width per channel, edges replicated, cut off at four widths.

    As two products with a banded matrix: in backward a fifth of what convolutions take on CPUs.

    Args:
        maps: (n, channels, h, w).
        sigmas: (channels,), in grid cells, positive.
    """
    height, width = maps.shape[2:]
    return blur_matrix(sigmas, height) @ maps @ blur_matrix(sigmas, width).mT


def blur_matrix(sigmas: torch.Tensor, side: int) -> torch.Tensor:
    """The blur along one dimension of `side` cells, (channels, side, side).

    Not finite, all of it, where the widths are not.
    """
    widest = float(sigmas.detach().max())
    if not math.isfinite(widest):
        return sigmas[:, None, None] * sigmas.new_full((side, side), math.nan)
    radius = max(1, min(math.ceil(4 * widest), _FARTHEST))
    offsets = torch.arange(-radius, radius + 1, device=sigmas.device)
    kernels = torch.exp(-0.5 * (offsets / sigmas[:, None]) ** 2)
    kernels = torch.where(offsets.abs() <= 4 * sigmas[:, None], kernels, 0)
    kernels = kernels / kernels.sum(dim=1, keepdim=True)
    return _banded(kernels, side)


def _banded(kernels: torch.Tensor, side: int) -> torch.Tensor:
    """Convolution of one dimension, edges replicated, as matrices: (channels, side, side).

    Args:
        kernels: (channels, 2 * radius + 1).
        side: cells.
    """
    channels, taps = kernels.shape
    offsets = torch.arange(taps, device=kernels.device) - taps // 2
    sources = torch.arange(side, device=kernels.device)[:, None] + offsets
    # What would fall outside counts for the outermost cell.
    sources = sources.clamp(0, side - 1).expand(channels, -1, -1)
    return kernels.new_zeros(channels, side, side).scatter_add(
        2, sources, kernels[:, None].expand(-1, side, -1)
    )


def bilinear(side: int, larger: int, like: torch.Tensor) -> torch.Tensor:
    """Linear interpolation of one dimension as a matrix, (larger, side)."""
    identity = torch.eye(side, device=like.device, dtype=like.dtype)
    return F.interpolate(identity[None], size=larger, mode="linear", align_corners=False)[0].T
