"""Where to cut an image so that most of the fixations are kept."""

import functools
import re
from dataclasses import dataclass

import numpy as np

_ASPECT = re.compile(r"(\d{1,6}(?:\.\d{1,6})?):(\d{1,6}(?:\.\d{1,6})?)")
_MOST = 1000
"""The longest box, and the highest."""

_CUTS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Parts of a side that crops around a focal point take."""

_TIE = 1e-9
"""Shares that differ by less are equal: what adding a million numbers rounds off."""


@dataclass(frozen=True)
class CropConfig:
    """How a box is chosen.

    Attributes:
        least_scale: 0 to 1. Of 1, the box is the largest of its ratio. Of less, it is the smallest
            that keeps enough, and no smaller than this part of the largest one's sides.
        keep: 0 to 1, what is enough: this part of what the largest box keeps.
        margin: 0 to below 0.5. Fixations nearer to a side of the box than this part of it do not
            speak for it, so that what is looked at is not cut at its edge; but for sides that are
            the image's own.
    """

    least_scale: float = 1.0
    keep: float = 0.95
    margin: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.least_scale <= 1:
            raise ValueError(f"the least scale is above 0 and at most 1, not {self.least_scale:g}")
        if not 0 < self.keep <= 1:
            raise ValueError(f"the part to keep is above 0 and at most 1, not {self.keep:g}")
        if not 0 <= self.margin < 0.5:
            raise ValueError(f"the margin is at least 0 and below 0.5, not {self.margin:g}")


@dataclass(frozen=True)
class Crop:
    """A box of whole pixels: columns x to x + width, rows y to y + height.

    Attributes:
        x, y, width, height: pixels of the image.
        scale: its width, of the largest box of its ratio.
        share: of the fixations, that it keeps.
        center_share: that a box of the same size in the middle of the image would keep.
    """

    x: int
    y: int
    width: int
    height: int
    scale: float
    share: float
    center_share: float


def ratio_of(aspect: str) -> float:
    """Width by height of a ratio as people write it, `16:9`. Raises ValueError."""
    found = _ASPECT.fullmatch(aspect)
    sides = [float(side) for side in found.groups()] if found else []
    if not sides or not all(sides) or not 1 / _MOST <= sides[0] / sides[1] <= _MOST:
        raise ValueError(f"{aspect!r} is no ratio of width to height, such as 16:9")
    return sides[0] / sides[1]


def best_crop(density: np.ndarray, ratio: float, config: CropConfig = CropConfig()) -> Crop:
    """The box of a ratio that keeps most of the fixations; of equal ones the most central.

    All positions at all sizes are compared, by a summed-area table (Crow 1984): a box never keeps
    less than a smaller one inside it, so the smallest that keeps enough is found by halving.

    Args:
        density: (height, width), >= 0, sum 1.
        ratio: width by height.
        config: by default, the largest box there is.
    """
    table = summed(density)
    sizes = _sizes(*density.shape, ratio)
    low = _first_of(sizes, config.least_scale)
    place, most = _best(table, *sizes[-1], config.margin)
    chosen = sizes[-1]
    high = len(sizes) - 1
    while low < high:
        middle = (low + high) // 2
        found, mass = _best(table, *sizes[middle], config.margin)
        if mass >= config.keep * most - _TIE:
            high, place, chosen = middle, found, sizes[middle]
        else:
            low = middle + 1
    (y, x), (height, width) = place, chosen
    rows, columns = density.shape
    return Crop(
        x, y, width, height, width / sizes[-1][1],
        _mass(table, y, x, height, width),
        _mass(table, (rows - height) // 2, (columns - width) // 2, height, width),
    )  # fmt: skip


def focal_point(density: np.ndarray) -> tuple[float, float]:
    """The point around which crops are cut by systems that store one for each image.

    Sideways and downwards for itself, as a crop of any ratio takes all of one side: where crops of
    40, 50, ... 90 % of the side, cut around it as far as the image goes, keep most of the fixations
    on average; of equally good points the one nearest to the median.

    Args:
        density: (height, width), >= 0, sum 1.

    Returns:
        x and y in shares of the width and the height, 0 to 1.
    """
    return _focus(density.sum(axis=0)), _focus(density.sum(axis=1))


def summed(density: np.ndarray) -> np.ndarray:
    """float64 (height + 1, width + 1): the sum of all that is above and to the left."""
    table = np.zeros((density.shape[0] + 1, density.shape[1] + 1))
    np.cumsum(density, axis=0, out=table[1:, 1:])
    np.cumsum(table[1:, 1:], axis=1, out=table[1:, 1:])
    return table


def largest(rows: int, columns: int, ratio: float) -> tuple[int, int]:
    """Height and width of the largest box of a ratio in an image, whole pixels, one at least."""
    if columns >= rows * ratio:
        return rows, max(1, min(columns, round(rows * ratio)))
    return max(1, min(rows, round(columns / ratio))), columns


@functools.lru_cache(maxsize=64)
def _sizes(rows: int, columns: int, ratio: float) -> list[tuple[int, int]]:
    """Heights and widths of boxes of a ratio, the smallest first; each holds those before it."""
    height, width = largest(rows, columns, ratio)
    if width >= height:
        return [(max(1, round(w * height / width)), w) for w in range(1, width + 1)]
    return [(h, max(1, round(h * width / height))) for h in range(1, height + 1)]


def _first_of(sizes: list[tuple[int, int]], scale: float) -> int:
    """The first of the sizes whose longer side is at least a part of the last one's."""
    return int(np.ceil(max(sizes[-1]) * scale - _TIE)) - 1


def _best(
    table: np.ndarray, height: int, width: int, margin: float
) -> tuple[tuple[int, int], float]:
    """Row and column of the best box of a size, and what it keeps within its margin."""
    top, bottom = _edges(table.shape[0] - 1, height, margin)
    left, right = _edges(table.shape[1] - 1, width, margin)
    # By rows first, which is all of them in few copies.
    below, above = table[bottom], table[top]
    mass = (below[:, right] - above[:, right]) - (below[:, left] - above[:, left])
    y, x = np.nonzero(mass >= mass.max() - _TIE)
    middle_y, middle_x = (np.array(mass.shape) - 1) / 2
    central = np.argmin((y - middle_y) ** 2 + (x - middle_x) ** 2)
    return (int(y[central]), int(x[central])), float(mass.max())


def _edges(count: int, side: int, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """Between which pixels fixations speak for a box, for each place that it can have in a row of
    pixels. A side that is the image's own cuts nothing, and has no margin."""
    first = np.arange(count - side + 1)
    both = int(2 * margin * side)  # so that a larger box has no smaller inside
    inner = first + np.where(first > 0, both // 2, 0)
    outer = first + side - np.where(first + side < count, both - both // 2, 0)
    return inner, outer


def _mass(table: np.ndarray, y: int, x: int, height: int, width: int) -> float:
    (a, b), (c, d) = table[[y, y + height]][:, [x, x + width]]
    return float(np.clip(d - b - c + a, 0.0, 1.0))


def _focus(mass: np.ndarray) -> float:
    held = np.concatenate([[0.0], np.cumsum(mass)])
    middles = np.arange(len(mass)) + 0.5
    kept = np.zeros(len(mass))
    for part in _CUTS:
        side = max(1, round(part * len(mass)))
        first = np.clip(np.round(middles - side / 2), 0, len(mass) - side).astype(int)
        kept += held[first + side] - held[first]
    best = middles[kept >= kept.max() - _TIE]
    median = np.interp(held[-1] / 2, held, np.arange(len(held)))
    return float(best[np.argmin(np.abs(best - median))] / len(mass))
