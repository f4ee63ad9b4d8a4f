"""How two runs differ, image by image: a table, averages, and the pairs that differ most."""

import heapq
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.stats import spearmanr

from gazecore.comparison.pairs import Pairs, Scored, ScoredImages
from gazecore.density.regions import ranks
from gazecore.metrics.bootstrap import average
from gazecore.metrics.divergence import jensen_shannon
from gazecore.metrics.maps import cc
from gazecore.results.reader import Results
from gazecore.results.run import Run
from gazecore.results.stream import of_each
from gazecore.steps import Steps, told
from gazecore.storage import Location
from gazecore.tables import growing_table, required

STATISTICS = (
    "information_bits", "concentration_bits", "peak_x", "peak_y", "mean_x", "mean_y", "std_x",
    "std_y", "cov_xy", "area_50", "area_90", "center_mass", "n_peaks", "disagreement_bits",
)  # fmt: skip
RANKED = (
    "information_bits", "concentration_bits", "area_50", "area_90", "center_mass", "n_peaks",
    "disagreement_bits",
)  # fmt: skip
"""Statistics by which people order images."""

COMPARISON = pa.schema(
    [
        required("image_id", pa.string()),
        required("image_id_b", pa.string()),
        required("same_size", pa.bool_()),
        required("js_bits", pa.float64()),
        pa.field("cc", pa.float64()),
        required("peak_shift", pa.float64()),
        required("peak_shift_share", pa.float64()),
        *(pa.field(f"{name}_change", pa.float64()) for name in STATISTICS),
        *(pa.field(f"{name}_rank_change", pa.int32()) for name in RANKED),
    ]
)
"""Meanings: docs/compare.md."""

MOST = 8
"""Pairs that are shown."""

_ACROSS = {"peak_x": 1, "mean_x": 1, "std_x": 1, "cov_xy": 1}
_DOWN = {"peak_y": 1, "mean_y": 1, "std_y": 1, "cov_xy": 1}
"""Statistics in pixels, and how often the width and the height are in them."""


@dataclass(frozen=True)
class Different:
    """A pair of images that differs, with what both runs have of it."""

    js_bits: float
    first: Scored
    second: Scored


@dataclass
class Differences:
    """What was found.

    Attributes:
        images, other_size: pairs, and those whose images differ in size.
        averages: of each column of AVERAGED: mean with its 95 % interval, median, least and most.
        statistics: of each statistic that both runs have the mean change with its interval and,
            of those in RANKED, Spearman's correlation of both runs.
        most: the pairs that differ most, the first most of all; none that are the same.
        js_bits: of each pair.
    """

    images: int = 0
    other_size: int = 0
    averages: dict[str, dict[str, float]] = field(default_factory=dict)
    statistics: dict[str, dict[str, Any]] = field(default_factory=dict)
    most: list[Different] = field(default_factory=list)
    js_bits: np.ndarray = field(default_factory=lambda: np.empty(0), repr=False)


AVERAGED = ("js_bits", "cc", "peak_shift", "peak_shift_share")


def measure_pairs(
    runs: tuple[Run, Run],
    images: tuple[ScoredImages, ScoredImages],
    pairs: Pairs,
    out: Location,
    steps: Steps,
) -> Differences:
    """Write the table of all pairs, of the schema COMPARISON; one pass over the densities.

    A shard of either run is read once where both have their images in the same order. Some 400
    bytes of memory a pair are needed for ranks and averages.
    """
    first, second = images
    values_a, values_b = (
        _values(run, [ids[side] for ids in pairs]) for side, run in enumerate(runs)
    )
    if runs[0].version != runs[1].version:
        values_b["n_peaks"][:] = np.nan  # which they count differently
    rises = {name: _rank_changes(values_a[name], values_b[name]) for name in RANKED}
    columns = [f"{name}_change" for name in STATISTICS]
    kept = {name: np.full(len(pairs), np.nan) for name in (*AVERAGED, *columns)}
    heap: list[tuple[float, int, Different]] = []
    found = Differences(len(pairs))

    def scored() -> Iterator[tuple[Scored, Scored]]:
        for a, b in pairs:
            yield first.of(a), second.of(b)

    def work(pair: tuple[Scored, Scored]) -> tuple[dict[str, Any], Different]:
        row = compare_pair(*pair)
        return row, Different(row["js_bits"], *pair)

    with growing_table(out, COMPARISON) as write, steps("densities", len(pairs)) as on_pair:
        for number, (row, different) in enumerate(told(of_each(scored(), work), on_pair)):
            found.other_size += not row["same_size"]
            for name, values in kept.items():
                values[number] = np.nan if row[name] is None else row[name]
            for name, changes in rises.items():
                rise = changes[number]
                row[f"{name}_rank_change"] = None if np.isnan(rise) else int(rise)
            write([row])
            if different.js_bits > 0:  # of equal ones, the first
                heapq.heappush(heap, (different.js_bits, -number, different))
                if len(heap) > MOST:
                    heapq.heappop(heap)
    found.most = [different for _, _, different in sorted(heap, key=lambda e: e[:2], reverse=True)]
    found.js_bits = kept["js_bits"]
    for name in AVERAGED:
        values = kept[name][~np.isnan(kept[name])]
        if len(values):
            extremes = {"median": np.median(values), "least": values.min(), "most": values.max()}
            found.averages[name] = {
                **asdict(average(values)),
                **{title: float(value) for title, value in extremes.items()},
            }
    for name in STATISTICS:
        changes = kept[f"{name}_change"]
        there = changes[~np.isnan(changes)]
        if len(there):
            found.statistics[name] = {"change": asdict(average(there))}
            if name in RANKED:
                correlation = _rank_correlation(values_a[name], values_b[name])
                found.statistics[name]["rank_correlation"] = correlation
    return found


def compare_pair(first: Scored, second: Scored) -> dict[str, Any]:
    """A row of COMPARISON without its ranks.

    Where the images differ in size, the second is stretched to the first: places are compared in
    the first's pixels.
    """
    a, b = first.density, second.density
    p = a.probabilities()
    q = replace(b, height=a.height, width=a.width).probabilities()
    across, down = a.width / b.width, a.height / b.height
    row: dict[str, Any] = {
        "image_id": a.image_id,
        "image_id_b": b.image_id,
        "same_size": (a.height, a.width) == (b.height, b.width),
        "js_bits": jensen_shannon(p, q),
        "cc": None if np.isnan(correlation := cc(p, q)) else correlation,
    }
    for name in STATISTICS:
        one, other = first.scores[name], second.scores[name]
        if name == "n_peaks" and first.scores.keys() != second.scores.keys():
            other = None  # of a run of another version, which counts them differently
        scale = across ** _ACROSS.get(name, 0) * down ** _DOWN.get(name, 0)
        row[f"{name}_change"] = None if one is None or other is None else other * scale - one
    shift = float(np.hypot(row["peak_x_change"], row["peak_y_change"]))
    row |= {"peak_shift": shift, "peak_shift_share": shift / float(np.hypot(a.width, a.height))}
    return row


def _values(run: Run, image_ids: list[str]) -> dict[str, np.ndarray]:
    """The statistics of RANKED of some images; NaN where there is none."""
    table = Results(run).read_scores(["image_id", *RANKED])
    place = {image_id: i for i, image_id in enumerate(table["image_id"].to_pylist())}
    rows = [place[image_id] for image_id in image_ids]
    columns = ((name, table[name].cast(pa.float64()).fill_null(np.nan)) for name in RANKED)
    return {name: column.to_numpy()[rows] for name, column in columns}


def _rank_changes(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How many places each image rises from the first run to the second, where the highest value
    has the first place; NaN where either run has no value."""
    there = ~np.isnan(first) & ~np.isnan(second)
    changes = np.full(len(first), np.nan)
    before, after = (np.array(ranks(values[there].tolist())) for values in (first, second))
    changes[there] = before - after
    return changes


def _rank_correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    """Spearman's; None where one of both is the same everywhere, or there are not two images."""
    there = ~np.isnan(first) & ~np.isnan(second)
    first, second = first[there], second[there]
    if len(first) < 2 or not np.ptp(first) or not np.ptp(second):
        return None
    return float(spearmanr(first, second).statistic)
