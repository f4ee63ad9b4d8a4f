"""The pictures of the documents: photographs that packages ship, with their densities.

python -m benchmarks.pictures       writes docs/overlays.jpg and docs/failures.jpg
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

import gazecore
from benchmarks.photos import photo_paths

HEIGHT = 320
OVERLAYS = ("astronaut", "china", "rocket")
FAILURES = ("page", "brick", "clock_motion")


def strip(model: gazecore.Model, paths: list[Path]) -> Image.Image:
    """Overlays of one height, side by side."""
    drawn = []
    for path in paths:
        overlay = model.predict(path).overlay(legend=False).convert("RGB")
        drawn.append(overlay.resize((round(overlay.width * HEIGHT / overlay.height), HEIGHT)))
    gap = np.full((HEIGHT, 8, 3), 255, dtype=np.uint8)
    parts = [part for overlay in drawn for part in (np.asarray(overlay), gap)][:-1]
    return Image.fromarray(np.concatenate(parts, axis=1))


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
    failures = [data / f"{name}.png" for name in FAILURES]
    strip(model, failures).save(docs / "failures.jpg", quality=88)


if __name__ == "__main__":
    main()
