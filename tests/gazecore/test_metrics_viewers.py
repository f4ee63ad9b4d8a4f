"""The gold standard's metrics against the same metrics of each viewer's density, one by one."""

import numpy as np
import pytest
from scipy.special import logsumexp

from gazecore.metrics.goldstandard import GoldStandard
from gazecore.metrics.judgement import judge
from gazecore.metrics.names import METRICS, PER_FIXATION, PER_IMAGE
from gazecore.metrics.nss import nss
from gazecore.metrics.recording import Recording
from gazecore.metrics.viewers import judge_viewers

SIZE = (60, 90)
SIGMA = 5.0
GOLD = GoldStandard(0.05, (0.8, 0.15, 0.05), ())


def prior() -> np.ndarray:
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    log = -(((x - 45) / 30) ** 2 + ((y - 30) / 20) ** 2) / 2
    return (log - logsumexp(log)).astype(np.float32)


def recording(viewers: int = 5, seed: int = 1) -> Recording:
    rng = np.random.default_rng(seed)
    points = rng.normal((50, 25), (12, 8), (viewers * 6, 2))
    points = np.clip(points, 0, np.array(SIZE[::-1]) - 1e-6)
    return Recording("a", *SIZE, points, np.repeat(np.arange(viewers) * 3, 6))


def elsewhere() -> np.ndarray:
    rng = np.random.default_rng(2)
    return np.floor(rng.random((400, 2)) * SIZE[::-1])


@pytest.mark.parametrize("over", ["centerbias", "uniform"])
def test_fixations_are_judged_by_the_density_of_the_other_viewers(over: str) -> None:
    seen = recording()
    baseline = None if over == "centerbias" else np.full(SIZE, -np.log(SIZE[0] * SIZE[1]))
    found = judge_viewers(GOLD, seen, prior(), elsewhere(), SIGMA, 30, PER_FIXATION, baseline)
    for viewer in np.unique(seen.subjects):
        own = seen.subjects == viewer
        density = GOLD.log_density(seen, prior(), subject=viewer)
        expected = judge(
            density, seen.points[own], prior(), elsewhere(), SIGMA, 30, PER_FIXATION, baseline
        )
        for name in PER_FIXATION:
            # The AUCs count pixels, of which rounding may put one on the other side.
            np.testing.assert_allclose(
                found.fixations[name][own], expected.fixations[name], rtol=1e-5, atol=3e-4
            )
    for name in PER_FIXATION:
        assert found.image[name] == pytest.approx(found.fixations[name].mean())


def test_maps_are_of_one_half_predicted_from_the_other() -> None:
    seen = recording()
    found = judge_viewers(GOLD, seen, prior(), elsewhere(), SIGMA, 30, METRICS)
    expected = []
    for judged in ([0, 6, 12], [3, 9]):
        own = np.isin(seen.subjects, judged)
        rest = Recording("a", *SIZE, seen.points[~own], seen.subjects[~own])
        density = GOLD.log_density(rest, prior())
        expected.append(
            judge(density, seen.points[own], prior(), elsewhere(), SIGMA, 15, PER_IMAGE).image
        )
    for name in PER_IMAGE:
        mean = np.mean([half[name] for half in expected])
        assert found.image[name] == pytest.approx(mean, rel=1e-4)


def test_maps_of_large_images_lose_nothing_on_fewer_pixels() -> None:
    seen, scale = recording(), 10
    size = (SIZE[0] * scale, SIZE[1] * scale)
    large = Recording("a", *size, seen.points * scale, seen.subjects)
    y, x = np.mgrid[: size[0], : size[1]] / scale
    log = -(((x - 45) / 30) ** 2 + ((y - 30) / 20) ** 2) / 2
    log_prior = (log - logsumexp(log)).astype(np.float32)
    found = judge_viewers(GOLD, large, log_prior, elsewhere(), SIGMA * scale, 30, PER_IMAGE)
    own = np.isin(large.subjects, [0, 6, 12])
    for judged in (own, ~own):
        rest = Recording("a", *size, large.points[~judged], large.subjects[~judged])
        half = judge(
            GOLD.log_density(rest, log_prior), large.points[judged], log_prior,
            elsewhere(), SIGMA * scale, 15, PER_IMAGE,
        )  # fmt: skip
        for name in PER_IMAGE:
            found.image[name] -= half.image[name] / 2
    assert max(map(abs, found.image.values())) < 2e-3


def test_one_viewer_alone_has_no_gold_standard() -> None:
    found = judge_viewers(GOLD, recording(1), prior(), elsewhere(), SIGMA, 30, METRICS)
    assert set(found.image) == set(METRICS)
    assert np.isnan(list(found.image.values())).all()
    assert np.isnan(found.fixations["auc"]).all()


def test_viewers_who_hardly_agree_have_an_nss() -> None:
    """A nearly uniform density, whose deviation is small against its mean."""
    flat, seen = GoldStandard(0.05, (1e-3, 1e-4, 1 - 1.1e-3), ()), recording()
    found = judge_viewers(flat, seen, prior(), elsewhere(), SIGMA, 30, ["nss"])
    own = seen.subjects == 3
    density = np.exp(flat.log_density(seen, prior(), subject=3))
    np.testing.assert_allclose(
        found.fixations["nss"][own], nss(density, seen.points[own]), rtol=1e-3
    )
