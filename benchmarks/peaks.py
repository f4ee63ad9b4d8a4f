"""Do a density's peaks lie where people's fixations cluster? Precision and recall.

    python -m benchmarks.peaks CORPUS RUN [--sweep]

RUN is to hold images that the model was not trained on, scored with the default --density-factor.
A cluster is where fixations of an image climb to by mean shift, a Gaussian of 3 % of the longer
side as the window (about a degree of visual angle): at least 5 % of the fixations, of at least a
fifth of the viewers. A peak is right if it is within 6 % of the longer side of a cluster that no
other peak has, as many as can be. Beside the peaks stand the local maxima of at least 5 % of the
highest one's density, which counted as peaks before; as many of the highest of those as there are
peaks; and people: the clusters of half of the viewers against those of the other half. `--sweep`
prints what other thresholds would give.
"""

import argparse
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from benchmarks.environment import report
from gazecore import Corpus, load_corpus, open_run
from gazecore.density.peaks import DISTANCE, apart, standing
from gazecore.density.resample import to_size
from gazecore.geometry import DEFAULT_FACTOR

WINDOW = 0.03
NEAR = 0.06
LEAST_SHARE = 0.05
LEAST_VIEWERS = 0.2
OLD_SHARE = 0.05
RESAMPLES = 1000

PROMINENCES = (1.0, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0, 2.5)
LEAST_HEIGHTS = (0.05, 0.1, 0.15, 0.2, 0.3)
DISTANCES = (0.0, 0.04, 0.06, 0.08, 0.1)

Places = np.ndarray
"""(n, 2), x and y in parts of the image's longer side."""


def clusters(points: Places, subjects: np.ndarray) -> Places:
    """Where fixations cluster."""
    places = points.copy()
    for _ in range(100):
        weights = np.exp(-((places[:, None] - points) ** 2).sum(2) / (2 * WINDOW**2))
        moved = weights @ points / weights.sum(1, keepdims=True)
        if np.abs(moved - places).max() < 1e-5:
            break
        places = moved
    found = []
    left = np.ones(len(points), dtype=bool)
    while left.any():
        here = left & (np.hypot(*(places - places[np.argmax(left)]).T) < WINDOW / 2)
        viewers = len(np.unique(subjects[here])) / len(np.unique(subjects))
        if here.mean() >= LEAST_SHARE and viewers >= LEAST_VIEWERS:
            found.append(places[here].mean(0))
        left &= ~here
    return np.array(found).reshape(-1, 2)


def matches(one: Places, other: Places) -> int:
    """How many pairs of near places there are, none of which is in two."""
    near = np.hypot(*(one[:, None] - other).transpose(2, 0, 1)) <= NEAR
    return int(near[linear_sum_assignment(~near)].sum())


def old_peaks(density: np.ndarray) -> np.ndarray:
    """Local maxima with at least 5 % of the highest one's density, the highest first: (n, 2)."""
    is_maximum = density == ndimage.maximum_filter(density, size=3, mode="nearest")
    rows, columns = np.nonzero(is_maximum & (density >= OLD_SHARE * density.max()))
    order = np.argsort(-density[rows, columns], kind="stable")
    return np.column_stack([rows, columns])[order]


def on_image(cells: np.ndarray, shape: Sequence[int], width: int, height: int) -> Places:
    """Cells, row and column, as places."""
    return (cells[:, ::-1] + 0.5) * (width, height) / np.array(shape)[::-1] / max(width, height)


class Tally:
    """Peaks, clusters and pairs of them, an image each."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, int, int]] = []

    def add(self, found: Places, wanted: Places) -> None:
        """Of an image."""
        gaps = np.hypot(*(found[:, None] - found).transpose(2, 0, 1)) + np.eye(len(found)) * 9
        crowded = int((gaps.min(1, initial=9) < NEAR).sum())
        self.rows.append((len(found), len(wanted), matches(found, wanted), crowded))

    def figures(self) -> dict[str, Any]:
        """Precision, recall and F1 over all images, with 95 % intervals by a bootstrap of those."""
        rows = np.array(self.rows, dtype=float)
        rng = np.random.default_rng(0)
        times = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), RESAMPLES)

        def rates(sums: np.ndarray) -> np.ndarray:
            found, wanted, both, _ = sums.T
            return np.array([both / found, both / wanted, 2 * both / (found + wanted)])

        values, samples = rates(rows.sum(0)), rates(times @ rows)
        low, high = np.quantile(samples, [0.025, 0.975], axis=1)
        counts = rows[:, 0]
        return {
            **{
                name: [round(float(v), 3) for v in (values[i], low[i], high[i])]
                for i, name in enumerate(("precision", "recall", "f1"))
            },
            "peaks": [round(float(v), 2) for v in (counts.mean(), counts.min(), counts.max())],
            "clusters": round(float(rows[:, 1].mean()), 2),
            "images_with_one": int((counts == 1).sum()),
            "share_nearer_than_that_to_another": round(float(rows[:, 3].sum() / counts.sum()), 3),
        }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus")
    parser.add_argument("run")
    parser.add_argument("--sweep", action="store_true")
    arguments = parser.parse_args()
    corpus, run = load_corpus(arguments.corpus), open_run(arguments.run)
    images = recorded(corpus)
    scored = [row for row in run.scores.to_pylist() if row["status"] == "ok"]
    tallies = {name: Tally() for name in ("peaks", "old", "old_as_many", "people")}
    swept: dict[tuple[float, ...], Tally] = {}
    shares = []
    for row in scored:
        width, height, points, subjects = images[row["image_id"]]
        found = np.array([(peak["x"], peak["y"]) for peak in row["peaks"]]) / max(width, height)
        density = np.exp(on_model_grid(run.density(row["image_id"], grid=True)))
        old = on_image(old_peaks(density), density.shape, width, height)
        wanted = clusters(points, subjects)
        tallies["peaks"].add(found, wanted)
        tallies["old"].add(old, wanted)
        tallies["old_as_many"].add(old[: len(found)], wanted)
        halves = [np.isin(subjects, np.unique(subjects)[odd::2]) for odd in (0, 1)]
        tallies["people"].add(*(clusters(points[half], subjects[half]) for half in halves))
        shares += zip(
            [peak["share"] for peak in row["peaks"]], recorded_shares(found, points), strict=True
        )
        if arguments.sweep:
            for setting, places in sweep(density, width, height):
                swept.setdefault(setting, Tally()).add(places, wanted)
    for setting, tally in sorted(swept.items(), key=lambda item: item[1].figures()["f1"][0]):
        print(*setting, json.dumps(tally.figures()))
    predicted, seen = np.array(shares).T
    found_in = {name: tally.figures() for name, tally in tallies.items()}
    report(
        "peaks", images=len(scored), **found_in,
        shares={
            "predicted": round(float(predicted.mean()), 3),
            "recorded": round(float(seen.mean()), 3),
            "correlation": round(float(np.corrcoef(predicted, seen)[0, 1]), 3),
        },
        gate={"holds": found_in["peaks"]["f1"][0] > found_in["old"]["f1"][0]},
    )  # fmt: skip


def on_model_grid(stored: np.ndarray) -> np.ndarray:
    """A stored density on the grid that the model computed. Rounding is smoothed away, and a few
    maxima: of 100 images 7.1 each are counted, where the exact densities had 7.6."""
    return to_size(stored, *(DEFAULT_FACTOR * side for side in stored.shape))


def recorded_shares(found: Places, points: Places) -> np.ndarray:
    """The share of the fixations around each peak, see `Peak.share`."""
    away = np.hypot(*(points[:, None] - found).transpose(2, 0, 1))
    near = away.min(1) <= DISTANCE
    return np.bincount(away.argmin(1)[near], minlength=len(found)) / len(points)


def sweep(
    density: np.ndarray, width: int, height: int
) -> Iterator[tuple[tuple[float, ...], Places]]:
    """Peaks by other thresholds: prominence, least height, distance."""
    for prominence, least_height in itertools.product(PROMINENCES, LEAST_HEIGHTS):
        cells = standing(density, prominence, least_height)
        cells = np.column_stack(np.unravel_index(cells, density.shape))
        places = on_image(cells, density.shape, width, height)
        for distance in DISTANCES:
            kept = places[apart(places, distance, len(places))]
            yield (prominence, least_height, distance), kept


def recorded(corpus: Corpus) -> dict[str, tuple[int, int, Places, np.ndarray]]:
    """Of each image its width, height, fixations and their viewers."""
    sides = {r["image_id"]: (r["width"], r["height"]) for r in corpus.images.to_pylist()}
    points = corpus.points()
    subjects = np.array(corpus.fixations["subject"].to_pylist())
    return {
        image_id: (*sides[image_id], points[image_id] / max(sides[image_id]), subjects[rows])
        for image_id, rows in corpus.rows_by_image().items()
    }


if __name__ == "__main__":
    main()
