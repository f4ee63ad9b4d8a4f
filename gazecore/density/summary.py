"""Statistics and stored form of a batch of densities, made on the device that they lie on.

A density has 50,000 cells and each of its members as many. Of all that, some hundred bytes of
numbers and a few kilobytes of steps leave the device.

Sums are taken in float64, row by row and then over the rows: torch adds the numbers of a row in an
order that its length alone decides. The areas are sums over sorted cells in fixed point, as
integers, which have no order. So a density's numbers do not depend on threads or on the run, and on
CPUs not on what else is in its batch.
"""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from scipy.special import logsumexp
from torch.nn import functional

from gazecore.density.codec import STEP, check_factor
from gazecore.density.peaks import Blocks, find_peaks
from gazecore.errors import NotFinite
from gazecore.geometry import DEFAULT_FACTOR

Statistics = dict[str, Any]
"""The statistics columns of `results.schema.SCORES`, by name."""

_NUMBERS = (
    "information_bits", "concentration_bits", "mean_x", "mean_y", "var_x", "var_y", "cov_xy",
    "area_50", "area_90", "center_mass", "disagreement_bits", "finite_density", "finite_members",
    "finite_centerbias",
)  # fmt: skip
_MASSES = (0.5, 0.9)
_POINT = 2.0**52
"""Fixed point of a probability: what it rounds off, 50,000 cells together, is below 1e-11."""

_FINITE = {
    "finite_density": "density",
    "finite_members": "density of a member",
    "finite_centerbias": "centre bias",
}


class Summary:
    """What is kept of a batch of densities, on its way from the device; see `summarise`."""

    def __init__(
        self,
        numbers: torch.Tensor,
        steps: torch.Tensor,
        blocks: tuple[torch.Tensor, ...],
        grid: tuple[int, int],
        members: int,
    ) -> None:
        self._grid = grid
        self._members = members
        self._event: torch.cuda.Event | None = None
        self._arriving = (numbers, steps, *blocks)
        if numbers.is_cuda:
            self._arriving = tuple(_on_its_way(values) for values in self._arriving)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record(torch.cuda.current_stream(numbers.device))

    def wait(self) -> None:
        """Wait until it is here, which takes none of the interpreter's time."""
        if self._event is not None:
            self._event.synchronize()

    def of(self, position: int, height: int, width: int) -> tuple[Statistics, np.ndarray, float]:
        """Of one image of the batch: statistics, and the density as `codec.encode` stores it.

        Args:
            position: in the batch.
            height, width: of the original image, pixels.

        Returns:
            The statistics columns of `results.schema.SCORES`, where disagreement_bits is None for
            a model of one member, and peaks are mappings; int16 steps; and the offset in nats.

        Raises:
            NotFinite: the density, a member, the centre bias or a statistic is not finite.
        """
        self.wait()
        numbers, steps, highest, cell, mass = (v[position].numpy() for v in self._arriving)
        found = dict(zip(_NUMBERS, numbers.tolist(), strict=True))
        for flag, what in _FINITE.items():
            if not found.pop(flag):
                raise NotFinite(f"the {what} that the model gives it is not finite")
        peaks = find_peaks(Blocks(highest, cell, mass, self._grid), height, width)
        rows, columns = self._grid
        across, down = width / columns, height / rows
        statistics: dict[str, Any] = {
            "information_bits": max(0.0, found["information_bits"]),
            "concentration_bits": max(0.0, found["concentration_bits"]),
            "peak_x": peaks[0].x,
            "peak_y": peaks[0].y,
            "mean_x": found["mean_x"] * across,
            "mean_y": found["mean_y"] * down,
            "std_x": found["var_x"] ** 0.5 * across,
            "std_y": found["var_y"] ** 0.5 * down,
            "cov_xy": found["cov_xy"] * across * down,
            "area_50": found["area_50"],
            "area_90": found["area_90"],
            "center_mass": found["center_mass"],
            "n_peaks": len(peaks),
            "disagreement_bits": max(0.0, found["disagreement_bits"]),
        }
        values = np.array(list(statistics.values()), dtype=np.float64)
        if not np.isfinite(values).all():
            names = ", ".join(
                name for name, ok in zip(statistics, np.isfinite(values), strict=True) if not ok
            )
            raise NotFinite(f"{names} of its density cannot be computed: not finite")
        if self._members == 1:
            statistics["disagreement_bits"] = None
        statistics["peaks"] = [asdict(peak) for peak in peaks]
        # Off the device, so that it is the same of the same steps wherever they were made.
        return statistics, steps, -float(logsumexp(steps * STEP))


def _on_its_way(values: torch.Tensor) -> torch.Tensor:
    """A copy in the host's memory, which is complete when the device has come so far."""
    pinned = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return pinned.copy_(values, non_blocking=True)


def summarise(
    log_density: torch.Tensor, members: torch.Tensor, centerbias: torch.Tensor, factor: int
) -> Summary:
    """Summary statistics, and the stored form.

    Positions use the coordinates of fixations: the pixel in column j and row i covers
    [j, j + 1) x [i, i + 1), so the middle of a 640 px wide image is x = 320.

    Args:
        log_density: (n, grid_height, grid_width), natural logarithm, logsumexp 0.
        members: (n, members, grid_height, grid_width), the mixture's parts, likewise.
        centerbias: (grid_height, grid_width), likewise.
        factor: grid cells per stored cell, see `codec.encode`.
    """
    check_factor(factor)
    log_p = log_density.double()
    p = log_p.exp()
    p = p / _total(p)[:, None, None]
    rows, columns = p.shape[1:]
    y, x = (
        torch.arange(side, device=p.device, dtype=torch.float64) + 0.5 for side in (rows, columns)
    )
    px = p.transpose(1, 2).contiguous().sum(2)
    py = p.sum(2)
    mean_x, mean_y = (px * x).sum(1), (py * y).sum(1)
    from_x, from_y = x - mean_x[:, None], y - mean_y[:, None]
    halves = _central_half(rows, p)[:, None] * _central_half(columns, p)
    one = torch.ones(len(p), dtype=torch.float64, device=p.device)
    disagreement, finite_members = _disagreement(members, log_p)
    numbers = {
        "information_bits": _total(p * (log_p - centerbias)) / np.log(2),
        "concentration_bits": _total(p * (log_p + np.log(rows * columns))) / np.log(2),
        "mean_x": mean_x,
        "mean_y": mean_y,
        "var_x": (px * from_x**2).sum(1),
        "var_y": (py * from_y**2).sum(1),
        "cov_xy": ((p * from_x[:, None]).sum(2) * from_y).sum(1),
        **dict(zip(("area_50", "area_90"), _areas(p), strict=True)),
        "center_mass": _total(p * halves),
        "disagreement_bits": disagreement,
        "finite_density": _total(log_p).isfinite(),
        "finite_members": finite_members,
        "finite_centerbias": centerbias.isfinite().all() * one,
    }
    table = torch.stack([numbers[name].double() for name in _NUMBERS], dim=1)
    return Summary(table, _steps(log_p, factor), _blocks(p), (rows, columns), members.shape[1])


def statistics(
    log_density: np.ndarray, members: np.ndarray, centerbias: np.ndarray, height: int, width: int
) -> Statistics:
    """The statistics of one density; see `summarise`.

    Args:
        log_density: (grid_height, grid_width), natural logarithm, logsumexp 0.
        members: (members, grid_height, grid_width), the mixture's parts, likewise.
        centerbias: (grid_height, grid_width), likewise.
        height, width: of the original image, pixels.

    Returns:
        See `Summary.of`.

    Raises:
        NotFinite: the density, a member, the centre bias or a statistic is not finite.
    """
    given = (values.copy() for values in (log_density, members, centerbias))  # none runs backwards
    density, parts, prior = map(torch.from_numpy, given)
    return summarise(density[None], parts[None], prior, factor=1).of(0, height, width)[0]


def _total(values: torch.Tensor) -> torch.Tensor:
    """Sums over the last two dimensions, in an order that depends on nothing else."""
    return values.sum(-1).sum(-1)


def _disagreement(members: torch.Tensor, log_p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean KL of the members from their mixture, bits, and whether all members are finite. In
    place: on CPUs new memory for so many numbers takes longer than computing them."""
    log_ratio = members.double()
    weighted = log_ratio.exp()
    finite = _total(log_ratio).sum(1).isfinite()
    weighted *= log_ratio.sub_(log_p[:, None])
    return _total(weighted).sum(1) / (np.log(2) * members.shape[1]), finite


def _steps(log_p: torch.Tensor, factor: int) -> torch.Tensor:
    """See `codec.encode`: int16 steps. The means of so few float32 numbers are exact in float64."""
    n, rows, columns = log_p.shape
    blocks = log_p.reshape(n, rows // factor, factor, columns // factor, factor)
    means = blocks.mean(dim=(2, 4))
    steps = ((means - means.amax(dim=(1, 2), keepdim=True)) / STEP).round()
    # What is not finite has no integer; such a density is refused.
    return steps.nan_to_num(0.0).clamp(torch.iinfo(torch.int16).min, 0).to(torch.int16)


def _areas(p: torch.Tensor) -> list[torch.Tensor]:
    """Smallest share of the area that holds each mass; the last cell counts by the part needed."""
    fixed = (p.nan_to_num(0.0).flatten(1) * _POINT).round().long()
    if p.is_cuda:
        ordered = fixed.sort(1, descending=True).values
    else:  # torch takes eight times as long
        ordered = torch.from_numpy(np.sort(fixed.numpy(), axis=1)[:, ::-1].copy())
    held = ordered.cumsum(1)
    areas = []
    for mass in _MASSES:
        wanted = round(mass * _POINT)
        last = torch.searchsorted(held, held.new_full((len(held), 1), wanted))
        last = last.clamp(max=held.shape[1] - 1)
        cell, before = ordered.gather(1, last), held.gather(1, last) - ordered.gather(1, last)
        part = (wanted - before).double() / cell.double()
        areas.append(((last + part) / held.shape[1])[:, 0])
    return areas


def _central_half(cells: int, like: torch.Tensor) -> torch.Tensor:
    """How much of each cell lies between a quarter and three quarters of the side."""
    edges = torch.arange(cells + 1, device=like.device, dtype=like.dtype) / cells
    return edges.clamp(0.25, 0.75).diff() * cells


def _blocks(p: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """What `peaks.Blocks` has of each density: the highest cell, which it is, and the sum."""
    whole = p[:, None]
    highest, cell = functional.max_pool2d(
        whole, DEFAULT_FACTOR, ceil_mode=True, return_indices=True
    )
    mass = functional.avg_pool2d(whole, DEFAULT_FACTOR, ceil_mode=True, divisor_override=1)
    return highest[:, 0], cell[:, 0], mass[:, 0]
