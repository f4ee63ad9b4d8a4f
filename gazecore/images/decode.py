"""Bytes become upright RGB pixels, with caps that hold before anything is decoded."""

import contextlib
import importlib
import io
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from gazecore.errors import DecodeError, ImageError, TooLarge, one_line
from gazecore.geometry import DisplaySize, network_size
from gazecore.images.colours import to_array, to_rgb
from gazecore.images.formats import FORMATS, OPTIONAL, Limits
from gazecore.images.kinds import KINDS, kind_of
from gazecore.images.metadata import ORIENTATION, Bare, bare

# Registers all of Pillow's formats; until then, naming one that it loads lazily is an error.
Image.init()


def _formats() -> tuple[str, ...]:
    """What Pillow may try, with those that packages of their own read."""
    here = [form for form in OPTIONAL if form.is_here()]
    for form in here:
        module = importlib.import_module(form.module)
        if form.name == "HEIF":
            module.register_heif_opener()
    return *FORMATS, *(form.name for form in here)


_FORMATS = _formats()

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


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image of an EXIF orientation upright."""

_QUARTER_TURNS = {_TURNS[orientation] for orientation in (5, 6, 7, 8)}

LARGE = 24_000_000
"""Pixels from which on images are decoded one at a time, as each takes hundreds of megabytes."""

_one_large = threading.Semaphore()


def decode(data: bytes, limits: Limits = Limits()) -> Image.Image:
    """Decode the first frame of an image to upright RGB.

    EXIF rotation is applied, transparency is shown on white, samples of more than 8 bits are scaled
    (see `colours.py`). Colour profiles are not applied. Damaged metadata does not matter.

    Raises:
        TooLarge: the file or its pixels exceed the caps.
        DecodeError: it is not an image that can be read, or takes more passes over its pixels than
            any encoder makes.
    """
    with opened(data, limits) as (image, file):
        image.load()
        turn = turn_of(image, file)
        shown = to_rgb(image, file)
        del image  # its memory, of a large one
        return shown if turn is None else shown.transpose(turn)


def to_network(
    data: bytes,
    display_size: DisplaySize,
    limits: Limits = Limits(),
    device: Callable[[bytes, int, int], np.ndarray | None] | None = None,
) -> NetworkInput:
    """Decode an image and resize it, antialiased, to what the network sees.

    A JPEG at least twice as large as it is shown is decoded at a half, a quarter or an eighth of
    its size, never smaller than it is shown (benchmarks/LOG.md has what that changes).

    Args:
        data: the file's.
        display_size: `1024` or `native`.
        limits: caps, which hold before anything is decoded.
        device: decodes and resizes JPEGs where it can, as `DeviceDecoder`.

    Raises:
        TooLarge, DecodeError: as `decode`; TooLarge also if the network's input is too large,
            which only `native` can cause.
    """
    with opened(data, limits) as (image, file):
        width, height = image.size
        _refuse_large_input(height, width, display_size)
        size = network_size(height, width, display_size)
        is_plain = image.format == "JPEG" and image.mode in ("RGB", "L")
        found = device(file.data, *size) if device and is_plain and not _is_rgb(image) else None
        part = _reduction(image, display_size)
        pixels = _jpeg_pixels(image, file, part) if is_plain and found is None else None
        if found is None and pixels is None:
            smaller = (max(1, width // part), max(1, height // part))
            if image.format == "JPEG":  # HEIF would take a thumbnail
                image.draft(None, smaller)
            image.load()
        turn = turn_of(image, file)
        if found is None:
            if pixels is None:
                shown = to_rgb(image, file)
                del image  # its memory, of a large one
                pixels = to_array(shown)
                del shown
            found = _shrunk(pixels, *size)
    if turn is None:
        return NetworkInput(height, width, found)
    found = np.asarray(Image.fromarray(found).transpose(turn))
    return NetworkInput(*((width, height) if turn in _QUARTER_TURNS else (height, width)), found)


def resized(image: Image.Image, display_size: DisplaySize) -> NetworkInput:
    """Resize an upright RGB image, antialiased, to what the network sees; see `to_network`."""
    _refuse_large_input(image.height, image.width, display_size)
    pixels = _shrunk(to_array(image), *network_size(image.height, image.width, display_size))
    return NetworkInput(image.height, image.width, pixels)


def _refuse_large_input(height: int, width: int, display_size: DisplaySize) -> None:
    """Raise TooLarge where the network's input has too many pixels."""
    shown = network_size(height, width, display_size)
    if shown[0] * shown[1] > MAX_NETWORK_PIXELS:
        raise TooLarge(
            f"{width}x{height} is too large for the native display size: use --display-size 1024"
        )


def _shrunk(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pixels (h, w, 3) uint8 resized, bicubic and antialiased, by torch: the same as Pillow's
    within one level, in half the time."""
    import torch  # which takes seconds, and is there where a network is
    import torch.nn.functional as F

    # Of channels that lie side by side, torch takes its vectorised way.
    channels = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    found = F.interpolate(channels, (height, width), mode="bicubic", antialias=True)
    # By numpy: torch would start its threads for it, which take more time than they save.
    return np.stack(list(found[0].numpy()), axis=-1)


def _reduction(image: Image.Image, display_size: DisplaySize) -> int:
    """The part of its size at which a JPEG is decoded, a half, a quarter or an eighth, as long as
    the longer side has all pixels that are shown."""
    longer = max(image.size)
    shown = longer if display_size == "native" else int(display_size)
    return next(part for part in (8, 4, 2, 1) if part == 1 or longer >= part * shown)


def _is_rgb(image: Image.Image) -> bool:
    """Whether a JPEG stores red, green and blue themselves, by Adobe's marker or its components'
    names, which not all decoders heed."""
    names = bytes(layer[0] for layer in getattr(image, "layer", ()))
    return image.info.get("adobe_transform") == 0 or names == b"RGB"


def _jpeg_pixels(image: Image.Image, file: Bare, part: int) -> np.ndarray | None:
    """RGB pixels of a colour or gray JPEG, or of a part of its size, by the library that Pillow
    uses too, without Pillow's copies.

    None where it has anything that is not as it should be: what can be lived with is Pillow's to
    say.
    """
    width, height = (-(-side // part) for side in image.size)  # which no larger part reaches
    try:
        pixels: np.ndarray = simplejpeg.decode_jpeg(
            file.data, "RGB", fastdct=False, fastupsample=False, min_height=height, min_width=width
        )
    except ValueError:
        return None
    return pixels


@contextlib.contextmanager
def opened(data: bytes, limits: Limits) -> Iterator[tuple[Image.Image, Bare]]:
    """An image within the caps, not decoded yet; of large ones one at a time is in the block.

    What goes wrong in the block is what `decode` raises.
    """
    if len(data) > limits.max_bytes:
        raise TooLarge(f"the file has more than {limits.max_bytes} bytes (--limits.max-bytes)")
    if not data:
        raise DecodeError("the file is empty")
    # Some formats check their inner frames against this, after the size that we can see.
    Image.MAX_IMAGE_PIXELS = limits.max_pixels
    try:
        file = bare(data)
        with contextlib.ExitStack() as stack:
            if file.size:
                _refuse_pixels(*file.size, limits)
                if file.size[0] * file.size[1] > LARGE:
                    stack.enter_context(_one_large)
            image = Image.open(io.BytesIO(file.data), formats=_FORMATS)
            _refuse_pixels(*image.size, limits)
            pixels = max(image.width * image.height, file.tile)
            if pixels > limits.max_pixels:
                raise TooLarge(
                    f"its tiles have more than {limits.max_pixels} pixels (--limits.max-pixels)"
                )
            if pixels > LARGE and not file.size:
                stack.enter_context(_one_large)
            held = [image]
            del image  # so that the block alone holds it
            yield held.pop(), file
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise TooLarge(
            f"it has more than {limits.max_pixels} pixels (--limits.max-pixels)"
        ) from error
    except UnidentifiedImageError as error:
        raise DecodeError(_why_not(data)) from error
    except MemoryError as error:
        raise TooLarge("decoding it needs more memory than there is") from error
    except Exception as error:  # decoders raise nearly everything on broken files
        raise DecodeError(one_line(error)) from error


def _refuse_pixels(width: int, height: int, limits: Limits) -> None:
    if width * height > limits.max_pixels:
        raise TooLarge(
            f"{width}x{height} has more than {limits.max_pixels} pixels (--limits.max-pixels)"
        )


def _why_not(data: bytes) -> str:
    """What to say of a file that no format takes."""
    kind = kind_of(data)
    form = next((f for f in OPTIONAL if KINDS.get(f.extra) == kind), None)
    if form and not form.is_here():
        return f"it is {kind}, which {form.module} reads: pip install 'gazecore[{form.extra}]'"
    if form:
        return f"it is {kind}, and damaged"
    if kind:
        return f"it is {kind}, which is not read here: save it as JPEG or PNG"
    return "the file is not an image of a format that is read here"


def turn_of(image: Image.Image, file: Bare) -> Image.Transpose | None:
    """What makes an image upright."""
    return _TURNS.get(_orientation(image) if file.orientation is None else file.orientation)


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, where the decoder of the format keeps it."""
    try:
        value = image.getexif().get(ORIENTATION)
    except Exception:  # the metadata is damaged, in whatever way
        return 1
    return value if isinstance(value, int) else 1
