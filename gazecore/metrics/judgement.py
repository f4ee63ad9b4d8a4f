"""All metrics of one density on one image, each on the saliency map that suits it.

The names of metrics are those of the evaluation's results.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from gazecore.metrics import saliency
from gazecore.metrics.auc import at, auc, auc_judd, count_below, shuffled_auc
from gazecore.metrics.kernels import fixation_map
from gazecore.metrics.likelihood import information_gain, log_likelihood_bits
from gazecore.metrics.maps import MIT_REGULARISATION, cc, kldiv, sim
from gazecore.metrics.names import METRICS
from gazecore.metrics.nss import nss


@dataclass(frozen=True)
class Judgement:
    """What a density reached on an image.

    Attributes:
        fixations: metric to float64 (n,), those of PER_FIXATION that were asked for.
        image: metric to value: the means of the above, and those of PER_IMAGE. NaN where there is
            nothing to compare with: nonfixations, or pixels without a fixation.
    """

    fixations: dict[str, np.ndarray]
    image: dict[str, float]


def judge(
    log_density: np.ndarray,
    points: np.ndarray,
    log_centerbias: np.ndarray,
    nonfixations: np.ndarray,
    sigma: float,
    expected_fixations: int = 100,
    metrics: Collection[str] = METRICS,
    log_baseline: np.ndarray | None = None,
    saliency_map: np.ndarray | None = None,
) -> Judgement:
    """Judge a density by the fixations on its image.

    Args:
        log_density: (height, width), natural logarithm, logsumexp 0.
        points: (n, 2), n >= 1, x and y in pixels.
        log_centerbias: (height, width), logsumexp 0, made without this image
            (`gazecore.metrics.baseline`): the density of nonfixations in the map for the shuffled
            AUC.
        nonfixations: (m, 2), fixations on other images (`gazecore.metrics.nonfixations`).
        sigma: of the empirical maps of CC, KLDiv and SIM, pixels.
        expected_fixations: on an image of this corpus, for the SIM map. Not this image's own
            number, which a prediction cannot know.
        metrics: which ones.
        log_baseline: (height, width), logsumexp 0, what information gain is over; by default the
            centre bias.
        saliency_map: (height, width), finite, of a model that has no density of its own: all but
            the likelihoods is computed on it as it is, as pysaliency's `SaliencyMapModel` does.

    Raises:
        ValueError: an unknown metric, or no fixation.
    """
    unknown = set(metrics) - set(METRICS)
    if unknown:
        raise ValueError(f"unknown metrics {sorted(unknown)}; there are {', '.join(METRICS)}")
    if not len(points):
        raise ValueError("an image without fixations cannot be judged")
    fixations: dict[str, np.ndarray] = {}
    image: dict[str, float] = {}
    if "information_gain" in metrics:
        baseline = log_centerbias if log_baseline is None else log_baseline
        fixations["information_gain"] = information_gain(log_density, baseline, points)
    if "log_likelihood" in metrics:
        fixations["log_likelihood"] = log_likelihood_bits(log_density, points)
    if {"auc", "auc_judd"} & set(metrics):
        ranked = log_density if saliency_map is None else saliency_map
        counts = count_below(at(ranked, points), ranked)
        if "auc" in metrics:
            fixations["auc"] = auc(ranked, points, counts)
        if "auc_judd" in metrics:
            unfixated = len(np.unique(np.floor(points), axis=0)) < ranked.size
            image["auc_judd"] = auc_judd(ranked, points, counts) if unfixated else np.nan
    if "sauc" in metrics:
        ratio = (
            saliency.for_shuffled_auc(log_density, log_centerbias)
            if saliency_map is None
            else saliency_map
        )
        fixations["sauc"] = (
            shuffled_auc(ratio, points, nonfixations)
            if len(nonfixations)
            else np.full(len(points), np.nan)
        )
    if {"nss", "cc", "kldiv", "sim"} & set(metrics):
        density = saliency.for_nss(log_density) if saliency_map is None else saliency_map
    if "nss" in metrics:
        fixations["nss"] = nss(density, points)
    if {"cc", "kldiv", "sim"} & set(metrics):
        empirical = fixation_map(points, density.shape[0], density.shape[1], sigma)
        smoothed = likest = density
        if saliency_map is None:
            if {"cc", "kldiv"} & set(metrics):
                smoothed = saliency.for_cc_and_kldiv(density, sigma)
            if "sim" in metrics:
                likest = saliency.for_sim(density, sigma, expected_fixations)
        if "cc" in metrics:
            image["cc"] = cc(smoothed, empirical)
        if "kldiv" in metrics:
            image["kldiv"] = kldiv(smoothed, empirical, 0, MIT_REGULARISATION)
        if "sim" in metrics:
            image["sim"] = sim(likest, empirical)
    image |= {name: float(values.mean()) for name, values in fixations.items()}
    return Judgement(fixations, image)
