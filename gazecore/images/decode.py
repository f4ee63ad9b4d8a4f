"""Bytes become upright RGB pixels, with caps that hold before anything is decoded."""

import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from gazecore.errors import DecodeError, ImageError, TooLarge, one_line
from gazecore.geometry import DisplaySize, network_size
from gazecore.images.formats import FORMATS, Limits

# Registers all of Pillow's formats; until then, naming one that it loads lazily is an error.
Image.init()

# Odd metadata does not matter here, and sizes are checked below.
warnings.filterwarnings("ignore", module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

MAX_NETWORK_PIXELS = 4_000_000
"""Largest input of the network; VGG-19 needs about 1 KB of memory for each of its pixels."""


@dataclass(frozen=True)
class NetworkInput:
    """One image as the network sees it.

    Attributes:
        height, width: of the original, after EXIF rotation.
        pixels: uint8 RGB (h, w, 3), of the size that `network_size` gives.
    """

    height: int
    width: int
    pixels: np.ndarray


def decode(data: bytes, limits: Limits = Limits()) -> Image.Image:
    """Decode the first frame of an image to upright RGB.

    EXIF rotation is applied, transparency is shown on white, 16-bit samples are scaled to 8.
    Colour profiles are not applied.

    Raises:
        TooLarge: the file or its pixels exceed the caps.
        DecodeError: it is not an image that can be read.
    """
    if len(data) > limits.max_bytes:
        raise TooLarge(f"the file has more than {limits.max_bytes} bytes (--limits.max-bytes)")
    if not data:
        raise DecodeError("the file is empty")
    # Some formats check their inner frames against this, after the size that we can see.
    Image.MAX_IMAGE_PIXELS = limits.max_pixels
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > limits.max_pixels:
                raise TooLarge(
                    f"{image.width}x{image.height} has more than {limits.max_pixels} pixels "
                    "(--limits.max-pixels)"
                )
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return _to_rgb(image)
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise TooLarge(
            f"it has more than {limits.max_pixels} pixels (--limits.max-pixels)"
        ) from error
    except UnidentifiedImageError as error:
        raise DecodeError("the file is not an image of a format that is read here") from error
    except MemoryError as error:
        raise TooLarge("decoding it needs more memory than there is") from error
    except Exception as error:  # decoders raise nearly everything on broken files
        raise DecodeError(one_line(error)) from error


def to_network(data: bytes, display_size: DisplaySize, limits: Limits = Limits()) -> NetworkInput:
    """Decode an image and resize it, antialiased, to what the network sees.

    Raises:
        TooLarge, DecodeError: as `decode`; TooLarge also if the network's input is too large,
            which only `native` can cause.
    """
    image = decode(data, limits)
    height, width = network_size(image.height, image.width, display_size)
    if height * width > MAX_NETWORK_PIXELS:
        raise TooLarge(
            f"{image.width}x{image.height} is too large for the native display size: "
            "use --display-size 1024"
        )
    try:
        resized = image.resize((width, height), Image.Resampling.BICUBIC)
        return NetworkInput(image.height, image.width, np.array(resized))
    except MemoryError as error:
        raise TooLarge("resizing it needs more memory than there is") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        samples = np.asarray(image)
        gray = _to_eight_bits(samples)
        if isinstance(key := image.info.get("transparency"), int):
            gray[samples == key] = 255
        return Image.fromarray(gray).convert("RGB")
    if image.has_transparency_data or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        layer = image.convert("RGBA")
        shown = Image.new("RGB", layer.size, "white")
        shown.paste(layer, mask=layer)
        return shown
    return image.convert("RGB")


def _to_eight_bits(samples: np.ndarray) -> np.ndarray:
    """Scale gray samples of unknown range: 8 or 16 bits, shares of one, or up to their maximum."""
    if samples.dtype.kind == "u" and samples.dtype.itemsize == 2:
        # Rounded division by 257, in integers: large scans are of this kind.
        return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)
    values = samples.astype(np.float64)
    if not np.isfinite(values).all():
        raise DecodeError("the image holds values that are not finite")
    if samples.dtype.itemsize == 2:
        full = 65535.0
    else:
        top = values.max(initial=0)
        is_share = samples.dtype.kind == "f" and top <= 1
        full = 1.0 if is_share else 255.0 if top <= 255 else 65535.0 if top <= 65535 else top
    return np.clip(np.rint(values * (255 / full)), 0, 255).astype(np.uint8)
