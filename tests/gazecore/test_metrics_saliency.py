"""Saliency maps for each metric, and all metrics of an image together."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.special import logsumexp

from gazecore.metrics import saliency
from gazecore.metrics.auc import auc, auc_judd, shuffled_auc
from gazecore.metrics.judgement import judge
from gazecore.metrics.kernels import fixation_map
from gazecore.metrics.maps import cc, kldiv, sim
from gazecore.metrics.names import METRICS, PER_FIXATION
from gazecore.metrics.nss import nss

HEIGHT, WIDTH, SIGMA = 48, 64, 4.0


def blobs(seed: int, strength: float = 40) -> np.ndarray:
    """A log density with several peaks."""
    rng = np.random.default_rng(seed)
    field = gaussian_filter(rng.normal(size=(HEIGHT, WIDTH)), 4) * strength
    return field - logsumexp(field)


def look(log_density: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Fixations drawn from a density."""
    cells = rng.choice(log_density.size, size=count, p=np.exp(log_density).ravel())
    y, x = np.unravel_index(cells, log_density.shape)
    return np.column_stack([x, y]) + rng.random((count, 2))


@pytest.mark.parametrize("count", [10, 100])
def test_the_sim_map_is_as_good_as_the_one_found_by_sampling(count: int) -> None:
    log_density = blobs(1)
    density, rng = np.exp(log_density), np.random.default_rng(2)

    def empirical() -> np.ndarray:
        found = fixation_map(look(log_density, count, rng), HEIGHT, WIDTH, SIGMA)
        return found / found.sum()

    # The best map by definition: one quantile everywhere, of many maps, that sums to one.
    samples = np.sort([empirical() for _ in range(400)], axis=0)
    best = samples[np.abs(samples.sum(axis=(1, 2)) - 1).argmin()]
    maps = {
        "ours": saliency.for_sim(density, SIGMA, count),
        "sampled": best,
        "smoothed": saliency.for_cc_and_kldiv(density, SIGMA),
        "density": density,
    }
    assert maps["ours"].sum() == pytest.approx(1)
    assert maps["ours"].min() >= 0
    fresh = [empirical() for _ in range(200)]
    reached = {name: np.mean([sim(m, e) for e in fresh]) for name, m in maps.items()}
    assert reached["ours"] > reached["sampled"] - 0.004
    assert reached["ours"] > reached["smoothed"] + 0.001
    assert reached["smoothed"] > reached["density"]


def test_each_metric_prefers_its_own_map() -> None:
    prior, rng = blobs(7, 25), np.random.default_rng(3)
    prior = prior[::-1]
    joint = blobs(1) + prior
    log_density = joint - logsumexp(joint)
    points, elsewhere = look(log_density, 4000, rng), look(prior, 4000, rng)
    density = saliency.for_nss(log_density)
    smoothed = saliency.for_cc_and_kldiv(density, SIGMA)
    ratio = saliency.for_shuffled_auc(log_density, prior)
    empirical = fixation_map(points, HEIGHT, WIDTH, SIGMA)
    assert nss(density, points).mean() > nss(smoothed, points).mean()
    assert nss(density, points).mean() > nss(log_density, points).mean()
    assert auc(density, points).mean() > auc(ratio, points).mean()
    assert (
        shuffled_auc(ratio, points, elsewhere).mean()
        > shuffled_auc(density, points, elsewhere).mean()
    )
    assert cc(smoothed, empirical) > cc(density, empirical)
    assert kldiv(smoothed, empirical) < kldiv(density, empirical)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (3, 2)])
@pytest.mark.parametrize("sigma", [0.5, 35.0])
def test_maps_of_tiny_images(shape: tuple[int, int], sigma: float) -> None:
    density = np.full(shape, 1 / np.prod(shape))
    found = saliency.for_sim(density, sigma)
    assert found.shape == shape
    assert found.sum() == pytest.approx(1)
    assert np.isfinite(saliency.for_cc_and_kldiv(density, sigma)).all()


def test_a_density_of_one_pixel_and_wrong_arguments() -> None:
    density = np.zeros((40, 50))
    density[7, 9] = 1
    found = saliency.for_sim(density, 3.0)
    assert np.unravel_index(found.argmax(), found.shape) == pytest.approx((7, 9), abs=1)
    assert sim(found, fixation_map(np.array([[9, 7]]), 40, 50, 3.0)) > 0.9
    assert saliency.for_sim(np.exp(blobs(1)), 2.0, fixations=1).sum() == pytest.approx(1)
    with pytest.raises(ValueError, match="sigma"):
        saliency.for_sim(density, 0.0)
    with pytest.raises(ValueError, match="at least one fixation"):
        saliency.for_sim(density, 3.0, 0)


def test_judging_is_the_metrics_one_by_one() -> None:
    rng = np.random.default_rng(5)
    log_density, prior = blobs(1), blobs(2, 10)
    points, elsewhere = look(log_density, 30, rng), look(prior, 300, rng)
    found = judge(log_density, points, prior, elsewhere, SIGMA)
    density = np.exp(log_density)
    empirical = fixation_map(points, HEIGHT, WIDTH, SIGMA)
    smoothed = gaussian_filter(density, SIGMA, mode="constant")
    assert set(found.image) == set(METRICS)
    assert set(found.fixations) == set(PER_FIXATION)
    np.testing.assert_allclose(found.fixations["auc"], auc(density, points))
    expected = shuffled_auc(log_density - prior, points, elsewhere)
    np.testing.assert_allclose(found.fixations["sauc"], expected)
    assert found.image["nss"] == pytest.approx(nss(density, points).mean())
    assert found.image["auc_judd"] == pytest.approx(auc_judd(density, points))
    assert found.image["cc"] == pytest.approx(cc(smoothed, empirical))
    assert found.image["kldiv"] == pytest.approx(
        kldiv(smoothed, empirical, 0, 2.2204e-16), rel=1e-9
    )
    x, y = np.floor(points).astype(int).T
    gains = (log_density - prior)[y, x] / np.log(2)
    np.testing.assert_allclose(found.fixations["information_gain"], gains)
    for name in METRICS:
        one = judge(log_density, points, prior, elsewhere, SIGMA, metrics=[name])
        assert one.image == {name: found.image[name]}


def test_judging_says_what_is_wrong() -> None:
    log_density = blobs(1)
    arguments = (log_density, np.array([[1.0, 1.0]]), log_density, np.empty((0, 2)), SIGMA)
    with pytest.raises(ValueError, match=r"\['speed'\]; there are information_gain"):
        judge(*arguments, metrics=["speed"])
    assert np.isnan(judge(*arguments).image["sauc"])
    with pytest.raises(ValueError, match="without fixations"):
        judge(log_density, np.empty((0, 2)), log_density, np.empty((0, 2)), SIGMA)
