"""What a page shows of an image, each part a picture of its own, so that parts can be switched."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import matplotlib
import numpy as np
from contourpy import contour_generator
from matplotlib.colors import to_hex
from PIL import Image

from gazecore.density.peaks import Peak, apart
from gazecore.density.resample import to_size
from gazecore.errors import ImageError, StorageUnavailable
from gazecore.images.decode import decode
from gazecore.images.formats import Limits
from gazecore.images.read import read
from gazecore.ownership import MADE_BY, SOFTWARE
from gazecore.view.heatmap import coloured
from gazecore.view.overlay import MASSES, MOST_PEAKS, levels_of

KINDS = {"image": "jpeg", "density": "webp", "contours": "svg+xml", "fixations": "svg+xml"}
"""The layers that are pictures, from the lowest, and what files they are; peaks are the last."""

_COLOURS = matplotlib.colormaps["YlOrRd_r"](np.linspace(0.32, 0.95, len(MASSES)))
"""Of the contours, lighter than an overlay's, whose image is dimmed."""

_DENSITY_SIDE = 160
_UNITS = 1000
_LARGE = 420
_NEAREST = 0.04


@dataclass(frozen=True)
class Layers:
    """What is seen of an image.

    Attributes:
        width, height: of the image, pixels; all layers are stretched to that ratio.
        pictures: file by its name in KINDS; without `image` where that could not be read.
        peaks: x and y of each, the highest first, in parts of the image's sides.
    """

    width: int
    height: int
    pictures: dict[str, bytes]
    peaks: list[tuple[float, float]] = field(default_factory=list)

    @property
    def base(self) -> str:
        """The lowest picture, which gives the others their size."""
        return next(name for name in KINDS if name in self.pictures)


def layers_of(
    log_density: np.ndarray,
    height: int,
    width: int,
    image: bytes | None,
    points: np.ndarray | None = None,
    peaks: Sequence[Peak] = (),
) -> Layers:
    """Draw the layers.

    Args:
        log_density: on any grid, natural logarithm.
        height, width: of the image, pixels.
        image: what `picture` made of it.
        points: recorded fixations (n, 2), x and y in pixels.
        peaks: of the density, the highest first, in pixels.
    """
    scale = _DENSITY_SIDE / max(height, width)
    size = max(2, round(height * scale)), max(2, round(width * scale))
    density = np.exp(to_size(log_density, *size).astype(np.float64))
    pictures = {} if image is None else {"image": image}
    pictures |= {"density": _webp(density), "contours": _contours(density, height, width)}
    places = np.array([(peak.x, peak.y) for peak in peaks]).reshape(-1, 2)
    if points is not None:
        pictures["fixations"] = _dots(points, height, width)
    kept = apart(places, _NEAREST * max(height, width), MOST_PEAKS)
    shares = (places[kept] / (width, height)).tolist()
    return Layers(width, height, pictures, [(x, y) for x, y in shares])


def image_of(uri: str, longer_side: int, limits: Limits = Limits()) -> bytes | None:
    """An image, read again, as a JPEG of at most so many pixels; None where it cannot be read."""
    try:
        image = decode(read(uri, limits), limits)
    except (ImageError, StorageUnavailable):
        return None
    image.thumbnail((longer_side, longer_side))
    return jpeg(image)


def jpeg(image: Image.Image) -> bytes:
    """RGB as a file that says that gazecore made it."""
    exif = Image.Exif()
    exif[SOFTWARE] = MADE_BY
    file = io.BytesIO()
    image.save(file, "JPEG", quality=78, exif=exif)
    return file.getvalue()


def _webp(density: np.ndarray) -> bytes:
    file = io.BytesIO()
    pixels = np.rint(coloured(density) * 255).astype(np.uint8)
    Image.fromarray(pixels).save(file, "WEBP", quality=70, method=2)
    return file.getvalue()


def _svg(
    height: int,
    width: int,
    content: str,
    small: tuple[float, float],
    large: tuple[float, float],
) -> bytes:
    """A drawing whose lines have the same width at any size; `small` and `large` are those of lines
    and of what is beneath them, in pixels, on pictures of fewer than _LARGE pixels and others."""
    across, down = _size(height, width)
    common = "vector-effect:non-scaling-stroke;stroke-linecap:round"
    style = (
        f"path{{{common};stroke-width:{small[0]}px}}.halo{{stroke-width:{small[1]}px}}"
        f"@media(min-width:{_LARGE}px){{path{{stroke-width:{large[0]}px}}"
        f".halo{{stroke-width:{large[1]}px}}}}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {across} {down}" width="{across}" '
        f'height="{down}" preserveAspectRatio="none" fill="none"><style>{style}</style>{content}'
        "</svg>"
    ).encode()


def _size(height: int, width: int) -> tuple[int, int]:
    scale = _UNITS / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _contours(density: np.ndarray, height: int, width: int) -> bytes:
    """A line around each of MASSES, over a dark one that parts it from the picture."""
    rows, columns = density.shape
    units = np.array(_size(height, width))
    lines = contour_generator(
        (np.arange(columns) + 0.5) / columns, (np.arange(rows) + 0.5) / rows, density
    )
    levels, first = np.unique(levels_of(density), return_index=True)
    paths = []
    for level, colour in zip(levels, _COLOURS[first], strict=True):
        drawn = "".join(_path(np.asarray(line) * units) for line in lines.lines(level))
        if drawn:
            paths.append((drawn, to_hex(colour)))
    halo = "".join(path for path, _ in paths)
    content = f'<path class="halo" d="{halo}" stroke="#000" stroke-opacity=".5"/>'
    content += "".join(f'<path d="{path}" stroke="{colour}"/>' for path, colour in paths)
    return _svg(height, width, content if paths else "", (1.2, 2.8), (2.2, 4.6))


def _path(points: np.ndarray) -> str:
    rounded = np.rint(points).astype(int)
    moved = np.any(np.diff(rounded, axis=0, prepend=rounded[:1] - 1), axis=1)
    (x, y), *steps = rounded[moved].tolist()
    return f"M{x} {y}L" + " ".join(f"{x} {y}" for x, y in steps or [[x, y]])


def _dots(points: np.ndarray, height: int, width: int) -> bytes:
    units = np.array(_size(height, width)) / (width, height)
    rounded = np.rint(np.asarray(points).reshape(-1, 2) * units).astype(int).tolist()
    dots = "".join(f"M{x} {y}h0" for x, y in rounded)
    content = f'<path class="halo" stroke="#000" d="{dots}"/><path stroke="#22d3ee" d="{dots}"/>'
    return _svg(height, width, content, (3.0, 4.2), (5.0, 6.8))
