"""What people did on one image, in the form that baselines are made from."""

from dataclasses import dataclass

import numpy as np

from gazecore.corpus.schema import Corpus


@dataclass(frozen=True)
class Recording:
    """The fixations on an image.

    Attributes:
        image_id: in the corpus.
        height, width: of the image, pixels.
        points: float64 (n, 2), x and y in pixels; n may be 0.
        subjects: int (n,), who made each; the same number is the same person on all images.
    """

    image_id: str
    height: int
    width: int
    points: np.ndarray
    subjects: np.ndarray


def recordings(corpus: Corpus, image_ids: list[str] | None = None) -> list[Recording]:
    """The recordings of these images, or of all, in the order asked for.

    Raises:
        KeyError: an image is not in the corpus.
    """
    points = corpus.points()
    names = corpus.fixations["subject"].to_pylist()
    number = {name: i for i, name in enumerate(sorted(set(names)))}
    subjects = np.array([number[name] for name in names], dtype=int)
    position = {image_id: i for i, image_id in enumerate(corpus.image_ids)}
    rows = np.array([position[i] for i in corpus.fixations["image_id"].to_pylist()], dtype=int)
    order = np.argsort(rows, kind="stable")  # as `Corpus.points` orders them
    bounds = np.searchsorted(rows[order], np.arange(len(position) + 1))
    sizes = [(row["height"], row["width"]) for row in corpus.images.to_pylist()]
    found = []
    for image_id in corpus.image_ids if image_ids is None else image_ids:
        at = position[image_id]
        own = subjects[order[bounds[at] : bounds[at + 1]]]
        found.append(Recording(image_id, *sizes[at], points[image_id], own))
    return found
