"""A part of an image as a file of its own, of the same format.

What is decoded is upright, and so is what is written. The colours' profile is kept. Other metadata
is not: an EXIF block can hold a small picture of the whole image, and where it was taken.
"""

import contextlib
import io
import warnings
from typing import Any

from PIL import Image, JpegImagePlugin

from gazecore.errors import DecodeError, one_line
from gazecore.images.colours import transparent
from gazecore.images.decode import opened, turn_of
from gazecore.images.formats import FORMATS, Limits
from gazecore.images.metadata import Bare
from gazecore.ownership import MADE_BY
from gazecore.storage import Location

_SOFTWARE = 0x0131
_MOST_CHUNKS = 100
_QUALITY = 95
"""Of formats that lose some of the picture and do not say how much."""


def cut(
    data: bytes, size: tuple[int, int], boxes: list[tuple[int, int, int, int]],
    limits: Limits = Limits(),
) -> list[bytes]:  # fmt: skip
    """Files of parts of an image.

    JPEGs are encoded with their own tables and colour sampling, so that no more is lost than by
    encoding once more. PNG, lossless WebP, GIF, BMP, PPM, JPEG 2000 and TIFF lose nothing, but for
    colours of more than 8 bits a channel, which are read as 8. WebP and AVIF that lose some are
    encoded at quality 95. Of an animation it is the first frame.

    Args:
        data: the image's file.
        size: (height, width) that the upright image is to have.
        boxes: left, top, right and bottom of each part, pixels of the upright image.
        limits: caps, which hold before anything is decoded.

    Raises:
        TooLarge, DecodeError: as `decode`; DecodeError also if it has another size, or its format
            cannot be written.
    """
    with opened(data, limits) as (image, file):
        image.load()
        turn = turn_of(image, file)
        upright = image if turn is None else image.transpose(turn)
        if upright.size != size[::-1]:
            height, width = size
            raise DecodeError(
                f"it is {upright.width}x{upright.height} now, and was {width}x{height} when it was "
                "scored"
            )
        if file.is_inverted or file.is_unsigned:
            raise DecodeError("TIFFs of inverted or of unsigned 32-bit samples are not cut")
        options = _options(image, file, data)
        format = "BMP" if image.format == "DIB" else image.format or "PNG"
        parts = []
        for box in boxes:
            buffer = io.BytesIO()
            try:
                upright.crop(box).save(buffer, format, **options)
            except (OSError, ValueError, KeyError) as error:
                raise DecodeError(f"{format} of mode {upright.mode} cannot be written: "
                                  f"{one_line(error)}") from error  # fmt: skip
            parts.append(buffer.getvalue())
        return parts


def was_cut(location: Location) -> bool:
    """Whether a file that is there was made by `cut`, of a format that can say so: not BMP, PPM and
    JPEG 2000."""
    try:
        # Another image's metadata is not ours to warn of.
        with warnings.catch_warnings(), location.fs.open(location.path, "rb") as file:
            warnings.simplefilter("ignore")
            with Image.open(file, formats=FORMATS) as image:
                said = (image.getexif().get(_SOFTWARE), image.info.get("comment"))
        return MADE_BY in said or MADE_BY.encode() in said
    except Exception:  # decoders raise nearly everything on what others wrote
        return False


def _options(image: Image.Image, file: Bare, data: bytes) -> dict[str, Any]:
    """How a part of it is saved as it was."""
    options: dict[str, Any] = {}
    exif = Image.Exif()
    exif[_SOFTWARE] = MADE_BY
    match image.format:
        case "JPEG" | "MPO":
            assert isinstance(image, JpegImagePlugin.JpegImageFile)
            options = {
                "qtables": image.quantization,
                "subsampling": JpegImagePlugin.get_sampling(image),
                "progressive": bool(image.info.get("progressive")),
                "optimize": True,
            }
        case "WEBP":
            options = {"lossless": True} if _is_lossless(data) else {"quality": _QUALITY}
        case "AVIF":
            options = {"quality": _QUALITY}
        case "TIFF":
            options = {"compression": image.info.get("compression")}
        case "GIF":
            options = {"comment": MADE_BY}
    if image.format in ("JPEG", "MPO", "PNG", "WEBP", "AVIF", "TIFF"):
        options |= {"exif": exif, "icc_profile": _profile(data)}
    if "transparency" in image.info:
        options["transparency"] = transparent(image, file)
    return options


def _is_lossless(webp: bytes) -> bool:
    """Whether a WebP's first frame is of the kind that loses nothing."""
    position = 12
    for _ in range(_MOST_CHUNKS):
        kind = webp[position : position + 4]
        if kind == b"ANMF":
            kind = webp[position + 24 : position + 28]
        if kind in (b"VP8L", b"VP8 "):
            return kind == b"VP8L"
        size = int.from_bytes(webp[position + 4 : position + 8], "little")
        position += 8 + size + size % 2
    return False


def _profile(data: bytes) -> bytes | None:
    """What the file's colours mean, where that can be read."""
    with contextlib.suppress(Exception):  # metadata is damaged in many ways, and is not the image
        return Image.open(io.BytesIO(data), formats=FORMATS).info.get("icc_profile")
    return None
