"""Every metric against pysaliency's, on random maps and on recorded fixations."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.special import logsumexp

from gazecore.corpus.osie import read_osie
from gazecore.density.resample import to_size
from gazecore.metrics.auc import auc, auc_judd, shuffled_auc
from gazecore.metrics.kernels import fixation_map, smooth
from gazecore.metrics.likelihood import information_gain, log_likelihood_bits
from gazecore.metrics.maps import MIT_REGULARISATION, cc, kldiv, sim
from gazecore.metrics.nonfixations import Nonfixations
from gazecore.metrics.nss import nss
from tests.gazecore import oracle

pysaliency = oracle.load()
from pysaliency import metrics as theirs  # noqa: E402

# pysaliency's own warnings (deprecations, 0 / 0 on constant maps) are not ours to fix.
pytestmark = pytest.mark.filterwarnings("ignore")

CLOSE = {"rtol": 1e-9, "atol": 1e-12}
COARSE = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def maps(draw: st.DrawFn, shape: tuple[int, int] | None = None) -> np.ndarray:
    """Maps without ties, with many, constant, nearly so, very steep, or a peak on zeros."""
    height, width = shape or draw(st.tuples(st.integers(1, 24), st.integers(2, 24)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["smooth", "ties", "constant", "flat", "steep", "peak"]))
    if kind == "smooth":
        return rng.gamma(0.5, size=(height, width)) + 1e-9
    if kind == "ties":
        return rng.integers(0, 4, (height, width)) / 4
    if kind == "constant":
        # Those that binary fractions cannot hold leave rounding errors as their deviation.
        values = [0.0, 0.1, 0.125, 1 / (height * width), rng.random(), 1.0, 255.0]
        return np.full((height, width), draw(st.sampled_from(values)))
    if kind == "flat":
        return 1 + rng.random((height, width)) * 1e-12
    if kind == "steep":
        return rng.random((height, width)) ** 30
    peak = np.zeros((height, width))
    peak[rng.integers(height), rng.integers(width)] = 1
    return peak


@st.composite
def fixations(draw: st.DrawFn, height: int, width: int) -> np.ndarray:
    """Some points; one alone, duplicates and borders are as likely as anything else."""
    count = draw(st.sampled_from([1, 2, 5, 12, 90]))  # beyond 32, areas are counted in bins
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    points = rng.random((count, 2)) * (width, height)
    if draw(st.booleans()):
        points[rng.integers(count, size=count // 2)] = points[0]
    if draw(st.booleans()):
        # Not nearer to the far edge: pysaliency rounds such a nonfixation out of the image.
        below = np.array([width, height]) - 1e-6
        points[: count // 2 + 1] = rng.integers(0, 2, (count // 2 + 1, 2)) * below
    return points


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Maps of two or three images of different sizes, and their fixations."""
    found = [draw(maps()) for _ in range(draw(st.integers(2, 3)))]
    return found, [draw(fixations(*m.shape)) for m in found]


def log_density(map_: np.ndarray) -> np.ndarray:
    floored = np.log(map_ + 1e-6)
    return floored - logsumexp(floored)


@COARSE
@given(cases())
def test_areas_and_nss(case: tuple[list[np.ndarray], list[np.ndarray]]) -> None:
    saliency, points = case
    stimuli, recorded = oracle.dataset(points, [m.shape for m in saliency])
    model = oracle.saliency_model(stimuli, saliency)
    others = Nonfixations(points, [m.shape for m in saliency])
    ours = [auc(m, p) for m, p in zip(saliency, points, strict=True)]
    np.testing.assert_allclose(
        np.concatenate(ours), model.AUCs(stimuli, recorded, nonfixations="uniform"), **CLOSE
    )
    shuffled = [
        shuffled_auc(m, p, others.of_image(i))
        for i, (m, p) in enumerate(zip(saliency, points, strict=True))
    ]
    np.testing.assert_allclose(
        np.concatenate(shuffled), model.AUCs(stimuli, recorded, nonfixations="shuffled"), **CLOSE
    )
    expected = model.NSSs(stimuli, recorded)
    for i, (map_, at) in enumerate(zip(saliency, points, strict=True)):
        found = nss(map_, at)
        if np.ptp(map_) == 0:
            assert not found.any()  # pysaliency's is 1 or -1 where its deviation is of rounding
        else:
            # Of a map that hardly varies, rounding takes a part of pysaliency's mean.
            share = np.finfo(float).eps * abs(map_).max() / map_.std()
            np.testing.assert_allclose(
                found, expected[recorded.n == i], **CLOSE | {"atol": max(1e-12, 8 * share)}
            )


@COARSE
@given(cases())
def test_auc_judd(case: tuple[list[np.ndarray], list[np.ndarray]]) -> None:
    saliency, points = case
    for map_, at in zip(saliency, points, strict=True):
        assume(len(np.unique(np.floor(at), axis=0)) < map_.size)
    stimuli, recorded = oracle.dataset(points, [m.shape for m in saliency])
    model = oracle.saliency_model(stimuli, saliency)
    ours = [auc_judd(m, p) for m, p in zip(saliency, points, strict=True)]
    expected = model.AUC_per_image(
        stimuli, recorded, nonfixations="unfixated", thresholds="fixations"
    )
    np.testing.assert_allclose(ours, expected, **CLOSE)
    np.testing.assert_allclose(
        np.mean(ours), model.AUC_Judd(stimuli, recorded, jitter=False), **CLOSE
    )
    # The jittered form is ours on the jittered map: the noise is the map's, not the metric's.
    noise = np.random.RandomState(seed=42)
    jittered = [m + noise.randn(*m.shape) * 1e-7 for m in saliency]
    ours = [auc_judd(m, p) for m, p in zip(jittered, points, strict=True)]
    np.testing.assert_allclose(np.mean(ours), model.AUC_Judd(stimuli, recorded), **CLOSE)


@COARSE
@given(cases())
def test_likelihoods(case: tuple[list[np.ndarray], list[np.ndarray]]) -> None:
    saliency, points = case
    stimuli, recorded = oracle.dataset(points, [m.shape for m in saliency])
    log_densities = [log_density(m) for m in saliency]
    baselines = [log_density(m.max() - m) for m in saliency]
    model = oracle.density_model(stimuli, log_densities)
    baseline = oracle.density_model(stimuli, baselines)
    ours = [log_likelihood_bits(d, p) for d, p in zip(log_densities, points, strict=True)]
    np.testing.assert_allclose(
        np.concatenate(ours), model.information_gains(stimuli, recorded), **CLOSE
    )
    ours = [
        information_gain(d, b, p) for d, b, p in zip(log_densities, baselines, points, strict=True)
    ]
    np.testing.assert_allclose(
        np.concatenate(ours), model.information_gains(stimuli, recorded, baseline), **CLOSE
    )


@COARSE
@given(st.data(), maps(), st.floats(0.3, 9), st.sampled_from(["constant", "reflect"]))
def test_map_metrics(data: st.DataObject, saliency: np.ndarray, sigma: float, border) -> None:
    points = data.draw(fixations(*saliency.shape))
    stimuli, recorded = oracle.dataset([points], [saliency.shape])
    expected_map = pysaliency.FixationMap(
        stimuli, recorded, kernel_size=sigma, convolution_mode=border
    ).saliency_map(stimuli[0])
    empirical = fixation_map(points, *saliency.shape, sigma, border)
    np.testing.assert_allclose(empirical, expected_map, **CLOSE)
    for first, second in ((saliency, empirical), (saliency - 0.5, empirical)):
        np.testing.assert_allclose(cc(first, second), theirs.CC(first, second), **CLOSE)
        np.testing.assert_allclose(sim(first, second), theirs.SIM(first, second), **CLOSE)
        np.testing.assert_allclose(
            kldiv(first, second), theirs.image_based_kl_divergence(first, second), **CLOSE
        )
        np.testing.assert_allclose(
            kldiv(first, second, minimum=0, regularisation=MIT_REGULARISATION),
            theirs.MIT_KLDiv(first, second),
            **CLOSE,
        )


@COARSE
@given(maps(), st.floats(0.3, 9))
def test_smoothing_is_scipys(map_: np.ndarray, sigma: float) -> None:
    np.testing.assert_allclose(
        smooth(map_, sigma),
        gaussian_filter(map_, sigma, mode="constant"),
        rtol=0,
        atol=1e-14 * max(map_.max(), 1e-300) * 10,
    )


@pytest.mark.corpora
def test_recorded_fixations(shared: Path) -> None:
    """All metrics on 50 images of MIT1003, with smooth densities that are not made from them."""
    corpus = read_osie(str(shared / "mit1003"))
    chosen = corpus.images.to_pylist()[:1000:20]
    sizes = [(row["height"], row["width"]) for row in chosen]
    points = [corpus.points()[row["image_id"]] for row in chosen]
    rng = np.random.default_rng(1)
    log_densities = [
        to_size(gaussian_filter(rng.normal(size=(24, 32)), 1) * 5, *size).astype(np.float64)
        for size in sizes
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stimuli, recorded = oracle.dataset(points, sizes)
        density = oracle.density_model(stimuli, log_densities)
        model = oracle.saliency_model(stimuli, [np.exp(d) for d in log_densities])
        empirical = pysaliency.FixationMap(
            stimuli, recorded, kernel_size=35, convolution_mode="constant"
        )
        expected = {
            "bits": density.information_gains(stimuli, recorded),
            "auc": model.AUCs(stimuli, recorded),
            "sauc": model.AUCs(stimuli, recorded, nonfixations="shuffled"),
            "nss": model.NSSs(stimuli, recorded),
            "judd": model.AUC_per_image(
                stimuli, recorded, nonfixations="unfixated", thresholds="fixations"
            ),
            "cc": model.CCs(stimuli, empirical),
            "sim": model.SIMs(stimuli, empirical),
            "kldiv": model.KLDivs(stimuli, empirical),
        }
    others = Nonfixations(points, sizes)
    for i, (log_p, at, size) in enumerate(zip(log_densities, points, sizes, strict=True)):
        p, smoothed = np.exp(log_p), fixation_map(at, *size, 35)
        on_image = recorded.n == i
        ours = {
            "bits": log_likelihood_bits(log_p, at),
            "auc": auc(log_p, at),
            "sauc": shuffled_auc(log_p, at, others.of_image(i)),
            "nss": nss(p, at),
        }
        for name, values in ours.items():
            np.testing.assert_allclose(values, expected[name][on_image], err_msg=name, **CLOSE)
        per_image = {
            "judd": auc_judd(log_p, at),
            "cc": cc(p, smoothed),
            "sim": sim(p, smoothed),
            "kldiv": kldiv(p, smoothed),
        }
        for name, value in per_image.items():
            np.testing.assert_allclose(value, expected[name][i], err_msg=name, **CLOSE)
