"""The best and the worst predicted images, drawn with their fixations."""

import numpy as np
import pyarrow as pa

from gazecore.corpus.schema import Corpus
from gazecore.evaluation.densities import Densities
from gazecore.evaluation.maps import Maps
from gazecore.view.layers import image_of, layers_of
from gazecore.view.report import METRIC_TITLES, Illustration
from gazecore.wording import counted

SHOWN = 8
"""Illustrations of each kind."""

_PICTURE_SIDE = 900


def best_and_worst(
    images: pa.Table, corpus: Corpus, densities: Densities | Maps
) -> tuple[list[Illustration], list[Illustration]]:
    """Illustrations of the best and of the worst predicted images, the most extreme first.

    Args:
        images: from `image_table`; ordered by information gain, or by the first metric there is.
        corpus: where the pictures and the fixations are.
        densities: of the judged images.
    """
    columns = [name for name in images.column_names if name.endswith("_model")]
    column = next((c for c in columns if c == "information_gain_model"), columns[0])
    metric = column.removesuffix("_model")
    values = images[column].to_numpy(zero_copy_only=False)
    order = np.argsort(values if metric == "kldiv" else -values, kind="stable")
    order = order[~np.isnan(values[order])].tolist()
    best, worst = order[: min(SHOWN, (len(order) + 1) // 2)], order[::-1][: len(order) // 2]
    images_of = corpus.images
    uris = dict(zip(corpus.image_ids, images_of["uri"].to_pylist(), strict=True))
    points = corpus.points()

    heights, widths = (images_of[name].to_pylist() for name in ("height", "width"))
    sizes = dict(zip(corpus.image_ids, zip(heights, widths, strict=True), strict=True))

    def example(row: int) -> Illustration:
        image_id = images["image_id"][row].as_py()
        seen = counted(len(points[image_id]), "fixations")
        caption = f"{METRIC_TITLES[metric][0]} {values[row]:.2f}, {seen}"
        image = image_of(uris[image_id], _PICTURE_SIDE)
        density = densities.of_model(image_id)
        layers = layers_of(density, *sizes[image_id], image, points[image_id])
        return Illustration(image_id, caption, layers)

    return [example(row) for row in best], [example(row) for row in worst[:SHOWN]]
