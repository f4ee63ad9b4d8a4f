"""What the gold standard reaches: how well people predict other people on the same image.

Metrics of single fixations are of each viewer, predicted from all the others. Metrics of a whole
map are of half of the viewers, predicted from the other half, as Judd, Durand & Torralba 2012
(MIT-CSAIL-TR-2012-001) compare people with people: the map of one viewer alone is too noisy to be
compared with anything.
"""

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from gazecore.density.resample import to_size
from gazecore.metrics.auc import at, shares_below
from gazecore.metrics.goldstandard import GoldStandard
from gazecore.metrics.judgement import PER_FIXATION, PER_IMAGE, Judgement, judge
from gazecore.metrics.kernels import fixation_map
from gazecore.metrics.nss import nss
from gazecore.metrics.recording import Recording

_MAP_SIDE = 512
"""Longer side on which maps are compared at most; 900 px and 512 px differ by less than 0.002."""


def judge_viewers(
    gold: GoldStandard,
    recording: Recording,
    log_centerbias: np.ndarray,
    nonfixations: np.ndarray,
    sigma: float,
    expected_fixations: int,
    metrics: Collection[str],
    log_baseline: np.ndarray | None = None,
) -> Judgement:
    """Judge the gold standard on an image; arguments and result are those of `judge`.

    Returns:
        NaN for the fixations of a viewer without others, and for maps where there is one viewer.
    """
    fixations: dict[str, np.ndarray] = {
        name: np.full(len(recording.points), np.nan) for name in PER_FIXATION if name in metrics
    }
    image: dict[str, float] = {name: np.nan for name in PER_IMAGE if name in metrics}
    viewers = np.unique(recording.subjects)
    if len(viewers) > 1:
        nats = gold.log_likelihoods(recording, log_centerbias)
        baseline = log_centerbias if log_baseline is None else log_baseline
        if "information_gain" in fixations:
            over = at(baseline, recording.points).astype(np.float64)
            fixations["information_gain"][:] = (nats - over) / np.log(2)
        if "log_likelihood" in fixations:
            fixations["log_likelihood"][:] = (nats + np.log(log_centerbias.size)) / np.log(2)
        if {"auc", "sauc", "nss"} & set(fixations):
            _viewer_by_viewer(gold, recording, log_centerbias, nonfixations, fixations)
        if image:
            halves = [
                _half(gold, recording, judged, log_centerbias, sigma, expected_fixations, image)
                for judged in (viewers[::2], viewers[1::2])
            ]
            image = {name: float(np.mean([half[name] for half in halves])) for name in image}
    means = {name: float(values.mean()) for name, values in fixations.items()}
    return Judgement(fixations, image | means)


def _viewer_by_viewer(
    gold: GoldStandard,
    recording: Recording,
    log_centerbias: np.ndarray,
    nonfixations: np.ndarray,
    fixations: dict[str, np.ndarray],
) -> None:
    """Fill in the AUCs and NSS of each viewer, from densities that are `gold.log_density`'s."""
    shape = (recording.height, recording.width)
    sigma = gold.bandwidth * max(shape)
    kernel, centre, uniform = gold.weights
    # The AUCs and NSS do not depend on a density's scale, which is left out.
    rest = centre * np.exp(log_centerbias) + np.float32(uniform / log_centerbias.size)
    everyone = fixation_map(recording.points, *shape, sigma, "reflect").astype(np.float32)
    prior = np.exp(log_centerbias)
    elsewhere = np.floor(nonfixations).astype(int)
    elsewhere_pixels = elsewhere[:, 1] * recording.width + elsewhere[:, 0]
    prior_elsewhere = prior.ravel()[elsewhere_pixels]
    for viewer in np.unique(recording.subjects):
        own = recording.subjects == viewer
        points = recording.points[own]
        others = len(own) - len(points)
        density = everyone - fixation_map(points, *shape, sigma, "reflect").astype(np.float32)
        density = density * np.float32(kernel / others) + rest
        if "auc" in fixations:
            fixations["auc"][own] = shares_below(at(density, points), density)
        if "sauc" in fixations:
            fixations["sauc"][own] = shares_below(
                at(density, points) / at(prior, points),
                density.ravel()[elsewhere_pixels] / prior_elsewhere,
            )
        if "nss" in fixations:
            fixations["nss"][own] = nss(density, points)


def _half(
    gold: GoldStandard,
    recording: Recording,
    judged: np.ndarray,
    log_centerbias: np.ndarray,
    sigma: float,
    expected_fixations: int,
    metrics: Collection[str],
) -> dict[str, float]:
    """Metrics of the map of some viewers, predicted from the rest."""
    scale = min(1.0, _MAP_SIDE / max(recording.height, recording.width))
    height, width = (max(1, round(side * scale)) for side in (recording.height, recording.width))
    shrink = (width / recording.width, height / recording.height)
    points = recording.points * shrink
    own = np.isin(recording.subjects, judged)
    rest = replace(
        recording,
        height=height,
        width=width,
        points=points[~own],
        subjects=recording.subjects[~own],
    )
    small = to_size(log_centerbias, height, width)
    found = judge(
        gold.log_density(rest, small),
        points[own],
        small,
        np.empty((0, 2)),
        sigma * scale,
        max(1, expected_fixations // 2),
        metrics,
    )
    return found.image
