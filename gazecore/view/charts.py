"""Histograms as SVG that is as wide as its page, with text of one size at any width: places across
are percentages, and heights are pixels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape
from matplotlib.ticker import MaxNLocator

_HEIGHT, _TOP, _BELOW = 190, 22, 24
_MOST_BINS = 40
_TICKS = 4


@dataclass(frozen=True)
class Series:
    """A distribution.

    Attributes:
        title: what of.
        counts: int (n,), images in each of the n bins.
        mean: is marked by a line; None: by none.
    """

    title: str
    counts: Sequence[int]
    mean: float | None = None


def bins_for(count: int) -> int:
    """How many bins show a number of images: 2 n^(1/3) (Rice), so that each has several; at least
    one, and never more than one for two images."""
    return max(1, min(_MOST_BINS, round(2 * float(np.cbrt(count))), (count + 1) // 2))


def histogram(
    values: Mapping[str, np.ndarray], what: str, least: float | None = None
) -> Markup | None:
    """A chart of values by what they are of; None where there is none.

    Args:
        values: title to values (n,), finite.
        what: the values are, with their unit; for whoever hears the page, too.
        least: where the bins begin; None: at the smallest value.
    """
    everything = np.concatenate([np.empty(0), *values.values()])
    if not everything.size:
        return None
    low, high = float(everything.min()), float(everything.max())
    edges = edges_of(
        low if least is None else least, high, bins_for(max(map(len, values.values())))
    )
    series = [
        Series(title, np.histogram(own, edges)[0].tolist(), float(own.mean()))
        for title, own in values.items()
        if len(own)
    ]
    return chart(series, edges, what)


def edges_of(low: float, high: float, bins: int) -> np.ndarray:
    """The bounds (bins + 1,) of bins of one width; of equal values, one bin around them."""
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-9):
        room = max(abs(low), 1.0) * 0.05
        return np.array([low - room, high + room])
    return np.linspace(low, high, bins + 1)


def chart(
    series: Sequence[Series],
    edges: np.ndarray,
    what: str,
    *,
    share: bool = False,
    whole: bool = False,
) -> Markup:
    """Series of the same bins over each other, as SVG; its classes are those of page.css.

    Args:
        series: each with as many counts as there are bins.
        edges: (n + 1,), the bounds of the bins.
        what: the values are.
        share: they are shares, and said in percent.
        whole: they are whole numbers.
    """
    low, high = float(edges[0]), float(edges[-1])
    most = max(max(one.counts, default=0) for one in series) or 1
    floor = _HEIGHT - _BELOW
    said_of = _percent if share else _said

    def across(value: float) -> str:
        return f"{100 * (value - low) / (high - low):.2f}%"

    def text(value: float, y: int, said: str, kind: str) -> str:
        place = (value - low) / (high - low)
        anchor = "start" if place < 0.08 else "end" if place > 0.92 else "middle"
        return (
            f'<text class="{kind}" x="{across(value)}" y="{y}" text-anchor="{anchor}">'
            f"{escape(said)}</text>"
        )

    parts = [
        f'<text class="tick" x="0" y="13">{most:,} {"image" if most == 1 else "images"}</text>'
    ]
    parts.append(f'<line class="grid" x1="0" x2="100%" y1="{_TOP}" y2="{_TOP}"/>')
    for number, one in enumerate(series):
        for count, left, right in zip(one.counts, edges[:-1], edges[1:], strict=True):
            if count:
                tall = max(1.0, (floor - _TOP) * count / most)
                width = 100 * float(right - left) / (high - low)
                parts.append(
                    f'<rect class="bar series-{number}" x="{across(float(left))}" '
                    f'y="{floor - tall:.1f}" width="{width:.2f}%" height="{tall:.1f}">'
                    f"<title>{count:,} from {said_of(left)} to {said_of(right)}</title></rect>"
                )
    if low < 0 < high:
        parts.append(_upright("zero", across(0.0), floor))
    for number, one in enumerate(series):
        if one.mean is not None:
            parts.append(_upright(f"mean series-{number}", across(one.mean), floor))
    parts.append(f'<line class="axis" x1="0" x2="100%" y1="{floor}" y2="{floor}"/>')
    scale = 100 if share else 1
    ticks = MaxNLocator(_TICKS, steps=[1, 2, 2.5, 5, 10], integer=whole, min_n_ticks=2)
    for place in ticks.tick_values(low * scale, high * scale):
        value = float(place) / scale
        if not low <= value <= high:
            continue
        parts.append(text(value, _HEIGHT - 6, said_of(value), "tick"))
    said = "; ".join(
        f"{one.title}: {sum(one.counts):,} images"
        + ("" if one.mean is None else f", mean {said_of(one.mean)}")
        for one in series
    )
    label = f"Histogram of {what}, from {said_of(low)} to {said_of(high)}. {said}"
    return Markup(
        f'<svg class="chart" role="img" width="100%" height="{_HEIGHT}" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def _upright(kind: str, x: str, floor: int) -> str:
    return f'<line class="{kind}" x1="{x}" x2="{x}" y1="{_TOP}" y2="{floor}"/>'


def _said(value: float) -> str:
    return f"{value:z.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _percent(value: float) -> str:
    return f"{100 * value:z.3g}\xa0%"
