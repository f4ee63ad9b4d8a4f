"""From saliency maps to densities: what makes a map as likely as it can be.

A map has no probabilities, so its likelihood is that of the best density that a blur, a rising
nonlinearity and a centre bias can make of it, all fitted by maximum likelihood (Kümmerer, Wallis &
Bethge 2015, PNAS 112, 16054). The parametrisation is pysaliency's (`SaliencyMapProcessing`).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from gazecore.metrics.recording import Recording

_SIDE = 192
"""Pixels of the longer side of the maps that a conversion is fitted to."""

_FITTED = 100
"""Maps that it is fitted to, at most; there are three dozen numbers to find."""

_STEPS, _RATE = 300, 0.05

Maps = Callable[[str], np.ndarray]
"""Gives an image's map, (height, width), finite."""


@dataclass(frozen=True)
class Conversion:
    """How maps become densities.

    Attributes:
        lowest, highest: of all maps; values are brought to 0..1 by them, and cut there.
        blur: deviation, as a share of the longer side.
        log_levels: float (20,), rising: the log density, but for a constant, of values from 0 to 1.
        centre: float (12,), positive: what that is multiplied with from the centre to the corners.
        alpha: half-axis of the centre bias's ellipses along x; that along y is its complement.
    """

    lowest: float
    highest: float
    blur: float
    log_levels: np.ndarray
    centre: np.ndarray
    alpha: float

    def log_density(self, saliency: np.ndarray) -> np.ndarray:
        """Of a map of its image's size: float32 (height, width), logsumexp 0."""
        with torch.no_grad():
            found = _convert(
                self._scaled(saliency)[None],
                torch.tensor(self.blur * max(saliency.shape), dtype=torch.float32),
                torch.from_numpy(self.log_levels).float(),
                torch.from_numpy(self.centre).float(),
                torch.tensor(self.alpha, dtype=torch.float32),
            )
        return found[0].numpy()

    def _scaled(self, saliency: np.ndarray) -> torch.Tensor:
        return scaled(saliency, self.lowest, self.highest)


def scaled(saliency: np.ndarray, lowest: float, highest: float) -> torch.Tensor:
    """A map with its values brought from lowest..highest to 0..1, float32."""
    values = (np.asarray(saliency, np.float64) - lowest) / ((highest - lowest) or 1.0)
    return torch.from_numpy(values.clip(0, 1).astype(np.float32))


def fit(maps: Maps, recordings: Sequence[Recording]) -> Conversion:
    """The conversion under which the fixations are most likely, images weighted equally.

    Fitted by Adam on maps of at most 192 px, of at most a hundred images.

    Args:
        maps: gives the maps of the images.
        recordings: with a fixation at least.
    """
    chosen = np.unique(np.linspace(0, len(recordings) - 1, _FITTED).round().astype(int))
    kept = [recordings[i] for i in chosen]
    values = [np.asarray(maps(r.image_id), np.float64) for r in kept]
    lowest = min(float(v.min()) for v in values)
    highest = max(float(v.max()) for v in values)
    small = [_smaller(scaled(v, lowest, highest).numpy()) for v in values]
    cells = [_cells(r, s.shape) for r, s in zip(kept, small, strict=True)]
    rise = torch.full((19,), float(np.log(8 / 19)), requires_grad=True)
    log_blur = torch.tensor(np.log(0.02), dtype=torch.float32, requires_grad=True)
    log_centre = torch.tensor(np.log(np.linspace(1.1, 0.9, 12)), dtype=torch.float32)
    log_centre.requires_grad_(True)
    slope = torch.tensor(0.0, requires_grad=True)
    optimiser = torch.optim.Adam([rise, log_blur, log_centre, slope], lr=_RATE)
    groups = _by_size(small)
    for step in range(_STEPS):
        optimiser.param_groups[0]["lr"] = _RATE * (1 - step / _STEPS)
        optimiser.zero_grad()
        for members in groups:
            stack = torch.from_numpy(np.stack([small[i] for i in members]))
            side = max(stack.shape[1:])
            found = _convert(
                stack, log_blur.exp() * side, _levels(rise), log_centre.exp(), _alpha(slope)
            ).flatten(1)
            likelihoods = [found[n, cells[i]].mean() for n, i in enumerate(members)]
            (-torch.stack(likelihoods).sum() / len(kept)).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    with torch.no_grad():
        return Conversion(
            lowest,
            highest,
            float(log_blur.exp()),
            _levels(rise).numpy().astype(np.float64),
            log_centre.exp().numpy().astype(np.float64),
            float(_alpha(slope)),
        )


def _levels(rise: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch.zeros(1), rise.exp().cumsum(0)])


def _alpha(slope: torch.Tensor) -> torch.Tensor:
    """Between 0.1 and 0.99, as an ellipse wants it."""
    return 0.1 + 0.89 * torch.sigmoid(slope + _ROUND)


_ROUND = float(np.log((0.5**0.5 - 0.1) / (0.99 - 0.5**0.5)))
"""Where both half-axes are the same."""


def _convert(
    saliency: torch.Tensor,
    sigma: torch.Tensor,
    log_levels: torch.Tensor,
    centre: torch.Tensor,
    alpha: torch.Tensor,
) -> torch.Tensor:
    """Log densities of maps of one size, (n, height, width), values 0..1; sigma in pixels."""
    maps = _blurred(saliency, sigma)
    density = _interpolate(maps, log_levels.exp()) * _interpolate(
        _distances(saliency.shape[1], saliency.shape[2], alpha), centre
    )
    logs = density.log()
    return logs - logs.flatten(1).logsumexp(1)[:, None, None]


def _blurred(maps: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Gaussian blur of (n, height, width), edges replicated, cut as pysaliency's is: after the
    first pixel beyond four deviations."""
    radius = math.ceil(4 * float(sigma.detach()))
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum())[None, None]
    for _ in range(2):
        n, height, width = maps.shape
        rows = F.pad(maps.reshape(n * height, 1, width), (radius, radius), mode="replicate")
        maps = F.conv1d(rows, kernel).view(n, height, width).mT
    return maps


def _interpolate(values: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """The piecewise linear function of values 0..1 that has these levels at even distances."""
    at = values.clamp(0, 1) * (len(levels) - 1)
    low = at.detach().floor().clamp(max=len(levels) - 2).long()
    return torch.lerp(levels[low], levels[low + 1], at - low)


def _distances(height: int, width: int, alpha: torch.Tensor) -> torch.Tensor:
    """From the centre, 1 in the corners, along ellipses."""
    x, y = (torch.linspace(-1, 1, side) + 1e-6 for side in (width, height))
    others = 1 - alpha**2
    found = (x[None] ** 2 / alpha**2 + y[:, None] ** 2 / others).sqrt()
    return found / (1 / alpha**2 + 1 / others).sqrt()


def _smaller(saliency: np.ndarray) -> np.ndarray:
    """A map at the size that conversions are fitted at."""
    height, width = saliency.shape
    part = min(1.0, _SIDE / max(height, width))
    size = max(1, round(width * part)), max(1, round(height * part))
    return np.asarray(Image.fromarray(saliency).resize(size, Image.Resampling.BOX))


def _cells(recording: Recording, shape: tuple[int, ...]) -> torch.Tensor:
    height, width = shape
    x, y = recording.points.T
    columns = (np.floor(x) * width / recording.width).astype(int)
    rows = (np.floor(y) * height / recording.height).astype(int)
    return torch.from_numpy(rows * width + columns)


def _by_size(maps: Sequence[np.ndarray]) -> list[list[int]]:
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, one in enumerate(maps):
        groups.setdefault(one.shape, []).append(number)
    return list(groups.values())
