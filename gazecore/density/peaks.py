"""Peaks of a density: places that stand out from what is around them.

A local maximum of a density is often nothing to see: a ripple on the flank of a higher one. How
much a maximum stands out is its topological persistence (Edelsbrunner, Letscher & Zomorodian 2002):
how far one has to go down from it before one can climb to something higher. Few maxima stand out
much, and those are a place each.
"""

from dataclasses import dataclass

import numpy as np

PROMINENCE = 1.5
"""A peak is so many times as dense as the pass over which one comes to a higher one."""

LEAST_HEIGHT = 0.1
"""Of the highest peak's density, what a peak has at least."""

DISTANCE = 0.06
"""Between two peaks at least, in parts of the image's longer side: at 1024 px two degrees of visual
angle, about what the eye sees sharply at a time."""

_STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))


@dataclass(frozen=True)
class Peak:
    """A place that stands out in a density.

    Attributes:
        x, y: in pixels of the image; the pixel in column j covers [j, j + 1).
        height: its density, of the highest peak's: 0 to 1.
        share: of the fixations, 0 to 1, that fall nearer to it than DISTANCE, and not nearer to
            another peak.
    """

    x: float
    y: float
    height: float
    share: float


@dataclass(frozen=True)
class Blocks:
    """A density in blocks of some cells, which is all that peaks are found by.

    Attributes:
        highest: (h, w), the densest cell's density in each block, of any scale.
        cell: int (h, w), which cell that is, counted row by row.
        mass: (h, w), the block's probability.
        grid: rows and columns of cells.
    """

    highest: np.ndarray
    cell: np.ndarray
    mass: np.ndarray
    grid: tuple[int, int]

    @classmethod
    def of_cells(cls, density: np.ndarray) -> "Blocks":
        """A block for each cell of a density (h, w), not logarithmic."""
        cells = np.arange(density.size).reshape(density.shape)
        rows, columns = density.shape
        return cls(density, cells, density / density.sum(), (rows, columns))


def find_peaks(blocks: Blocks, height: int, width: int) -> list[Peak]:
    """The peaks of a density, the highest first. There is at least one.

    Of two that are nearer to each other than DISTANCE, the lower one is left out.

    Args:
        blocks: of the density, finite.
        height, width: of the image, pixels.
    """
    size = np.array([width, height])
    found = standing(blocks.highest, PROMINENCE, LEAST_HEIGHT)
    cells = np.column_stack(np.divmod(blocks.cell.ravel()[found], blocks.grid[1]))
    places = (cells[:, ::-1] + 0.5) * size / blocks.grid[::-1]
    distance = DISTANCE * max(size)
    kept = apart(places, distance, len(places))
    heights = blocks.highest.ravel()[found]
    return [
        Peak(float(x), float(y), float(height), float(share))
        for (x, y), height, share in zip(
            places[kept],
            heights[kept] / heights[0],
            _shares(places[kept], blocks.mass, size, distance),
            strict=True,
        )
    ]


def standing(density: np.ndarray, prominence: float, least_height: float) -> np.ndarray:
    """The local maxima that stand out.

    Args:
        density: (h, w), positive, not logarithmic, of any scale. A plateau is one maximum.
        prominence, least_height: see PROMINENCE and LEAST_HEIGHT.

    Returns:
        int (n,), cells counted row by row, the highest first.
    """
    tops, passes = persistence(density)
    heights = density.ravel()[tops]
    stands = (heights >= prominence * passes) & (heights >= least_height * heights.max())
    order = np.argsort(-heights, kind="stable")
    return np.asarray(tops[order[stands[order]]])


def _shares(places: np.ndarray, mass: np.ndarray, size: np.ndarray, distance: float) -> np.ndarray:
    """Of the blocks whose middle is within the distance of places, each one's nearest has it."""
    rows, columns = mass.shape
    x = (np.arange(columns) + 0.5) * size[0] / columns
    y = (np.arange(rows) + 0.5) * size[1] / rows
    away = np.hypot(x - places[:, 0, None, None], y[:, None] - places[:, 1, None, None])
    block = np.hypot(size[0] / columns, size[1] / rows)
    is_near = away.min(axis=0) <= max(distance, block / 2)  # its own block, of very small grids
    nearest = away.argmin(axis=0)
    return np.bincount(nearest[is_near], mass[is_near], minlength=len(places))


def apart(places: np.ndarray, distance: float, most: int) -> list[int]:
    """Which of some places, taken in turn, are not nearer to one that was taken than a distance.

    Args:
        places: (n, 2), in any unit.
        distance: in that unit.
        most: how many to take at most.

    Returns:
        Their positions in `places`, ascending.
    """
    taken: list[int] = []
    for number, place in enumerate(places):
        if len(taken) == most:
            break
        if (np.hypot(*(places[taken] - place).T) >= distance).all():
            taken.append(number)
    return taken


def persistence(density: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All local maxima, as cells (n,) in ascending order, and the height (n,) of the pass over
    which one comes from each to a higher one: 0 for the highest.

    Cells of equal density are in the order of their numbers, so that of a plateau's maxima all but
    one have a pass as high as themselves.
    """
    rows, columns = density.shape
    heights = density.ravel()
    order = np.lexsort((-np.arange(heights.size), heights))
    rank = np.empty(heights.size, dtype=np.int64)
    rank[order] = np.arange(heights.size)
    cells, ranks = np.arange(heights.size).reshape(density.shape), rank.reshape(density.shape)
    # Uphill from each cell to the highest of its neighbours, until nothing is higher.
    best = ranks.copy()
    pairs = []
    for down, across in _STEPS:
        one = np.s_[: rows - down, max(0, -across) : columns - max(0, across)]
        other = np.s_[down:, max(0, across) : columns - max(0, -across)]
        pairs.append((cells[one].ravel(), cells[other].ravel()))
        for here, there in ((one, other), (other, one)):
            best[here] = np.maximum(best[here], ranks[there])
    up = order[best.ravel()]
    while not np.array_equal(up, further := up[up]):
        up = further
    # The highest pass between any two hills, the highest of all first: there the lower one ends.
    first, second = (np.concatenate(side) for side in zip(*pairs, strict=True))
    between = up[first] != up[second]
    first, second = first[between], second[between]
    level = np.minimum(rank[first], rank[second])
    falling = np.argsort(-level)
    hills, level = np.column_stack([up[first], up[second]])[falling], level[falling]
    _, highest = np.unique(hills.min(1) * heights.size + hills.max(1), return_index=True)
    leader = {top: top for top in np.unique(up).tolist()}
    passes = dict.fromkeys(leader, 0.0)
    for edge in np.sort(highest):
        low, high = sorted((_leader(leader, top) for top in hills[edge].tolist()), key=rank.item)
        if low != high:
            leader[low] = high
            passes[low] = float(heights[order[level[edge]]])
    return np.array(list(passes)), np.array(list(passes.values()))


def _leader(leader: dict[int, int], top: int) -> int:
    while leader[top] != top:
        top = leader[top]
    return top
