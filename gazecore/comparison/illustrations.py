"""The pairs that differ most, drawn side by side."""

import io

from PIL import Image

from gazecore.comparison.measure import Different
from gazecore.comparison.pairs import Scored
from gazecore.errors import ImageError, StorageUnavailable
from gazecore.images.decode import decode
from gazecore.images.read import read
from gazecore.view.comparison import PairIllustration
from gazecore.view.overlay import draw_overlay

_PICTURE_SIDE = 480


def illustrate(most: list[Different]) -> list[PairIllustration]:
    """Each pair with both overlays; an image that cannot be read again has none."""
    return [
        PairIllustration(
            d.first.density.image_id,
            d.second.density.image_id,
            d.js_bits,
            _picture(d.first),
            _picture(d.second),
        )
        for d in most
    ]


def _picture(scored: Scored) -> bytes | None:
    """The image with its density over it, a JPEG."""
    try:
        image = decode(read(scored.scores["uri"]))
    except (ImageError, StorageUnavailable):
        return None
    drawn, small = io.BytesIO(), io.BytesIO()
    draw_overlay(image, scored.density.grid, drawn, longer_side=_PICTURE_SIDE, legend=False)
    Image.open(drawn).convert("RGB").save(small, "JPEG", quality=85)
    return small.getvalue()
