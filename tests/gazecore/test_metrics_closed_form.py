"""Metrics and intervals on toy maps whose values are known."""

import numpy as np
import pytest

from gazecore.metrics import bootstrap
from gazecore.metrics.auc import auc, auc_judd, shuffled_auc
from gazecore.metrics.baseline import LeaveOneOutCenterbias
from gazecore.metrics.judgement import judge
from gazecore.metrics.kernels import fixation_map, kernel_rows, smooth
from gazecore.metrics.likelihood import information_gain, log_likelihood_bits
from gazecore.metrics.maps import MIT_REGULARISATION, cc, kldiv, sim, to_density
from gazecore.metrics.nonfixations import Nonfixations
from gazecore.metrics.nss import nss
from gazecore.metrics.recording import Recording

MAP = np.array([[1.0, 2.0], [3.0, 4.0]])
TOP = np.array([[1.9, 1.9]])  # x, y: the pixel of the 4
LOW = np.array([[0.0, 0.0]])


def test_areas_of_four_pixels() -> None:
    assert auc(MAP, TOP) == pytest.approx([3.5 / 4])
    assert auc(MAP, LOW) == pytest.approx([0.5 / 4])
    assert auc(np.ones((5, 7)), LOW) == pytest.approx([0.5])
    assert auc_judd(MAP, TOP) == 1
    # The lowest pixel is the only threshold: the curve is the diagonal, not the worst one.
    assert auc_judd(MAP, LOW) == 0.5
    # Thresholds 4 and 1; unfixated pixels 2 and 3: through (0, 1/2), (1, 1).
    assert auc_judd(MAP, np.concatenate([TOP, LOW])) == pytest.approx(0.75)
    assert auc_judd(np.ones((2, 2)), TOP) == 0.5


def test_shuffled_area() -> None:
    assert shuffled_auc(MAP, TOP, LOW) == pytest.approx([1])
    assert shuffled_auc(MAP, TOP, np.concatenate([LOW, TOP])) == pytest.approx([0.75])
    with pytest.raises(ValueError, match="other images"):
        shuffled_auc(MAP, TOP, np.empty((0, 2)))


def test_judd_needs_both_kinds_of_pixels() -> None:
    with pytest.raises(ValueError, match="unfixated"):
        auc_judd(np.ones((1, 1)), LOW)
    with pytest.raises(ValueError, match="fixated"):
        auc_judd(MAP, np.empty((0, 2)))


def test_nonfixations_are_scaled_and_leave_the_image_out() -> None:
    others = Nonfixations([np.array([[3.9, 1.0]]), np.array([[1.0, 3.0]])], [(4, 4), (8, 2)])
    assert others.of_image(0).tolist() == [[2, 1]]
    assert others.of_image(1).tolist() == [[1, 2]]


def test_nonfixation_at_the_far_edge_stays_inside() -> None:
    edge = np.nextafter(5, 0)
    others = Nonfixations([np.empty((0, 2)), np.array([[edge, edge]])], [(17, 17), (5, 5)])
    assert others.of_image(0).tolist() == [[16, 16]]


def test_nss_and_likelihood() -> None:
    assert nss(MAP, TOP) == pytest.approx([1.5 / np.std([1, 2, 3, 4])])
    assert nss(np.ones((3, 3)), TOP).tolist() == [0]
    density = MAP / MAP.sum()
    assert log_likelihood_bits(np.log(density), TOP) == pytest.approx([np.log2(0.4 * 4)])
    baseline = np.log(density[::-1, ::-1])
    assert information_gain(np.log(density), baseline, TOP) == pytest.approx([2])


SIZES = [
    (1, 1), (1, 7), (2, 3), (54, 64), (48, 64), (102, 1024), (480, 640), (600, 800), (768, 1024),
    (333, 777), (1000, 1000), (1024, 1280),
]  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
def test_a_uniform_density_is_at_chance_at_every_size(size: tuple[int, int]) -> None:
    rng, (height, width) = np.random.default_rng(sum(size)), size
    points = rng.random((sum(size) % 40 + 1, 2)) * (width, height)
    elsewhere = rng.random((50, 2)) * (width, height)
    for kind in (np.float32, np.float64):
        log_density = np.full(size, -np.log(height * width), dtype=kind)
        found = judge(log_density, points, log_density, elsewhere, 35.0)
        assert not found.fixations["nss"].any()
        assert not found.fixations["information_gain"].any()
        assert found.image["log_likelihood"] == pytest.approx(0, abs=2e-6)
        assert set(found.fixations["auc"]) == set(found.fixations["sauc"]) == {0.5}
        if len(np.unique(np.floor(points), axis=0)) < log_density.size:
            assert found.image["auc_judd"] == 0.5
    # The centre bias of a corpus of one image is made from no fixation at all.
    alone = LeaveOneOutCenterbias([Recording("a", height, width, points, np.zeros(len(points)))])
    found = judge(alone.log_density("a", height, width), points, log_density, elsewhere, 35.0)
    assert not found.fixations["nss"].any()
    assert set(found.fixations["auc"]) == {0.5}


@pytest.mark.parametrize("size", SIZES[1:])
@pytest.mark.parametrize("value", [0.1, 1 / 3, -7e-5, 1e-300, 255.0, 1e300, "share"])
def test_constant_maps_say_nothing_whatever_the_constant(
    size: tuple[int, int], value: float | str
) -> None:
    count = size[0] * size[1]
    constant = np.full(size, 1 / count if value == "share" else value)
    points = np.random.default_rng(1).random((9, 2)) * size[::-1]
    empirical = fixation_map(points[:3], *size, 2.0)
    q = empirical / empirical.sum()
    assert not nss(constant, points).any()
    assert set(auc(constant, points)) == set(shuffled_auc(constant, points, points)) == {0.5}
    assert cc(constant, empirical) == 0
    assert np.isnan(cc(empirical, constant))
    assert sim(constant, empirical) == pytest.approx(np.minimum(q, 1 / count).sum())
    known = q[q > 0]
    expected = np.log(count) + known @ np.log(known)
    assert kldiv(constant, empirical, 0, MIT_REGULARISATION) == pytest.approx(expected, abs=1e-6)
    assert np.ptp(smooth(abs(constant), 0.1)) == 0  # a kernel of one pixel


def test_a_map_that_hardly_varies_is_judged_by_how_it_varies() -> None:
    rng = np.random.default_rng(2)
    steps = rng.integers(0, 9, (60, 80))
    points = rng.random((30, 2)) * (80, 60)
    for base in (1.0, 1e-6, 300.0):
        hardly = base + steps * np.spacing(base)  # the smallest differences that there are
        np.testing.assert_allclose(nss(hardly, points), nss(steps, points), rtol=1e-12, atol=1e-12)
        assert cc(hardly, steps) == pytest.approx(1, abs=1e-12)
        assert (auc(hardly, points) == auc(steps, points)).all()


def test_map_metrics() -> None:
    assert cc(MAP, 3 * MAP + 1) == pytest.approx(1)
    assert cc(MAP, -MAP) == pytest.approx(-1)
    assert cc(np.ones((2, 2)), MAP) == 0
    assert np.isnan(cc(MAP, np.ones((2, 2))))
    assert sim(MAP, 7 * MAP) == pytest.approx(1)
    assert sim(np.eye(2), 1 - np.eye(2)) == 0
    assert kldiv(np.ones((2, 2)), np.eye(2)) == pytest.approx(np.log(2))
    assert kldiv(np.eye(2), np.ones((2, 2)), minimum=0) == np.inf
    assert to_density(np.zeros((2, 5))).tolist() == np.full((2, 5), 0.1).tolist()


def test_kernels_lose_mass_only_beyond_a_constant_border() -> None:
    assert kernel_rows(np.arange(5), 5, 3.0, "reflect").sum(axis=1) == pytest.approx(np.ones(5))
    middle = fixation_map(np.array([[50.5, 50.5]]), 101, 101, 5.0, "constant")
    assert middle.sum() == pytest.approx(1)
    corner = fixation_map(np.array([[0.5, 0.5]]), 101, 101, 5.0, "constant")
    peak = kernel_rows(np.array([50]), 101, 5.0)[0, 50]
    assert corner.sum() == pytest.approx(((1 + peak) / 2) ** 2)
    with pytest.raises(ValueError, match="sigma"):
        fixation_map(TOP, 4, 4, 0.0)


def test_interval_of_normal_values() -> None:
    values = np.random.default_rng(0).normal(2, 1, 400)
    found = bootstrap.average(values, seed=1)
    error = values.std() / 20
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)
    assert found == bootstrap.average(values, seed=1)
    assert found != bootstrap.average(values, seed=2)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    hits = 0
    for trial in range(200):
        found = bootstrap.average(rng.exponential(1, 100), resamples=400, seed=trial)
        hits += found.low <= 1 <= found.high
    assert 0.88 <= hits / 200 <= 0.99


def test_averages_over_fixations_and_ratios() -> None:
    values, counts = np.array([1.0, 3.0]), np.array([30, 10])
    assert bootstrap.average(values).mean == 2
    assert bootstrap.average_over_fixations(values, counts).mean == pytest.approx(1.5)
    explained = bootstrap.explained_information_gain(np.array([0.5, 1.0]), np.array([1.0, 2.0]))
    assert (explained.mean, explained.low, explained.high) == pytest.approx((0.5, 0.5, 0.5))
    with pytest.raises(ValueError, match="numerators"):
        bootstrap.average(np.empty(0))
