"""Annotations in COCO's JSON: polygons, run lengths and boxes."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from gazecore.errors import InputError, one_line
from gazecore.regions.region import Region, region_of
from gazecore.storage import Location


class CocoFile:
    """COCO's annotations: polygons and run lengths where an annotation has them, else its box."""

    def __init__(self, location: Location) -> None:
        """Read it; all of it is held in memory."""
        try:
            content = json.loads(location.read_bytes())
            self._images = {i["id"]: i for i in content["images"]}
            self._names = {c["id"]: str(c["name"]) for c in content.get("categories", [])}
            self._by_image: dict[str, list[dict[str, Any]]] = {}
            for number, one in enumerate(content["annotations"], start=1):
                name = str(self._images[one["image_id"]]["file_name"])
                self._by_image.setdefault(name, []).append({"number": number, **one})
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{location.uri} is not COCO's JSON of images (id, file_name) and annotations "
                f"(image_id, bbox or segmentation): {type(error).__name__}, {one_line(error)}"
            ) from error

    def of_image(self, image_id: str, height: int, width: int) -> list[Region]:
        """See `Regions`. An image_id is COCO's file_name."""
        return [
            self._region(annotation, height, width)
            for annotation in self._by_image.get(image_id, [])
        ]

    def elsewhere(self, seen: set[str]) -> Iterator[tuple[str, int, str]]:
        """See `Regions`."""
        for image_id, annotations in self._by_image.items():
            if image_id not in seen:
                for annotation in annotations:
                    yield image_id, _number(annotation), self._name(annotation)

    def _name(self, annotation: dict[str, Any]) -> str:
        category = annotation.get("category_id")
        return self._names.get(category, "" if category is None else str(category))

    def _region(self, annotation: dict[str, Any], height: int, width: int) -> Region:
        number, name = _number(annotation), self._name(annotation)
        image = self._images[annotation["image_id"]]
        stated = (image.get("height", height), image.get("width", width))
        if stated != (height, width):
            return Region(
                number, name, None,
                f"the file says that the image is {stated[1]}x{stated[0]}, it is {width}x{height} "
                "(upright)",
            )  # fmt: skip
        segmentation = annotation.get("segmentation")
        if isinstance(segmentation, dict):
            try:
                mask = runs_of(segmentation, height, width)
            except ValueError as error:
                return Region(number, name, None, one_line(error))
            return region_of(number, name, [mask], height, width)
        if segmentation:
            rings = [_pairs(ring) for ring in segmentation]
            return region_of(number, name, rings, height, width)
        return region_of(number, name, [annotation.get("bbox", ())], height, width)


def _number(annotation: dict[str, Any]) -> int:
    """COCO's id, or the place in the file where that is no number."""
    own = annotation.get("id")
    return own if isinstance(own, int) and abs(own) < 2**63 else int(annotation["number"])


def _pairs(ring: Any) -> Any:
    """COCO's x0, y0, x1, y1, ... as corners."""
    even = isinstance(ring, list) and len(ring) % 2 == 0
    return [ring[i : i + 2] for i in range(0, len(ring), 2)] if even else ring


def runs_of(segmentation: Mapping[str, Any], height: int, width: int) -> np.ndarray:
    """The mask that COCO's run lengths stand for: counts of pixels outside and inside in turn,
    column by column, as numbers or packed into a text (pycocotools' `maskApi.c`, rleFrString).

    Raises:
        ValueError: they are not of an image of this size.
    """
    counts = segmentation.get("counts")
    if isinstance(counts, str):
        counts = _unpacked(counts)
    if not isinstance(counts, list) or not all(isinstance(c, int) and c >= 0 for c in counts):
        raise ValueError("its run lengths are no counts")
    if segmentation.get("size") != [height, width] or sum(counts) != height * width:
        raise ValueError(f"its run lengths are not of an image of {width}x{height}")
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(width, height).T


def _unpacked(text: str) -> list[int]:
    """Five bits a character and one that says whether more follow; from the third count on, the
    difference from the count before the last."""
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("its run lengths are damaged")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts
