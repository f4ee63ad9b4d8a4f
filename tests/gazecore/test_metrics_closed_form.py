"""Metrics and intervals on toy maps whose values are known."""

import numpy as np
import pytest

from gazecore.metrics import bootstrap
from gazecore.metrics.auc import auc, auc_judd, shuffled_auc
from gazecore.metrics.kernels import fixation_map, kernel_rows
from gazecore.metrics.likelihood import information_gain, log_likelihood_bits
from gazecore.metrics.maps import cc, kldiv, sim, to_density
from gazecore.metrics.nonfixations import Nonfixations
from gazecore.metrics.nss import nss

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
