"""How much of a density falls on a part of an image.

A region is a set of whole pixels: those whose middle lies inside. So it holds a fixation if it
holds the fixated pixel, its share is a sum over pixels, and a prediction is counted as a record is.
The pixel in column j and row i covers [j, j + 1) x [i, i + 1).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Shape = Sequence[float] | Sequence[Sequence[float]] | np.ndarray
"""A box (x, y, width, height); a polygon's corners (n, 2), n >= 3; or a mask, bool (h, w)."""


_FARTHEST = 1e9


@dataclass(frozen=True)
class Pixels:
    """The pixels of a region, as far as they are in the image.

    Attributes:
        top, left: row and column of `inside` in the image.
        inside: bool (h, w), either may be 0.
    """

    top: int
    left: int
    inside: np.ndarray

    @property
    def count(self) -> int:
        """How many."""
        return int(np.count_nonzero(self.inside))

    def of(self, values: np.ndarray) -> np.ndarray:
        """The values of an image's pixels (height, width) at these, in a row."""
        height, width = self.inside.shape
        part = values[self.top : self.top + height, self.left : self.left + width]
        return np.asarray(part[self.inside])

    def hold(self, points: np.ndarray) -> np.ndarray:
        """Which of some fixations (n, 2), x and y, are on these pixels: bool (n,)."""
        column, row = np.floor(points).astype(int).T - [[self.left], [self.top]]
        height, width = self.inside.shape
        near = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        near[near] = self.inside[row[near], column[near]]
        return np.asarray(near)


def pixels_of(shape: Shape, height: int, width: int) -> Pixels:
    """The pixels of a box, a polygon or a mask.

    What leaves the image is cut off. A box of no width, or one that lies between the middles of
    two pixels, has none. A polygon that crosses itself is inside where a line out of it crosses
    its border an odd number of times; `union` joins several.

    Args:
        shape: see `Shape`; x and y in pixels, not necessarily whole.
        height, width: of the image.

    Raises:
        ValueError: it is none of these, is not finite, has a negative side, or is a mask of
            another size.
    """
    if isinstance(shape, np.ndarray) and shape.dtype == bool and shape.ndim == 2:
        if shape.shape != (height, width):
            rows, columns = shape.shape
            raise ValueError(f"a mask of {columns}x{rows} is not of this image, {width}x{height}")
        return _trimmed(shape)
    try:
        values = np.asarray(shape, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"not numbers: {error}") from error
    if not (np.abs(values) <= _FARTHEST).all():
        raise ValueError("a coordinate is no number, or has more than nine digits")
    if values.shape == (4,):
        x, y, wide, high = values.tolist()
        return _box(x, y, wide, high, height, width)
    if values.ndim == 2 and values.shape[1] == 2 and len(values) >= 3:
        return _polygon(values, height, width)
    raise ValueError(
        f"an array of {' x '.join(map(str, values.shape)) or 'no dimension'} is no region: a box "
        "is (x, y, width, height), a polygon (n, 2) with at least 3 corners, a mask bool (h, w)"
    )


def union(parts: Sequence[Pixels], height: int, width: int) -> Pixels:
    """The pixels that are of any of the parts."""
    if len(parts) == 1:
        return parts[0]
    whole = np.zeros((height, width), dtype=bool)
    for part in parts:
        rows, columns = part.inside.shape
        whole[part.top : part.top + rows, part.left : part.left + columns] |= part.inside
    return _trimmed(whole)


@dataclass(frozen=True)
class Measure:
    """What falls on a region.

    Attributes:
        share: of the fixations that are predicted, 0 to 1.
        area_share: of the image's pixels, 0 to 1.
        peak_x, peak_y: the middle of its densest pixel; None where it has no pixel.
        peak_share: the density there, of the image's highest; None likewise.
    """

    share: float
    area_share: float
    peak_x: float | None
    peak_y: float | None
    peak_share: float | None

    @property
    def ratio(self) -> float | None:
        """How much more falls on it than if people looked anywhere alike; None without pixels."""
        return self.share / self.area_share if self.area_share else None

    def chance(self, fixations: int) -> float:
        """The chance that at least one of so many fixations, independent of each other, is on it:
        1 - (1 - share)^n."""
        return -math.expm1(fixations * math.log1p(-self.share)) if self.share < 1 else 1.0


def measure(density: np.ndarray, pixels: Pixels) -> Measure:
    """What a density says of a region.

    Args:
        density: (height, width), >= 0, sum 1.
        pixels: from `pixels_of` the same image.
    """
    values = pixels.of(density)
    if not values.size:
        return Measure(0.0, 0.0, None, None, None)
    share = min(1.0, float(values.sum(dtype=np.float64)))
    rows, columns = np.nonzero(pixels.inside)
    highest = int(values.argmax())
    return Measure(
        share,
        values.size / density.size,
        pixels.left + float(columns[highest]) + 0.5,
        pixels.top + float(rows[highest]) + 0.5,
        float(values[highest] / density.max()),
    )


def ranks(shares: Sequence[float]) -> list[int]:
    """The place of each share among all, 1 for the largest; equal ones have the same."""
    values = np.asarray(shares, dtype=np.float64)
    not_larger = np.searchsorted(np.sort(values), values, side="right")
    return [len(values) - int(count) + 1 for count in not_larger]


def _box(x: float, y: float, width: float, height: float, rows: int, columns: int) -> Pixels:
    if width < 0 or height < 0:
        raise ValueError(f"a box cannot be {width:g} wide and {height:g} high")
    left, right = (_first(edge, columns) for edge in (x, x + width))
    top, bottom = (_first(edge, rows) for edge in (y, y + height))
    return Pixels(top, left, np.ones((bottom - top, right - left), dtype=bool))


def _first(edge: float, count: int) -> int:
    """The first of a row of pixels whose middle is not before an edge."""
    return math.ceil(min(max(edge, 0.0), float(count)) - 0.5)


def _polygon(corners: np.ndarray, height: int, width: int) -> Pixels:
    """By lines through the middles of the rows: each crossing of the border turns inside out."""
    (low_x, low_y), (high_x, high_y) = corners.min(axis=0), corners.max(axis=0)
    left, right = (_first(edge, width) for edge in (low_x, high_x))
    top, bottom = (_first(edge, height) for edge in (low_y, high_y))
    crossings = np.zeros((bottom - top, right - left + 1), dtype=np.int32)
    for ends in zip(corners.tolist(), np.roll(corners, -1, axis=0).tolist(), strict=True):
        # From above, so that two regions that share a border round it alike.
        (x0, y0), (x1, y1) = sorted(ends, key=lambda corner: (corner[1], corner[0]))
        rows = np.arange(_first(y0, height), _first(y1, height))
        if rows.size:
            x = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
            columns = np.clip(np.ceil(x - 0.5), left, right).astype(int) - left
            crossings[rows - top, columns] += 1  # one a row
    inside = np.cumsum(crossings[:, :-1], axis=1) % 2 == 1
    return Pixels(top, left, inside)


def _trimmed(mask: np.ndarray) -> Pixels:
    """A mask without the rows and columns around it that have nothing."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return Pixels(0, 0, np.zeros((0, 0), dtype=bool))
    top, left = int(rows[0]), int(columns[0])
    return Pixels(top, left, mask[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1])
