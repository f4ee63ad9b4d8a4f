"""Photographs that installed packages ship, for benchmarks and the demo.

python -m benchmarks.photos FOLDER      copies them there
"""

import shutil
import sys
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


def main() -> None:
    """Copy the photographs into the folder that the command line names."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in photo_paths().items():
        shutil.copyfile(path, folder / f"{name}{path.suffix}")


if __name__ == "__main__":
    main()
