"""What pictures of densities are drawn on: an image's area at a size to look at, and a legend."""

import io
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from gazecore.ownership import MADE_BY, SOFTWARE

PictureFormat = Literal["png", "webp", "jpeg"]
SUFFIXES: dict[PictureFormat, str] = {"png": ".png", "webp": ".webp", "jpeg": ".jpg"}

SMALLEST = 512
"""Pixels of the longer side to which small images are enlarged, so that marks do not hide them."""

NARROWEST = 64
"""Pixels of the shorter side at least; of an image of 16:1 or more it is stretched to that."""

LEGEND = (540, 58)
"""Width at least, and height, of the legend in pixels."""

DPI = 100
POINTS = 72 / DPI
"""Of type and lines, in a pixel."""

_QUALITY = 90


class Canvas:
    """A picture with room for a legend below.

    Attributes:
        width, height: of the image's area, pixels.
        figure: all of it.
        axes: the image's area, in its pixels.
    """

    def __init__(self, width: int, height: int, legend: bool) -> None:
        self.width, self.height = width, height
        canvas_width, below = (max(width, LEGEND[0]), LEGEND[1]) if legend else (width, 0)
        size = canvas_width, height + below
        self.figure = Figure(figsize=(size[0] / DPI, size[1] / DPI), dpi=DPI)
        FigureCanvasAgg(self.figure)
        left = (canvas_width - width) // 2 / canvas_width
        self.axes = self.figure.add_axes(
            (left, below / size[1], width / canvas_width, height / size[1])
        )
        self.axes.set_axis_off()
        self.axes.set_xlim(0, width)
        self.axes.set_ylim(height, 0)

    def show(self, pixels: np.ndarray) -> None:
        """Fill the area with RGB, 0 to 1."""
        extent = (0, self.width, self.height, 0)
        self.axes.imshow(pixels, extent=extent, aspect="auto")

    def say(self, text: str) -> None:
        """The legend's last line."""
        box = self.figure.bbox
        self.figure.text(8 / box.width, 6 / box.height, text, fontsize=8)

    def image(self) -> Image.Image:
        """The picture, RGB."""
        buffer = io.BytesIO()
        self.figure.savefig(buffer, dpi=DPI, format="png")
        return Image.open(buffer).convert("RGB")


def picture_size(width: int, height: int, longer_side: int = 1024) -> tuple[int, int]:
    """(width, height) in pixels at which an image of a size is drawn."""
    longer = min(longer_side, max(width, height, SMALLEST))
    scale = longer / max(width, height)
    drawn_width, drawn_height = (
        max(min(NARROWEST, longer), round(side * scale)) for side in (width, height)
    )
    return drawn_width, drawn_height


def save_picture(
    picture: Image.Image, file: Path | BinaryIO, format: PictureFormat = "png"
) -> None:
    """Write a picture that says that gazecore drew it."""
    if format == "png":
        text = PngInfo()
        text.add_text("Software", MADE_BY)
        picture.save(file, "PNG", pnginfo=text)
        return
    exif = Image.Exif()
    exif[SOFTWARE] = MADE_BY
    picture.save(file, format.upper(), quality=_QUALITY, exif=exif)
