"""The pictures of the documents: photographs that packages ship, with their densities.

python -m benchmarks.pictures       writes overlays.jpg, failures.jpg, regions.jpg, crops.jpg and
                                    compare.jpg into docs
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import gazecore
from benchmarks.photos import photo_paths

HEIGHT = 320
OVERLAYS = ("astronaut", "china", "rocket")
FAILURES = ("page", "brick", "clock_motion")


REGIONS = {
    "astronaut": {
        "face": (175, 60, 100, 130),
        "patch": (136, 345, 75, 80),
        "rocket": (362, 20, 80, 260),
    },
    "coffee": {"cup": (171, 15, 238, 250), "spoon": (325, 222, 70, 100)},
    "china": {"sign": (157, 145, 150, 50), "lake": (370, 205, 110, 65)},
}
"""Boxes (x, y, width, height) drawn by hand."""


COMPARED = ("coffee", "astronaut")
"""Those of the photographs on which `default` and `paper` differ most."""
CROPS = ("china", "rocket")


def strip(model: gazecore.Model, paths: list[Path]) -> Image.Image:
    """Overlays of one height, side by side."""
    return side_by_side([model.predict(path).overlay(legend=False) for path in paths])


def side_by_side(pictures: list[Image.Image]) -> Image.Image:
    """Pictures at one height, with gaps between them."""
    drawn = [
        p.convert("RGB").resize((round(p.width * HEIGHT / p.height), HEIGHT)) for p in pictures
    ]
    gap = np.full((HEIGHT, 8, 3), 255, dtype=np.uint8)
    parts = [part for overlay in drawn for part in (np.asarray(overlay), gap)][:-1]
    return Image.fromarray(np.concatenate(parts, axis=1))


def with_regions(density: gazecore.Density, boxes: dict[str, tuple[int, ...]]) -> Image.Image:
    """An overlay with boxes, each with its share of the fixations."""
    image = density.image
    picture = density.overlay(longer_side=max(image.size), legend=False).convert("RGB")
    draw = ImageDraw.Draw(picture)
    scale = picture.width / image.width
    for name, (x, y, width, height) in boxes.items():
        corners = [scale * v for v in (x, y, x + width, y + height)]
        draw.rectangle(corners, outline="white", width=3)
        text = f" {name} {density.share((x, y, width, height)):.0%} "
        size = picture.height / 20
        place = draw.textbbox((corners[0], corners[3]), text, font_size=size)
        draw.rectangle(place, fill="white")
        draw.text((corners[0], corners[3]), text, fill="black", font_size=size)
    return picture


def with_crops(density: gazecore.Density, aspect: str) -> list[Image.Image]:
    """A photograph with the best and the central box of a ratio, and both pieces."""
    image = density.image
    crop = density.crop(aspect)
    y, x = (image.height - crop.height) // 2, (image.width - crop.width) // 2
    boxes = [
        (left, top, left + crop.width, top + crop.height)
        for left, top in ((crop.x, crop.y), (x, y))
    ]
    marked = image.copy()
    draw = ImageDraw.Draw(marked)
    for box, colour in zip(boxes, ("#22d3ee", "white"), strict=True):
        draw.rectangle(box, outline=colour, width=image.height // 80)
    return [marked, *(image.crop(box) for box in boxes)]


def main() -> None:
    """Write them."""
    model = gazecore.load()
    spec = find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    data = Path(spec.origin).parent / "data"
    photos = photo_paths()
    docs = Path(__file__).resolve().parents[1] / "docs"
    strip(model, [photos[name] for name in OVERLAYS]).save(docs / "overlays.jpg", quality=88)
    regions = [with_regions(model.predict(photos[n]), b) for n, b in REGIONS.items()]
    side_by_side(regions).save(docs / "regions.jpg", quality=88)
    crops = [with_crops(model.predict(photos[name]), "9:16") for name in CROPS]
    side_by_side([part for parts in crops for part in parts]).save(docs / "crops.jpg", quality=88)
    paper = gazecore.load("paper")
    both = [m.predict(photos[n]).overlay(legend=False) for n in COMPARED for m in (model, paper)]
    side_by_side(both).save(docs / "compare.jpg", quality=88)
    failures = [data / f"{name}.png" for name in FAILURES]
    strip(model, failures).save(docs / "failures.jpg", quality=88)


if __name__ == "__main__":
    main()
