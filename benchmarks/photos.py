"""Photographs that installed packages ship, for benchmarks and the demo."""

from importlib.util import find_spec
from pathlib import Path

from PIL import Image

PHOTOS = {
    "china": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "astronaut": ("skimage", "data/astronaut.png"),
    "chelsea": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "grace_hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
}


def photo_paths() -> dict[str, Path]:
    """Name to file; the packages are found, not imported."""
    paths = {}
    for name, (package, inside) in PHOTOS.items():
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise SystemExit(f"the photographs need {package}: pip install 'gazecore[dev]'")
        paths[name] = Path(spec.origin).parent / inside
    return paths


def sample_photos() -> dict[str, Image.Image]:
    """Name to RGB picture."""
    return {name: Image.open(path).convert("RGB") for name, path in photo_paths().items()}
