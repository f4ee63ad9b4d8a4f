"""Predicted against recorded shares of regions, and how fast they are measured.

    python -m benchmarks.regions CORPUS RUN [--plot FILE.png]

The regions look at no fixation and at no density: a grid of 4 x 4 on every image, and ten boxes an
image at random, their sides 10 to 50 % of the image's. Beside the model stand the centre bias of
all other images, and people: the shares of half of the viewers against those of the other half.
RUN is to hold images that the model was not trained on.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.environment import peak_mb, report
from gazecore import Corpus, Results, load_corpus, measure_regions, open_run
from gazecore.density.regions import measure, pixels_of
from gazecore.metrics.baseline import LeaveOneOutCenterbias
from gazecore.metrics.recording import recordings

SIDES = 4
BOXES = 10
BINS = 10
MAX_DIFFERENCE = 1e-3
RESAMPLES = 1000


def regions(run: Results, seed: int = 0) -> pa.Table:
    """The boxes, a row each."""
    rng = np.random.default_rng(seed)
    rows = []
    scores = run.read_scores(["image_id", "status", "height", "width"]).to_pylist()
    for image in (row for row in scores if row["status"] == "ok"):
        size = np.array([image["width"], image["height"]])
        cell = size / SIDES
        boxes = [
            ("grid", *(cell * (column, row)), *cell)
            for row in range(SIDES)
            for column in range(SIDES)
        ]
        for _ in range(BOXES):
            side = size * rng.uniform(0.1, 0.5, 2)
            boxes.append(("random", *((size - side) * rng.uniform(0, 1, 2)), *side))
        rows += [(image["image_id"], *box) for box in boxes]
    names = ("image_id", "name", "x", "y", "width", "height")
    return pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))


def half(corpus: Corpus, odd: bool) -> Corpus:
    """Every other viewer of each image."""
    wanted = []
    subjects = np.array(corpus.fixations["subject"].to_pylist())
    for rows in corpus.rows_by_image().values():
        names = np.unique(subjects[rows])
        wanted.append(rows[np.isin(subjects[rows], names[odd::2])])
    return Corpus(corpus.images, corpus.fixations.take(np.sort(np.concatenate(wanted))))


def centerbias_shares(corpus: Corpus, boxes: pa.Table) -> np.ndarray:
    """What the centre bias of all other images says of each box."""
    found = {r.image_id: r for r in recordings(corpus)}
    model = LeaveOneOutCenterbias(list(found.values()))
    shares, last, density = [], "", np.empty((0, 0))
    for row in boxes.to_pylist():
        size = found[row["image_id"]].height, found[row["image_id"]].width
        if row["image_id"] != last:
            last = row["image_id"]
            density = np.exp(model.log_density(last, *size), dtype=np.float64)
        box = tuple(row[name] for name in ("x", "y", "width", "height"))
        shares.append(measure(density, pixels_of(box, *size)).share)
    return np.array(shares)


def correlation(first: np.ndarray, second: np.ndarray, images: np.ndarray) -> list[float]:
    """Pearson's, and its 95 % interval by a bootstrap over images."""
    _, image = np.unique(images, return_inverse=True)
    moments = np.column_stack(
        [np.ones(len(first)), first, second, first**2, second**2, first * second]
    )
    sums = np.array([np.bincount(image, moments[:, i]) for i in range(6)]).T
    rng = np.random.default_rng(0)
    times = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), RESAMPLES)

    def r(total: np.ndarray) -> np.ndarray:
        n, x, y, xx, yy, xy = total.T
        return (n * xy - x * y) / np.sqrt((n * xx - x**2) * (n * yy - y**2))

    low, high = np.quantile(r(times @ sums), [0.025, 0.975])
    return [round(float(v), 3) for v in (r(sums.sum(axis=0)[None])[0], low, high)]


def calibration(predicted: np.ndarray, recorded: np.ndarray) -> list[tuple[float, float, float]]:
    """Regions in tenths by their predicted share: mean predicted, mean recorded, and the error of
    that mean."""
    parts = np.array_split(np.argsort(predicted, kind="stable"), BINS)
    return [
        (
            float(predicted[part].mean()),
            float(recorded[part].mean()),
            float(recorded[part].std(ddof=1) / np.sqrt(len(part))),
        )
        for part in parts
    ]


def draw(kinds: dict[str, tuple[np.ndarray, np.ndarray]], file: Path) -> None:
    """Predicted against recorded shares, and the calibration curve over them."""
    figure = Figure(figsize=(9, 4.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (kind, (predicted, recorded)) in zip(
        figure.subplots(1, 2), kinds.items(), strict=True
    ):
        axes.plot([0, 0.7], [0, 0.7], color="#78716c", linewidth=0.8, linestyle=":")
        axes.plot(predicted, recorded, ".", color="#64748b", markersize=3, alpha=0.5)
        x, y, error = np.array(calibration(predicted, recorded)).T
        axes.errorbar(x, y, 1.96 * error, color="#c2410c", marker="o", markersize=4, linewidth=1.2)
        axes.set_title(f"{len(predicted):,} {kind}", fontsize=10)
        axes.set_xlabel("predicted share of the fixations")
        axes.set_ylabel("recorded share")
        axes.set_xlim(-0.01, 0.7)
        axes.set_ylim(-0.01, 0.9)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus")
    parser.add_argument("run")
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    corpus, run = load_corpus(arguments.corpus), open_run(arguments.run)
    boxes = regions(run)
    with tempfile.TemporaryDirectory() as name:
        pq.write_table(boxes, f"{name}/boxes.parquet")
        begin = time.perf_counter()
        measured = measure_regions(run, f"{name}/boxes.parquet", f"{name}/plain.parquet")
        seconds = time.perf_counter() - begin
        tables = [
            measure_regions(run, f"{name}/boxes.parquet", f"{name}/out.parquet", corpus=one).table
            for one in (corpus, half(corpus, True), half(corpus, False))
        ]
    table = tables[0]
    predicted, recorded, odd, even = (
        t[column].to_numpy()
        for t, column in [(tables[0], "share"), *((t, "recorded_share") for t in tables)]
    )
    prior = centerbias_shares(corpus, boxes)
    images, kinds = np.array(table["image_id"].to_pylist()), np.array(table["name"].to_pylist())
    figures: dict[str, Any] = {}
    for kind in ("grid", "random"):
        of = kinds == kind
        figures[kind] = {
            "regions": int(of.sum()),
            "correlation": {
                title: correlation(one[of], other[of], images[of])
                for title, one, other in (
                    ("model", predicted, recorded),
                    ("centre bias", prior, recorded),
                    ("half of the viewers with the other half", odd, even),
                )
            },
            "mean_difference": round(float(np.abs(predicted - recorded)[of].mean()), 4),
            "calibration": [
                [round(v, 4) for v in row] for row in calibration(predicted[of], recorded[of])
            ],
        }
    if arguments.plot:
        of = kinds == "grid"
        draw(
            {
                "cells of a grid": (predicted[of], recorded[of]),
                "boxes at random": (predicted[~of], recorded[~of]),
            },
            arguments.plot,
        )
    # The gate: a whole grid holds everything, and a box is the sum over its pixels.
    grid = table.filter(pc.equal(table["name"], "grid"))
    totals = grid.group_by("image_id").aggregate([("share", "sum")])["share_sum"].to_numpy()
    report(
        "regions", images=measured.images, kinds=figures,
        images_per_second=round(measured.images / seconds, 1), peak_mb=round(peak_mb()),
        gate={
            "largest_difference_of_a_grid_from_1": float(np.abs(totals - 1).max()),
            "holds": bool(np.abs(totals - 1).max() <= MAX_DIFFERENCE),
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
