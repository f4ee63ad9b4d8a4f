"""Masks: a PNG for each image, whose values say which region a pixel is of."""

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image

from gazecore.density.regions import pixels_of
from gazecore.errors import ImageError, NotFound, one_line
from gazecore.images.fetch import fetch
from gazecore.images.formats import SUFFIXES, Limits
from gazecore.regions.region import Region
from gazecore.storage import Location

_ONE_CHANNEL = ("1", "L", "P", "I", "I;16")


class MaskFolder:
    """A folder of masks: of `a/1.jpg` it is `a/1.png`. Each value but 0 is a region, named by it;
    of a picture with a palette, values are the palette's numbers."""

    def __init__(self, location: Location) -> None:
        self._folder = location

    def of_image(self, image_id: str, height: int, width: int) -> list[Region]:
        """See `Regions`; none where there is no mask.

        Raises:
            StorageUnavailable: the storage does not answer.
        """
        try:
            data = fetch((self._folder / mask_name(image_id)).uri, None, Limits())
            values = _values(data, height, width)
        except NotFound:
            return []
        except (ImageError, ValueError) as error:
            return [Region(0, "", None, f"its mask: {one_line(error)}")]
        return [
            Region(value, str(value), pixels_of(values == value, height, width))
            for value in np.unique(values).tolist()
            if value
        ]

    def elsewhere(self, seen: set[str]) -> Iterator[tuple[str, int, str]]:
        """See `Regions`: what regions other images would have is not known."""
        return iter(())


def mask_name(image_id: str) -> str:
    """Where an image's mask is in the folder; of an absolute path or a URI, its last part."""
    parts = image_id.split("/")
    if not all(parts) or ".." in parts or "\0" in image_id:
        parts = [parts[-1].replace("\0", "") or "image"]
    stem, _, suffix = parts[-1].rpartition(".")
    last = stem if f".{suffix.lower()}" in SUFFIXES and stem else parts[-1]
    return "/".join([*parts[:-1], f"{last}.png"])


def _values(data: bytes, height: int, width: int) -> np.ndarray:
    """A PNG's values, (height, width); its size is looked at before anything is decoded."""
    try:
        image = Image.open(io.BytesIO(data), formats=["PNG"])
        if image.size != (width, height):
            raise ValueError(
                f"it is {image.width}x{image.height}, the image is {width}x{height} (upright)"
            )
        if image.mode not in _ONE_CHANNEL:
            raise ValueError(f"it has colours ({image.mode}): a mask has one channel")
        values: np.ndarray = np.array(image)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"it is not a PNG that can be read: {one_line(error)}") from error
    return values.astype(np.uint8) if values.dtype == bool else values
