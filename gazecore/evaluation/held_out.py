"""How well a model predicts fixations, from pixels to full resolution."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gazecore.corpus.schema import Corpus
from gazecore.density.resample import to_size
from gazecore.images.decode import to_network
from gazecore.images.read import read
from gazecore.metrics.auc import auc
from gazecore.metrics.likelihood import information_gain
from gazecore.model.deepgaze import DeepGaze


@dataclass(frozen=True)
class HeldOutScore:
    """What a model reached; means over images weighted equally, and over fixations.

    Attributes:
        images, fixations: how many were judged.
        information_gain: bits per fixation over the centre bias, mean over images.
        information_gain_fixations: the same, mean over fixations.
        auc: with all pixels as negatives, mean over images.
    """

    images: int
    fixations: int
    information_gain: float
    information_gain_fixations: float
    auc: float


def score_held_out(
    model: DeepGaze,
    image_ids: list[str],
    corpus: Corpus,
    on_image: Callable[[], None] = lambda: None,
) -> HeldOutScore:
    """Judge a model on images of a corpus, at their full resolution.

    Args:
        model: loaded.
        image_ids: which images; those without fixations are passed over.
        corpus: holds the images and their fixations.
        on_image: is called after each.
    """
    uris = dict(zip(corpus.image_ids, corpus.images["uri"].to_pylist(), strict=True))
    points = corpus.points()
    gains, areas = [], []
    for image_id in image_ids:
        if len(points[image_id]):
            data = read(uris[image_id])
            image = to_network(data, model.bundle.display_size)
            found = model.predict(image.pixels[None])
            log_density = to_size(found.log_density[0], image.height, image.width)
            baseline = to_size(found.centerbias, image.height, image.width)
            gains.append(information_gain(log_density, baseline, points[image_id]))
            areas.append(float(auc(log_density, points[image_id]).mean()))
        on_image()
    return HeldOutScore(
        images=len(gains),
        fixations=sum(map(len, gains)),
        information_gain=float(np.mean([g.mean() for g in gains])),
        information_gain_fixations=float(np.concatenate(gains).mean()),
        auc=float(np.mean(areas)),
    )
