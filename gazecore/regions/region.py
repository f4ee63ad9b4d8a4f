"""A region of an image, and where regions come from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gazecore.density.regions import Pixels, pixels_of, union
from gazecore.errors import one_line


@dataclass(frozen=True)
class Region:
    """A region of an image.

    Attributes:
        number: tells the regions of an image apart: the row of the table (the first is 1), the id
            of COCO's annotation, the value in the mask.
        name: what people call it; several may share one.
        pixels: None where it is no region of the image.
        error: why it is none, one line.
    """

    number: int
    name: str
    pixels: Pixels | None
    error: str = ""


class Regions(Protocol):
    """The regions that a file or a folder names."""

    def of_image(self, image_id: str, height: int, width: int) -> list[Region]:
        """The regions of an image that has a density; may be called in any thread."""

    def elsewhere(self, seen: set[str]) -> Iterator[tuple[str, int, str]]:
        """Image, number and name of the regions of all other images, as far as they are known."""


def region_of(number: int, name: str, shapes: Sequence[Any], height: int, width: int) -> Region:
    """The region of an image that some shapes make together; see `density.regions.pixels_of`."""
    try:
        parts = [pixels_of(shape, height, width) for shape in shapes]
    except ValueError as error:
        return Region(number, name, None, one_line(error))
    return Region(number, name, union(parts, height, width))
