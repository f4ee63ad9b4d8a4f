"""The pairs that differ most, drawn side by side."""

from gazecore.comparison.measure import Different
from gazecore.comparison.pairs import Scored
from gazecore.density.peaks import Peak
from gazecore.view.comparison import PairIllustration
from gazecore.view.layers import Layers, image_of, layers_of

_PICTURE_SIDE = 900


def illustrate(most: list[Different]) -> list[PairIllustration]:
    """Each pair as both runs have it; of an image that cannot be read again, the densities."""
    return [
        PairIllustration(
            d.first.density.image_id,
            d.second.density.image_id,
            d.js_bits,
            _layers(d.first),
            _layers(d.second),
        )
        for d in most
    ]


def _layers(scored: Scored) -> Layers:
    density = scored.density
    image = image_of(scored.scores["uri"], _PICTURE_SIDE)
    peaks = [Peak(**peak) for peak in scored.scores.get("peaks") or ()]
    return layers_of(density.grid, density.height, density.width, image, peaks=peaks)
