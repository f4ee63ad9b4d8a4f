"""How many recorded fixations crops keep: these, central ones, smartcrop's and libvips'.

    python -m benchmarks.crops --mit1003 CORPUS --osie CORPUS [--images 100]

All cut boxes of the same sizes, the largest of 1:1, 16:9 and 9:16, out of the same images. None has
seen their fixations: of OSIE those images that the default model's training held out, of MIT1003
each by the member of the mixture whose fold it was. `people` is the best box for the recorded
fixations themselves, the most that any can keep. smartcrop and libvips are left out, with a line,
where they are not installed: pip install smartcrop 'pyvips[binary]'.
"""

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
from PIL import Image

import gazecore
from benchmarks.environment import report
from gazecore.corpus.splits import duplicate_groups, folds, thumbnail
from gazecore.density.crops import best_crop, focal_point, largest, ratio_of
from gazecore.density.resample import to_size
from gazecore.images.decode import decode, to_network
from gazecore.metrics.bootstrap import average
from gazecore.storage import Location

ASPECTS = ("1:1", "16:9", "9:16")

Place = tuple[int, int]
"""Column and row of a box's first pixel."""

Peer = Callable[[Image.Image, str, int, int], Place]
"""Of an image, its file, and a box's width and height."""


def peers() -> dict[str, Peer]:
    """Those that are installed."""
    found: dict[str, Peer] = {}
    try:
        import smartcrop

        cropper = smartcrop.SmartCrop()

        def by_smartcrop(image: Image.Image, file: str, width: int, height: int) -> Place:
            box = cropper.crop(image, width, height, min_scale=1.0)["top_crop"]
            # Its box can be a pixel larger or smaller: ours around the same middle.
            x = round(box["x"] + (box["width"] - width) / 2)
            y = round(box["y"] + (box["height"] - height) / 2)
            return min(max(x, 0), image.width - width), min(max(y, 0), image.height - height)

        found["smartcrop"] = by_smartcrop
    except ImportError as error:
        print(f"left out: smartcrop ({error})", file=sys.stderr)
    try:
        import pyvips

        def by_libvips(image: Image.Image, file: str, width: int, height: int) -> Place:
            whole = pyvips.Image.new_from_file(file)
            piece, at = whole.smartcrop(
                width, height, interesting="attention", attention_x=True, attention_y=True
            )
            # What it does with the place of attention; the piece's pixels say whether it did.
            x = min(max(at["attention_x"] - width // 2, 0), whole.width - width)
            y = min(max(at["attention_y"] - height // 2, 0), whole.height - height)
            same = whole.crop(x, y, width, height)
            assert (same - piece).abs().max() == 0, (file, x, y)
            return x, y

        found["libvips"] = by_libvips
    except (ImportError, OSError) as error:
        print(f"left out: libvips ({error})", file=sys.stderr)
    return found


def spread(ids: list[str], count: int) -> list[str]:
    """So many, evenly."""
    at = np.unique(np.linspace(0, len(ids) - 1, count).round().astype(int))
    return [ids[i] for i in at]


def osie(model: gazecore.Model, corpus: gazecore.Corpus, count: int) -> dict[str, int | None]:
    """Images that the training held out; all members have not seen them."""
    held_out = model.bundle.training.held_out(corpus.digest, corpus.image_ids)
    if not held_out:
        raise SystemExit("the default model's training held out nothing of this corpus")
    return dict.fromkeys(spread(held_out, count))


def mit1003(model: gazecore.Model, corpus: gazecore.Corpus, count: int) -> dict[str, int | None]:
    """Images, and the member of the fold that each was tested in, cut as the training cut them."""
    split = model.bundle.training.split or {}
    if corpus.digest not in model.bundle.training.corpora_sha256 or not split.get("folds"):
        raise SystemExit("the default model was not trained in folds of this corpus")
    thumbnails = [
        thumbnail(Image.fromarray(to_network(Location(uri).read_bytes(), 1024).pixels))
        for uri in corpus.images["uri"].to_pylist()
    ]
    part = folds(duplicate_groups(np.array(thumbnails)), split["folds"], split["seed"])
    member = dict(zip(corpus.image_ids, part.tolist(), strict=True))
    return {image_id: member[image_id] for image_id in spread(corpus.image_ids, count)}


def densities(
    model: gazecore.Model, corpus: gazecore.Corpus, chosen: dict[str, int | None]
) -> Iterator[tuple[str, str, Image.Image, np.ndarray]]:
    """Image, its file, its pixels and its density."""
    uris = dict(zip(corpus.image_ids, corpus.images["uri"].to_pylist(), strict=True))
    for image_id, member in chosen.items():
        image = decode(Location(uris[image_id]).read_bytes())
        found = model.predict(image)
        grid = found.grid if member is None else found.members[member]
        full = np.exp(to_size(grid, image.height, image.width), dtype=np.float64)
        yield image_id, uris[image_id], image, full


def kept(points: np.ndarray, place: Place, width: int, height: int) -> float:
    """The share of the fixations that a box keeps."""
    (x, y), (column, row) = place, np.floor(points).T
    inside = (column >= x) & (column < x + width) & (row >= y) & (row < y + height)
    return float(inside.mean())


def judge(
    model: gazecore.Model, corpus: gazecore.Corpus, chosen: dict[str, int | None]
) -> dict[str, Any]:
    """Shares with intervals, and milliseconds, by aspect and by who crops."""
    points = corpus.points()
    others = peers()
    shares: dict[str, dict[str, list[float]]] = {a: defaultdict(list) for a in ASPECTS}
    seconds: dict[str, list[float]] = defaultdict(list)
    for image_id, file, image, density in densities(model, corpus, chosen):
        recorded = np.zeros(density.shape)
        column, row = np.floor(points[image_id]).astype(int).T
        np.add.at(recorded, (row, column), 1 / len(column))
        focal = np.array(focal_point(density)) * (image.width, image.height)
        for aspect in ASPECTS:
            height, width = largest(*density.shape, ratio_of(aspect))
            room = np.array([image.width - width, image.height - height])
            begin = time.perf_counter()
            ours = best_crop(density, ratio_of(aspect))
            seconds["gazecore"].append(time.perf_counter() - begin)
            assert (ours.width, ours.height) == (width, height)
            people = best_crop(recorded, ratio_of(aspect))
            x, y = np.clip(np.round(focal - np.array([width, height]) / 2), 0, room).astype(int)
            places: dict[str, Place] = {
                "gazecore": (ours.x, ours.y),
                "gazecore, around the focal point": (int(x), int(y)),
                "centre": (int(room[0] // 2), int(room[1] // 2)),
                "people": (people.x, people.y),
            }
            for name, peer in others.items():
                begin = time.perf_counter()
                places[name] = peer(image, file, width, height)
                seconds[name].append(time.perf_counter() - begin)
            for name, place in places.items():
                shares[aspect][name].append(kept(points[image_id], place, width, height))
    result: dict[str, Any] = {
        aspect: {
            name: {
                **{k: round(v, 4) for k, v in asdict(average(np.array(values))).items()},
                "less_than_gazecore": [
                    round(v, 4)
                    for v in asdict(average(np.array(own["gazecore"]) - np.array(values))).values()
                ],
            }
            for name, values in own.items()
        }
        for aspect, own in shares.items()
    }
    return {
        "images": len(chosen),
        "kept": result,
        "milliseconds": {name: round(1e3 * float(np.mean(s)), 1) for name, s in seconds.items()},
    }


def markdown(title: str, found: dict[str, Any]) -> str:
    """The table of a corpus."""
    names = list(found["kept"][ASPECTS[0]])
    lines = [
        f"{title}, {found['images']} images",
        "",
        f"| crop | {' | '.join(ASPECTS)} |",
        "|---|---|---|---|",
    ]
    for name in names:
        cells = [found["kept"][aspect][name] for aspect in ASPECTS]
        texts = [
            f"{100 * c['mean']:.1f} [{100 * c['low']:.1f}, {100 * c['high']:.1f}]" for c in cells
        ]
        lines.append(f"| {name} | {' | '.join(texts)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mit1003")
    parser.add_argument("--osie")
    parser.add_argument("--images", type=int, default=100)
    arguments = parser.parse_args()
    model = gazecore.load()
    figures = {}
    for title, uri, choose in (
        ("MIT1003", arguments.mit1003, mit1003), ("OSIE", arguments.osie, osie)
    ):  # fmt: skip
        if uri:
            corpus = gazecore.load_corpus(uri)
            figures[title] = judge(model, corpus, choose(model, corpus, arguments.images))
            print(markdown(title, figures[title]))
    worst = min(
        found["kept"][aspect]["people"]["mean"] - found["kept"][aspect]["gazecore"]["mean"]
        for found in figures.values()
        for aspect in ASPECTS
    )
    report("crops", corpora=figures, gate={"people_keep_most": worst >= 0, "holds": worst >= 0})


if __name__ == "__main__":
    main()
