"""A fixation density in colours, over the image or to be laid over it."""

from pathlib import Path
from typing import BinaryIO

import matplotlib
import numpy as np
from PIL import Image

from gazecore.density.resample import to_size
from gazecore.view.canvas import Canvas, PictureFormat, picture_size, save_picture

_COLOURS = matplotlib.colormaps["inferno"]
"""Perceptually uniform: equal steps of the share look alike, in print and to the colour-blind."""

_IMAGE = 0.35
"""How much of the image, in grey, is seen through."""

_TICKS = (0.9, 0.7, 0.5, 0.3, 0.1)


def draw_heatmap(
    image: Image.Image,
    log_density: np.ndarray,
    file: Path | BinaryIO,
    longer_side: int = 1024,
    legend: bool = True,
    transparent: bool = False,
    format: PictureFormat = "png",
) -> None:
    """Write a picture: the density as colours over the image in grey.

    A pixel's colour says which share of the fixations falls where the density is higher: black is
    where they all do, bright yellow the mode. So half of them fall within the colour of 50 %.

    Args:
        image: upright RGB. One that is smaller than SMALLEST is enlarged.
        log_density: on any grid of the same aspect, natural logarithm.
        file: the picture to write.
        longer_side: the picture is at most so many pixels wide or high, without the legend.
        legend: say below the picture what the colours mean; never of a transparent one.
        transparent: leave the image and the legend out: colours alone, opaque at the mode and clear
            where nobody looks, to be laid over the image by others. A JPEG cannot be.
        format: of the file.

    Raises:
        ValueError: a transparent JPEG.
    """
    if transparent and format == "jpeg":
        raise ValueError("a JPEG cannot be transparent")
    width, height = picture_size(*image.size, longer_side)
    colours = coloured(np.exp(to_size(log_density, height, width).astype(np.float64)))
    if transparent:
        save_picture(Image.fromarray(np.rint(colours * 255).astype(np.uint8)), file, format)
        return
    grey = np.asarray(image.convert("L").resize((width, height)), dtype=np.float64)[..., None] / 255
    canvas = Canvas(width, height, legend)
    canvas.show((1 - _IMAGE) * colours[..., :3] + _IMAGE * grey)
    if legend:
        _draw_legend(canvas)
    save_picture(canvas.image(), file, format)


def coloured(density: np.ndarray) -> np.ndarray:
    """A density (h, w), of any scale, as RGBA (h, w, 4), 0 to 1, opaque at the mode; see
    `draw_heatmap`."""
    value = 1 - _outside(density)
    colours: np.ndarray = _COLOURS(value)
    colours[..., 3] = value
    return colours


def _outside(density: np.ndarray) -> np.ndarray:
    """The share of the fixations where the density is higher than at each pixel."""
    ordered = np.sort(density, axis=None)[::-1]
    held = np.concatenate([[0.0], np.cumsum(ordered)]) / ordered.sum()
    higher = ordered.size - np.searchsorted(ordered[::-1], density, side="right")
    return np.asarray(np.clip(held[higher], 0, 1))


def _draw_legend(canvas: Canvas) -> None:
    box = canvas.figure.bbox
    bar = canvas.figure.add_axes((8 / box.width, 34 / box.height, 300 / box.width, 10 / box.height))
    bar.imshow(_COLOURS(np.linspace(0, 1, 256))[None], aspect="auto", extent=(1, 0, 0, 1))
    bar.set_yticks([])
    bar.set_xticks(_TICKS, [f"{tick:.0%}" for tick in _TICKS], fontsize=7)
    bar.tick_params(length=2, pad=1)
    canvas.figure.text(316 / box.width, 35 / box.height, "of the predicted fixations", fontsize=8)
    canvas.say("fall where the colour is this one or brighter. Beneath it is the picture, in grey.")
