"""Maps of UNISAL (Droste, Jiao & Noble 2020), in an environment of its own.

    python -m venv unisal && unisal/bin/pip install torch torchvision pyautoflip==0.2.1
    unisal/bin/python benchmarks/unisal_maps.py OUT < LIST

LIST has a line for each image, its path and the name of its map, by a tab. The package has the
code and the weights (Apache-2.0); these are `weights_best`, which have not seen MIT1003. Needs
torch, torchvision, numpy and Pillow alone. Maps are probabilities of the image's pixels.
"""

import importlib
import json
import sys
import types
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.functional import normalize, to_tensor

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load(home: Path) -> torch.nn.Module:
    """The network, without what its package imports for training."""
    package = types.ModuleType("unisal")
    package.__path__ = [str(home / "unisal")]
    sys.modules["unisal"] = package
    trained = home / "training_runs" / "pretrained_unisal"
    settings = json.loads((trained / "UNISAL.json").read_text())
    settings["cnn_cfg"]["pretrained"] = False  # the weights below have it
    model = importlib.import_module("unisal.model").UNISAL(**{**settings, "verbose": 0})
    weights = torch.load(trained / "weights_best.pth", map_location="cpu", weights_only=True)
    model.load_state_dict(weights)
    return model.eval()


def input_size(width: int, height: int) -> tuple[int, int]:
    """Width and height that the network sees: multiples of 32 of about the image's shape, as its
    own code chooses them."""
    sides = [(w, h) for h in range(7, 14) for w in range(7, 14) if 100 <= w * h <= 120]
    ratios = [(h / w) / (height / width) for w, h in sides]
    w, h = sides[int(np.argmax([min(r, 1 / r) for r in ratios]))]
    return 32 * w, 32 * h


@torch.inference_mode()
def main() -> None:
    """Write a map for each image."""
    out = Path(sys.argv[1])
    spec = find_spec("pyautoflip")
    if spec is None or spec.origin is None:
        sys.exit("pyautoflip is not installed here: pip install pyautoflip==0.2.1")
    model = load(Path(spec.origin).parent / "3rd_party_libs" / "unisal")
    for line in sys.stdin:
        path, name = line.rstrip("\n").split("\t")
        image = Image.open(path).convert("RGB")
        seen = image.resize(input_size(*image.size), Image.Resampling.LANCZOS)
        pixels = normalize(to_tensor(seen), MEAN, DEVIATION)[None, None]
        size = (image.height, image.width)
        found = model(pixels, target_size=size, source="SALICON", static=True)
        np.save(out / f"{name}.npy", found[0, 0, 0].exp().numpy())


if __name__ == "__main__":
    main()
