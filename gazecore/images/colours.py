"""Samples of every kind become the colours that people see: 8 bits of red, green and blue."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from gazecore.errors import DecodeError
from gazecore.images.metadata import Bare

_BAND = 2**22
"""Pixels that are converted at a time."""


def to_rgb(image: Image.Image, file: Bare) -> Image.Image:
    """Colours on white; made band by band, so that no second copy of a large image is held."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _deep_to_rgb(image, file)
    if not (image.has_transparency_data or image.mode in ("RGBA", "LA", "PA", "RGBa", "La")):
        return image.convert("RGB")
    if "transparency" in image.info:
        image.info["transparency"] = transparent(image, file)
    shown = Image.new("RGB", image.size, "white")
    for box in _bands(image):
        layer = image.crop(box)
        layer.info, layer.palette = image.info, image.palette
        layer = layer.convert("RGBA")
        shown.paste(layer, box, mask=layer)
    return shown


def transparent(image: Image.Image, file: Bare) -> Any:
    """Which colour, or which of a palette's, is transparent, in the samples that Pillow makes."""
    key = image.info.get("transparency")
    if isinstance(key, tuple) and file.bits == 16:  # of the samples that Pillow has cut to 8 bits
        return tuple(value >> 8 for value in key)
    if isinstance(key, int) and image.mode == "L" and file.bits < 8:
        return key * (255 // (2**file.bits - 1))
    return key


def _bands(image: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    rows = max(1, _BAND // image.width)
    for top in range(0, image.height, rows):
        yield 0, top, image.width, min(top + rows, image.height)


def to_array(image: Image.Image) -> np.ndarray:
    """Pixels, (h, w, 3); band by band, so that a large image is not held three times."""
    if image.width * image.height <= _BAND:
        return np.array(image)
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for box in _bands(image):
        pixels[box[1] : box[3]] = np.asarray(image.crop(box))
    return pixels


def _deep_to_rgb(image: Image.Image, file: Bare) -> Image.Image:
    """Gray of more than 8 bits; see `_full`."""
    full = _full(image, file)
    key = image.info.get("transparency")
    shown = Image.new("RGB", image.size)
    for box in _bands(image):
        samples = _samples(image, box, file)
        if samples.dtype == np.uint16 and full == 65535:
            # Rounded division by 257, in integers: large scans are of this kind.
            gray = ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)
        else:
            scaled = np.rint(samples.astype(np.float64) * (255 / full))
            gray = np.clip(scaled, 0, 255).astype(np.uint8)
        if file.is_inverted:
            gray = 255 - gray
        if isinstance(key, int):
            gray[samples == key] = 255
        shown.paste(Image.fromarray(gray), box)
    return shown


def _samples(image: Image.Image, box: tuple[int, int, int, int], file: Bare) -> np.ndarray:
    samples = np.asarray(image.crop(box))
    return samples.view(np.uint32) if image.mode == "I" and file.is_unsigned else samples


def _full(image: Image.Image, file: Bare) -> float:
    """Which sample is white, of gray samples whose range their format does not say.

    16 bits: 65535; 12 bits: 4095. Others: of 1 (floats alone), 255 and 65535 the first of which the
    largest sample is at most 17 times (so that 12 bits in a larger container are above 8), or that
    sample itself where it is larger: shares that overshoot, light. Negative samples are black.

    Raises:
        DecodeError: a sample is not finite.
    """
    if image.mode.startswith("I;16"):
        return 4095.0 if file.bits == 12 else 65535.0
    if image.mode == "I" and image.format == "PPM":  # which Pillow scales
        return 65535.0
    top = 0.0
    for box in _bands(image):
        samples = _samples(image, box, file)
        if not np.isfinite(samples).all():
            raise DecodeError("the image holds values that are not finite")
        top = max(top, float(samples.max(initial=0)))
    whites = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
    return next((max(white, top) for white in whites if top <= 17 * white), top)
