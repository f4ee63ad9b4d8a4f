"""Sizes that several rooms must agree on: of what the network sees, and of the grid."""

from collections.abc import Iterator, Sequence
from typing import Literal

DisplaySize = Literal["1024", "native"]
"""The longer side that images are shown at, in pixels; `native` keeps each image's own."""


STRIDE = 16
"""Pixels of the network's input per feature position, in both directions."""


GRID_STRIDE = 2
"""Pixels of the network's input per grid cell: a quarter of the display's resolution."""

DEFAULT_FACTOR = 4
"""Grid cells per stored cell, in both directions."""


def parts(count: int, most: int) -> Iterator[slice]:
    """Images of one size cut into batches, none of which is padded: as many as fit, a power of two,
    and the rest in smaller powers of two.

    A network that has seen a batch of a size and shape, of which there are a few, knows it. The
    count alone decides, so that the images of a shard meet the same batches each time.
    """
    start = 0
    while start < count:
        size = min(most, 1 << (count - start).bit_length() - 1)
        yield slice(start, start + size)
        start += size


def network_size(height: int, width: int, display_size: DisplaySize) -> tuple[int, int]:
    """The size at which the network sees an image.

    Half of the display size, as in the paper: the longer side is 512 px, or half the image's own
    for `native`. Both sides are rounded to multiples of the backbone's stride, so that features,
    grid and image share one coordinate system without a border that belongs to none.

    Args:
        height, width: of the image, pixels.
        display_size: `1024` or `native`.

    Returns:
        (height, width), multiples of 16.
    """
    longer = max(height, width) if display_size == "native" else int(display_size)
    scale = longer / 2 / max(height, width)
    return tuple(max(1, round(side * scale / STRIDE)) * STRIDE for side in (height, width))  # type: ignore[return-value]


def level_sizes(height: int, width: int, pyramid: Sequence[float]) -> list[tuple[int, int]]:
    """The sizes of the levels of an image pyramid, multiples of the backbone's stride.

    Args:
        height, width: of the network's input, from `network_size`.
        pyramid: each level's size in parts of the input's.
    """

    def side(whole: int, part: float) -> int:
        return max(1, round(whole * part / STRIDE)) * STRIDE

    return [(side(height, part), side(width, part)) for part in pyramid]
