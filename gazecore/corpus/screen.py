"""Where images stood on a screen, and what positions on the screen are on the image."""

from typing import Literal

import numpy as np

from gazecore.errors import CorpusError

Shown = Literal["centred", "fit", "stretched"]
"""At its own size in the middle; as large as fits, in the middle; over the whole screen."""
Origin = Literal["top-left", "bottom-left", "centre"]
"""Where positions count from: y goes down from the top left, up from the others."""
Size = tuple[int, int]
"""Width and height, pixels."""
Box = tuple[float, float, float, float]
"""Left, top, width and height of an image on the screen, pixels."""


def from_top_left(
    x: np.ndarray, y: np.ndarray, frame: Size, origin: Origin, shares: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Positions as pixels from the top left of a frame, a screen or an image.

    Args:
        x, y: (n,) positions; pixels, or shares of the frame's width and height.
        frame: its size.
        origin: where they count from.
        shares: whether they are shares.

    Returns:
        x and y, (n,). The right and the lower border are the last pixel's, but for pixels from
        the top left, which are taken as they are.
    """
    width, height = frame
    if origin == "top-left" and not shares:
        return x, y
    if shares:
        x, y = x * width, y * height
    if origin == "bottom-left":
        y = height - y
    elif origin == "centre":
        x, y = width / 2 + x, height / 2 - y
    return np.where(x == width, width - 0.5, x), np.where(y == height, height - 0.5, y)


def box_of(image: Size, screen: Size, shown: Shown, option: str) -> Box:
    """Where an image stood on a screen.

    Args:
        image, screen: their sizes.
        shown: how.
        option: what says so, for the message.

    Raises:
        CorpusError: it was centred at its own size, but is larger than the screen.
    """
    if shown == "stretched":
        return 0, 0, *screen
    scale = 1.0
    if shown == "fit":
        scale = min(screen[0] / image[0], screen[1] / image[1])
    elif image[0] > screen[0] or image[1] > screen[1]:
        raise CorpusError(
            f"an image of {image[0]}x{image[1]} pixels is larger than the screen of "
            f"{screen[0]}x{screen[1]}, so it was scaled: give {option} fit or {option} stretched"
        )
    width, height = scale * image[0], scale * image[1]
    return (screen[0] - width) / 2, (screen[1] - height) / 2, width, height


def on_image(x: np.ndarray, y: np.ndarray, box: Box, image: Size) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of the screen as pixels of an image that stood in a box on it, which may be outside.

    Args:
        x, y: (n,) from the top left of the screen.
        box: where the image stood.
        image: its size.
    """
    left, top, width, height = box
    return (x - left) * (image[0] / width), (y - top) * (image[1] / height)
