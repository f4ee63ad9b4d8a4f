"""The metrics against pysaliency's, on the same densities, one thread each.

For each metric: seconds of both, their ratio, and the largest difference of a value. Both get the
densities at full resolution in memory, and make from them the map that the metric wants; the SIM
map, which pysaliency climbs to by stochastic gradients, is ours on both sides, and its making is
counted on ours alone. Baselines and empirical maps are part of the metrics that need them.

    python -m benchmarks.metrics CORPUS RUN [--limit 100]
"""

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter
from threadpoolctl import threadpool_limits

from benchmarks.environment import report
from gazecore.corpus.schema import load_corpus
from gazecore.density.resample import to_size
from gazecore.evaluation.densities import Densities
from gazecore.metrics import saliency
from gazecore.metrics.baseline import LeaveOneOutCenterbias
from gazecore.metrics.judgement import judge
from gazecore.metrics.maps import MIT_REGULARISATION
from gazecore.metrics.names import METRICS
from gazecore.metrics.nonfixations import Nonfixations
from gazecore.metrics.recording import recordings
from tests.gazecore import oracle

SIGMA, EXPECTED = 35.0, 100
LARGEST_DIFFERENCE = 1e-9


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus")
    parser.add_argument("run")
    parser.add_argument("--limit", type=int, default=100)
    arguments = parser.parse_args()
    corpus = load_corpus(arguments.corpus)
    every = max(1, len(corpus.image_ids) // arguments.limit)
    chosen = corpus.image_ids[::every][: arguments.limit]
    densities = Densities(corpus, chosen, arguments.run, "centerbias")
    seen = recordings(corpus, densities.images)
    sizes = [(r.height, r.width) for r in seen]
    maps = [
        to_size(log_density, *size).astype(np.float64)
        for (_, log_density, _), size in zip(densities, sizes, strict=True)
    ]
    prior = LeaveOneOutCenterbias(seen)
    centre = [prior.log_density(r.image_id, *size) for r, size in zip(seen, sizes, strict=True)]
    others = Nonfixations([r.points for r in seen], sizes)

    def ours(metric: str) -> np.ndarray:
        return np.array([
            judge(
                maps[i], seen[i].points, centre[i],
                others.of_image(i) if metric == "sauc" else np.empty((0, 2)),
                SIGMA, EXPECTED, [metric],
            ).image[metric]
            for i in range(len(seen))
        ])  # fmt: skip

    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        theirs = pysaliency_metrics([r.points for r in seen], sizes, maps, centre)
        found: dict[str, Any] = {}
        for metric in METRICS:
            (mine, own), (value, other) = timed(lambda: ours(metric)), timed(theirs[metric])  # noqa: B023
            difference = np.abs(mine - value).max() if np.ndim(value) else abs(mine.mean() - value)
            found[metric] = {
                "gazecore_seconds": own, "pysaliency_seconds": other, "ratio": other / own,
                "largest_difference": float(difference),
            }  # fmt: skip
    total = [sum(f[f"{who}_seconds"] for f in found.values()) for who in ("pysaliency", "gazecore")]
    worst = max(f["largest_difference"] for f in found.values())
    report(
        "metrics", images=len(seen), fixations=sum(len(r.points) for r in seen), metrics=found,
        ratio=total[0] / total[1], gate={"holds": worst <= LARGEST_DIFFERENCE},
    )  # fmt: skip


def pysaliency_metrics(
    points: list[np.ndarray],
    sizes: list[tuple[int, int]],
    maps: list[np.ndarray],
    centre: list[np.ndarray],
) -> dict[str, Callable[[], Any]]:
    """What computes each metric with pysaliency: a value for each image, or their mean."""
    pysaliency = oracle.load()
    stimuli, recorded = oracle.dataset(points, sizes)
    counts = [len(p) for p in points]
    model = oracle.density_model(stimuli, maps)
    baseline = oracle.density_model(stimuli, centre)
    density = Lazy(lambda i: np.exp(maps[i]))
    smoothed = Lazy(lambda i: gaussian_filter(density[i], SIGMA, mode="constant"))
    ratio = Lazy(lambda i: maps[i] - centre[i])
    sim_maps = [saliency.for_sim(density[i], SIGMA, EXPECTED) for i in range(len(maps))]

    def of(source: Any) -> Any:
        return oracle.saliency_model(stimuli, source)

    def empirical() -> Any:
        return pysaliency.FixationMap(
            stimuli, recorded, kernel_size=SIGMA, convolution_mode="constant"
        )

    def per_image(values: np.ndarray) -> np.ndarray:
        return np.array([part.mean() for part in np.split(values, np.cumsum(counts)[:-1])])

    constants = {
        "minimum_value": 0,
        "log_regularization": MIT_REGULARISATION,
        "quotient_regularization": MIT_REGULARISATION,
    }
    return {
        "information_gain": lambda: per_image(
            model.information_gains(stimuli, recorded, baseline_model=baseline)
        ),
        "log_likelihood": lambda: (
            per_image(
                model.log_likelihoods(stimuli, recorded)
                + np.repeat([np.log(h * w) for h, w in sizes], counts)
            )
            / np.log(2)
        ),
        "auc": lambda: per_image(of(maps).AUCs(stimuli, recorded, nonfixations="uniform")),
        "auc_judd": lambda: of(maps).AUC_Judd(stimuli, recorded, jitter=False),
        "sauc": lambda: per_image(of(ratio).AUCs(stimuli, recorded, nonfixations="shuffled")),
        "nss": lambda: per_image(of(density).NSSs(stimuli, recorded)),
        "cc": lambda: np.array(of(smoothed).CCs(stimuli, empirical())),
        "kldiv": lambda: np.array(
            of(smoothed).image_based_kl_divergences(stimuli, empirical(), **constants)
        ),
        "sim": lambda: np.array(of(sim_maps).SIMs(stimuli, empirical())),
    }


class Lazy:
    """Maps that are made when they are asked for, so that making them is part of the metric."""

    def __init__(self, make: Callable[[int], np.ndarray]) -> None:
        self._make = make

    def __getitem__(self, index: int) -> np.ndarray:
        return self._make(index)


def timed(act: Callable[[], Any]) -> tuple[Any, float]:
    """What `act` returns, and its seconds."""
    started = time.perf_counter()
    found = act()
    return found, time.perf_counter() - started


if __name__ == "__main__":
    main()
