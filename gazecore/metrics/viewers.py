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
from gazecore.metrics.judgement import Judgement, judge
from gazecore.metrics.kernels import kernel_rows
from gazecore.metrics.names import PER_FIXATION, PER_IMAGE
from gazecore.metrics.nss import nss
from gazecore.metrics.recording import Recording

MAP_SIDE = 384
"""Longer side at most of the maps that are made of each viewer and half, of which there are many.
Likelihoods are read at the image's own resolution."""


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
        scale = min(1.0, MAP_SIDE / max(recording.height, recording.width))
        small = _scaled(recording, scale)
        shrink = (small.width / recording.width, small.height / recording.height)
        prior = to_size(log_centerbias, small.height, small.width)
        if {"auc", "sauc", "nss"} & set(fixations):
            _viewer_by_viewer(gold, small, prior, nonfixations * shrink, fixations)
        if image:
            halves = [
                _half(gold, small, judged, prior, sigma * scale, expected_fixations, image)
                for judged in (viewers[::2], viewers[1::2])
            ]
            image = {name: float(np.mean([half[name] for half in halves])) for name in image}
    means = {name: float(values.mean()) for name, values in fixations.items()}
    return Judgement(fixations, image | means)


def _scaled(recording: Recording, scale: float) -> Recording:
    if scale == 1:
        return recording
    height, width = (max(1, round(side * scale)) for side in (recording.height, recording.width))
    # The centre of the fixated pixel, so that rounding does not move fixations to one side.
    points = np.floor(recording.points) + 0.5
    points = points * (width / recording.width, height / recording.height)
    return replace(recording, height=height, width=width, points=points)


def _viewer_by_viewer(
    gold: GoldStandard,
    recording: Recording,
    log_centerbias: np.ndarray,
    nonfixations: np.ndarray,
    fixations: dict[str, np.ndarray],
) -> None:
    """Fill in the AUCs and NSS of each viewer, from densities that are `gold.log_density`'s."""
    shape = (recording.height, recording.width)
    kernel, centre, uniform = gold.weights
    x, y = np.floor(recording.points).astype(int).T
    down, across = (
        kernel_rows(positions, side, gold.bandwidth * max(shape)).astype(np.float32)
        for positions, side in zip((y, x), shape, strict=True)
    )
    prior = np.exp(log_centerbias)
    rest = centre * prior + np.float32(uniform / prior.size)
    elsewhere = np.floor(nonfixations).astype(int) @ (1, recording.width)
    prior_elsewhere = prior.ravel()[elsewhere]
    density = np.empty(shape, dtype=np.float32)  # one for all: fresh memory costs more than sums
    for viewer in np.unique(recording.subjects):
        own = recording.subjects == viewer
        points = recording.points[own]
        np.matmul((down[~own] * np.float32(kernel / (~own).sum())).T, across[~own], out=density)
        density += rest
        if "auc" in fixations:
            fixations["auc"][own] = shares_below(at(density, points), density)
        if "sauc" in fixations and len(elsewhere):
            fixations["sauc"][own] = shares_below(
                at(density, points) / at(prior, points),
                density.ravel()[elsewhere] / prior_elsewhere,
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
    own = np.isin(recording.subjects, judged)
    rest = replace(recording, points=recording.points[~own], subjects=recording.subjects[~own])
    return judge(
        gold.log_density(rest, log_centerbias),
        recording.points[own],
        log_centerbias,
        np.empty((0, 2)),
        sigma,
        max(1, expected_fixations // 2),
        metrics,
    ).image
