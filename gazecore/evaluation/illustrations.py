"""The best and the worst predicted images, drawn with their fixations."""

import io

import numpy as np
import pyarrow as pa
from PIL import Image

from gazecore.corpus.schema import Corpus
from gazecore.errors import ImageError, StorageUnavailable
from gazecore.evaluation.densities import Densities
from gazecore.evaluation.maps import Maps
from gazecore.images.decode import decode
from gazecore.images.formats import Limits
from gazecore.images.read import read
from gazecore.view.overlay import draw_overlay
from gazecore.view.report import METRIC_TITLES, Illustration
from gazecore.wording import counted

SHOWN = 8
"""Illustrations of each kind."""

_PICTURE_SIDE = 480


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
    uris = dict(zip(corpus.image_ids, corpus.images["uri"].to_pylist(), strict=True))
    points = corpus.points()

    def example(row: int) -> Illustration:
        image_id = images["image_id"][row].as_py()
        seen = counted(len(points[image_id]), "fixations")
        caption = f"{METRIC_TITLES[metric][0]} {values[row]:.2f}, {seen}"
        density = densities.of_model(image_id)
        return Illustration(image_id, caption, _picture(uris[image_id], density, points[image_id]))

    return [example(row) for row in best], [example(row) for row in worst[:SHOWN]]


def _picture(uri: str, log_density: np.ndarray, points: np.ndarray) -> bytes | None:
    try:
        image = decode(read(uri), Limits())
    except (ImageError, StorageUnavailable):
        return None
    drawn, small = io.BytesIO(), io.BytesIO()
    draw_overlay(image, log_density, drawn, points, _PICTURE_SIDE, legend=False)
    Image.open(drawn).convert("RGB").save(small, "JPEG", quality=85)
    return small.getvalue()
