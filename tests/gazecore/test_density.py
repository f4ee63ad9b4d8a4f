"""Statistics against closed forms, the stored form, and resampling."""

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import logsumexp

from gazecore.density.codec import FACTORS, STEP, decode, encode
from gazecore.density.peaks import DISTANCE, Blocks, find_peaks
from gazecore.density.resample import normalise, to_size
from gazecore.density.summary import statistics
from gazecore.errors import InputError
from gazecore.geometry import DEFAULT_FACTOR
from gazecore.results.write import density_file

LN2 = float(np.log(2))


def normalised(log_density: np.ndarray) -> np.ndarray:
    return log_density - logsumexp(log_density)


def uniform(rows: int, columns: int) -> np.ndarray:
    return np.full((rows, columns), -np.log(rows * columns))


def gaussian(
    rows: int,
    columns: int,
    mean: tuple[float, float],
    covariance: tuple[tuple[float, float], tuple[float, float]],
) -> np.ndarray:
    """Log density on cells of one pixel; mean and covariance in (x, y)."""
    x, y = np.meshgrid(np.arange(columns) + 0.5 - mean[0], np.arange(rows) + 0.5 - mean[1])
    inverse = np.linalg.inv(covariance)
    return normalised(
        -(inverse[0, 0] * x**2 + 2 * inverse[0, 1] * x * y + inverse[1, 1] * y**2) / 2
    )


def stats(
    log_density: np.ndarray,
    height: int,
    width: int,
    centerbias: np.ndarray | None = None,
    members: np.ndarray | None = None,
) -> dict[str, Any]:
    return statistics(
        log_density,
        log_density[None] if members is None else members,
        uniform(*log_density.shape) if centerbias is None else centerbias,
        height,
        width,
    )


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 40), columns=st.integers(1, 40), scale=st.integers(1, 30))
def test_uniform(rows: int, columns: int, scale: int) -> None:
    height, width = rows * scale, columns * 7
    found = stats(uniform(rows, columns), height, width)
    assert found["information_bits"] == pytest.approx(0, abs=1e-9)
    assert found["concentration_bits"] == pytest.approx(0, abs=1e-9)
    assert (found["mean_x"], found["mean_y"]) == pytest.approx((width / 2, height / 2))
    # The middles of n cells of side s have the variance s^2 (n^2 - 1) / 12.
    assert found["std_x"] == pytest.approx(7 * np.sqrt((columns**2 - 1) / 12), abs=1e-6)
    assert found["std_y"] == pytest.approx(scale * np.sqrt((rows**2 - 1) / 12), abs=1e-6)
    assert found["cov_xy"] == pytest.approx(0, abs=1e-6)
    assert (found["area_50"], found["area_90"]) == pytest.approx((0.5, 0.9))
    assert found["center_mass"] == pytest.approx(0.25)
    assert found["n_peaks"] == 1
    assert found["disagreement_bits"] is None


def test_one_gaussian() -> None:
    covariance = ((400.0, 90.0), (90.0, 225.0))
    found = stats(gaussian(240, 320, (140, 100), covariance), 240, 320)
    volume = float(np.sqrt(np.linalg.det(covariance)))
    cells = 240 * 320
    # Entropy of a Gaussian: log(2 pi e sqrt(det)). It holds the share q within 2 pi sqrt(det)
    # log(1 / (1 - q)).
    bits = (np.log(cells) - np.log(2 * np.pi * np.e * volume)) / LN2
    assert found["concentration_bits"] == pytest.approx(bits, abs=1e-4)
    assert found["information_bits"] == pytest.approx(bits, abs=1e-4)
    assert (found["mean_x"], found["mean_y"]) == pytest.approx((140, 100), abs=1e-3)
    assert (found["std_x"], found["std_y"]) == pytest.approx((20, 15), abs=1e-2)
    assert found["cov_xy"] == pytest.approx(90, abs=0.1)
    assert found["area_50"] == pytest.approx(2 * np.pi * volume * np.log(2) / cells, rel=5e-3)
    assert found["area_90"] == pytest.approx(2 * np.pi * volume * np.log(10) / cells, rel=5e-3)
    assert found["n_peaks"] == 1


def test_information_is_the_divergence_from_the_centre_bias() -> None:
    covariance = ((400.0, 0.0), (0.0, 400.0))
    density = gaussian(240, 320, (150, 120), covariance)
    prior = gaussian(240, 320, (170, 120), covariance)
    found = stats(density, 240, 320, centerbias=prior)
    assert found["information_bits"] == pytest.approx(20**2 / (2 * 20**2) / LN2, abs=1e-4)
    assert stats(prior, 240, 320, centerbias=prior)["information_bits"] == 0


def test_positions_are_in_pixels_of_the_image() -> None:
    log_density = np.full((8, 16), -200.0)
    log_density[2, 12] = 0
    found = stats(normalised(log_density), 480, 640)
    # Column 12 of 16 covers x from 480 to 520; row 2 of 8 covers y from 120 to 180.
    assert (found["peak_x"], found["peak_y"]) == (500, 150)
    assert (found["mean_x"], found["mean_y"]) == pytest.approx((500, 150))
    assert (found["std_x"], found["std_y"]) == pytest.approx((0, 0), abs=1e-6)


def test_one_cell() -> None:
    log_density = np.full((32, 48), -5000.0)
    log_density[3, 5] = 0
    found = stats(log_density, 64, 96)
    cells = 32 * 48
    assert found["concentration_bits"] == pytest.approx(np.log2(cells))
    assert found["area_50"] == pytest.approx(0.5 / cells)
    assert found["area_90"] == pytest.approx(0.9 / cells)
    assert found["center_mass"] == 0
    assert found["n_peaks"] == 1
    assert found.pop("peaks") == [{"x": 11, "y": 7, "height": 1, "share": pytest.approx(1)}]
    assert all(np.isfinite(value) for value in found.values() if value is not None)


def test_two_peaks() -> None:
    covariance = ((36.0, 0.0), (0.0, 36.0))
    left, right = (gaussian(100, 300, (x, 50), covariance) for x in (60, 240))
    found = stats(np.logaddexp(left + np.log(0.75), right + np.log(0.25)), 100, 300)
    assert found["n_peaks"] == 2
    assert (found["peak_x"], found["peak_y"]) == pytest.approx((60, 50), abs=0.5)
    assert found["mean_x"] == pytest.approx(0.75 * 60 + 0.25 * 240, abs=1e-3)
    assert found["std_x"] == pytest.approx(np.sqrt(36 + 0.75 * 0.25 * 180**2), abs=1e-2)
    assert found["std_y"] == pytest.approx(6, abs=1e-2)
    # Neither peak is in the central half, from x = 75 to 225.
    expected = 0.75 * 0.00621 + 0.25 * 0.00621  # a normal's tail beyond 15 / 6 = 2.5 deviations
    assert found["center_mass"] == pytest.approx(expected, rel=0.02)


def peaks(density: np.ndarray, height: int = 0, width: int = 0) -> list[tuple[float, ...]]:
    """x, y and height of the peaks of a density of cells of one pixel."""
    rows, columns = density.shape
    found = find_peaks(Blocks.of_cells(density), height or rows, width or columns)
    return [(peak.x, peak.y, round(peak.height, 6)) for peak in found]


def hills(*tops: tuple[int, int, float], floor: float = 1e-6, side: int = 40) -> np.ndarray:
    """A square density with single cells that stand out."""
    p = np.full((side, side), floor)
    for row, column, height in tops:
        p[row, column] = height
    return p


@pytest.mark.parametrize(("height", "count"), [(0.11, 2), (0.09, 1)])
def test_what_is_far_below_the_highest_is_no_peak(height: float, count: int) -> None:
    assert len(peaks(hills((5, 5, 1), (15, 15, height)))) == count


@pytest.mark.parametrize(("floor", "count"), [(0.65, 2), (0.7, 1)])
def test_what_does_not_stand_out_is_no_peak(floor: float, count: int) -> None:
    # From 1 over the floor to 2: a peak if it is 1.5 times as high as the floor.
    assert len(peaks(hills((5, 5, 2), (15, 15, 1), floor=floor))) == count


def test_ripples_on_a_hill_are_one_peak_however_many() -> None:
    y, x = np.mgrid[:120, :160]
    hill = np.exp(-((x - 60) ** 2 + (y - 50) ** 2) / 1500)
    ripples = hill * (1 + 0.15 * np.sin(x / 2) * np.sin(y / 2))
    ((left, top, height),) = peaks(ripples)
    assert np.hypot(left - 60, top - 50) < 8
    assert height == 1


def test_a_prominent_hill_beside_a_ridge_counts_by_its_own_pass() -> None:
    # 3 - pass 1 - 2 - pass 1.9 - 2.5: the 2 stands 1.05 times above its pass, the 2.5 2.5 times.
    line = np.array([3, 1, 2, 1.9, 2.5, 0.5])
    found = peaks(line.repeat(6)[None].repeat(6, axis=0))
    assert [height for *_, height in found] == [1, pytest.approx(2.5 / 3, abs=1e-5)]


@pytest.mark.parametrize(("apart", "count"), [(11, 1), (13, 2)])
def test_of_two_that_are_near_the_higher_one_counts(apart: int, count: int) -> None:
    found = peaks(hills((50, 50, 1), (50, 50 + apart, 0.9), side=200))
    assert [height for *_, height in found] == [1, 0.9][:count]
    assert found[0][:2] == (50.5, 50.5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**20), st.integers(1, 60), st.integers(1, 60), st.floats(0.1, 100))
def test_peaks_are_apart_and_share_no_fixation(
    seed: int, rows: int, columns: int, scale: float
) -> None:
    p = np.random.default_rng(seed).random((rows, columns)) ** 8 + 1e-9
    height, width = (max(1, round(side * scale)) for side in p.shape)
    found = find_peaks(Blocks.of_cells(p), height, width)
    places = [np.array([peak.x, peak.y]) for peak in found]
    for i, place in enumerate(places):
        assert 0 <= place[0] <= width
        assert 0 <= place[1] <= height
        for other in places[:i]:
            assert np.hypot(*(place - other)) >= DISTANCE * max(height, width) - 1e-9
    heights = [peak.height for peak in found]
    assert heights == sorted(heights, reverse=True)
    assert heights[0] == 1
    assert sum(peak.share for peak in found) <= 1 + 1e-9


def test_the_shares_of_two_hills_are_theirs() -> None:
    covariance = ((64.0, 0.0), (0.0, 64.0))
    left, right = (gaussian(300, 400, (x, 150), covariance) for x in (100, 300))
    found = stats(np.logaddexp(left + np.log(0.75), right + np.log(0.25)), 300, 400)["peaks"]
    # Of a Gaussian with a deviation of 8, 1 - exp(-3^2 / 2) lies within 24, 6 % of 400.
    within = 1 - np.exp(-4.5)
    assert [peak["share"] for peak in found] == pytest.approx(
        [0.75 * within, 0.25 * within], rel=0.02
    )


def test_peaks_are_sorted_and_may_touch_the_border() -> None:
    found = peaks(hills((0, 0, 0.5), (39, 39, 0.9), (0, 39, 0.7), (16, 16, 1), floor=0.01))
    assert [place[:2] for place in found] == [(16.5, 16.5), (39.5, 39.5), (39.5, 0.5), (0.5, 0.5)]


def test_a_plateau_is_one_peak() -> None:
    p = np.full((40, 40), 0.1)
    p[3:13, 3:13] = 1
    p[3:13, 20:23] = p[10:13, 20:30] = 0.5  # an L, two of whose ends are far from each other
    assert len(peaks(p)) == 2


@pytest.mark.parametrize("transposed", [False, True])
def test_a_step_on_the_way_up_is_no_peak(transposed: bool) -> None:
    p = np.repeat([1.0, 2.0, 3.0, 4.0], 5)[None].repeat(6, axis=0)
    p = p.T if transposed else p
    ((x, y, _),) = peaks(p)
    assert p[int(y), int(x)] == 4


@pytest.mark.parametrize(
    "density",
    [np.ones((6, 9)), np.repeat([1.0, 2.0], 5)[None].repeat(4, axis=0)],
    ids=["uniform", "half"],
)
def test_the_first_peak_is_the_mode_that_the_statistics_name(density: np.ndarray) -> None:
    rows, columns = density.shape
    found = stats(normalised(np.log(density)), rows, columns)
    assert (found["peak_x"], found["peak_y"]) == peaks(density)[0][:2]


@settings(max_examples=50, deadline=None)
@given(arrays(np.float64, (6, 9), elements=st.floats(-8, 0)))
def test_statistics_of_any_density_keep_their_bounds(values: np.ndarray) -> None:
    found = stats(normalised(values), 60, 90)
    assert 0 <= found["concentration_bits"] <= np.log2(54)
    assert 0 < found["area_50"] <= found["area_90"] + 1e-12 <= 0.9 + 1e-9
    assert 0 <= found["center_mass"] <= 1 + 1e-12
    assert 5 <= found["mean_x"] <= 85
    assert 5 <= found["mean_y"] <= 55
    assert abs(found["cov_xy"]) <= found["std_x"] * found["std_y"] + 1e-6
    assert found["n_peaks"] >= 1


def test_mirroring_moves_only_what_it_should() -> None:
    log_density = normalised(np.random.default_rng(1).normal(size=(12, 20)))
    one, other = stats(log_density, 120, 400), stats(log_density[:, ::-1], 120, 400)
    mirrored = {
        **one,
        "mean_x": 400 - one["mean_x"],
        "peak_x": 400 - one["peak_x"],
        "cov_xy": -one["cov_xy"],
    }
    there, here = other.pop("peaks"), mirrored.pop("peaks")
    assert [400 - peak["x"] for peak in there] == [peak["x"] for peak in here]
    del other["disagreement_bits"], mirrored["disagreement_bits"]
    assert other == pytest.approx(mirrored, rel=1e-9)


def test_disagreement_of_one_member_is_unknown() -> None:
    log_density = uniform(4, 6)
    assert stats(log_density, 4, 6)["disagreement_bits"] is None


def test_equal_members_agree() -> None:
    log_density = normalised(np.random.default_rng(2).normal(size=(8, 8)))
    found = stats(log_density, 8, 8, members=np.stack([log_density] * 5))
    assert found["disagreement_bits"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("count", [2, 4])
def test_members_that_share_nothing_disagree_by_the_log_of_their_number(count: int) -> None:
    members = np.full((count, 8, 8 * count), -5000.0)
    for i, member in enumerate(members):
        member[:, 8 * i : 8 * (i + 1)] = -np.log(64)
    mixture = uniform(8, 8 * count)
    found = stats(mixture, 8, 8 * count, members=members)
    assert found["disagreement_bits"] == pytest.approx(np.log2(count))


@st.composite
def densities(draw: st.DrawFn, spread: float = 40) -> tuple[np.ndarray, int]:
    factor = draw(st.sampled_from(FACTORS))
    shape = (factor * draw(st.integers(1, 5)), factor * draw(st.integers(1, 5)))
    values = draw(arrays(np.float64, shape, elements=st.floats(-spread, 0)))
    return normalised(values).astype(np.float32), factor


def block_means(log_density: np.ndarray, factor: int) -> np.ndarray:
    height, width = log_density.shape
    blocks = log_density.astype(float).reshape(height // factor, factor, width // factor, factor)
    return blocks.mean(axis=(1, 3))


@settings(max_examples=100, deadline=None)
@given(densities())
def test_the_stored_form_is_normalised_and_off_by_half_a_step(
    case: tuple[np.ndarray, int],
) -> None:
    log_density, factor = case
    values, offset = encode(log_density, factor)
    means = block_means(log_density, factor)
    assert values.dtype == np.int16
    assert values.shape == means.shape
    found = decode(values, offset)
    assert logsumexp(found) == pytest.approx(0, abs=1e-9)
    differences = (found - found.max()) - (means - means.max())
    assert np.abs(differences).max() <= STEP / 2 + 1e-9
    # Normalising again moves everything together, by no more than another half step.
    assert np.abs(found - normalised(means)).max() <= STEP + 1e-9


@settings(max_examples=50, deadline=None)
@given(densities(spread=5000))
def test_extreme_densities_stay_finite(case: tuple[np.ndarray, int]) -> None:
    values, offset = encode(*case)
    found = decode(values, offset)
    assert np.isfinite(found).all()
    assert logsumexp(found) == pytest.approx(0, abs=1e-9)
    assert np.unravel_index(found.argmax(), found.shape) in {
        tuple(place) for place in np.argwhere(found == found.max())
    }


def test_the_range_is_cut_at_the_bottom_only() -> None:
    log_density = normalised(np.array([[0.0, -1.0, -1000.0, -3000.0]]))
    found = decode(*encode(log_density, 1))
    assert np.abs(found[0, :3] - log_density[0, :3]).max() <= STEP
    assert found[0, 3] == pytest.approx(found[0, 0] - 1024)


def test_the_uniform_density_is_stored_exactly() -> None:
    values, offset = encode(uniform(16, 24), 4)
    assert np.array_equal(decode(values, offset), np.full((4, 6), offset))
    assert offset == pytest.approx(-np.log(24))


@pytest.mark.parametrize("factor", [0, 3, 8, -1])
def test_other_factors_are_refused(factor: int) -> None:
    with pytest.raises(InputError, match="density_factor"):
        encode(uniform(24, 24), factor)


def stored_file(path: Path) -> dict[str, np.ndarray]:
    """Write two densities as a run does; what they decode to, row by row."""
    rng = np.random.default_rng(4)
    rows, expected = [], {}
    for image_id, shape in (("a", (16, 24)), ("b", (32, 8))):
        values, offset = encode(normalised(rng.normal(scale=4, size=shape)), DEFAULT_FACTOR)
        expected[image_id] = decode(values, offset).ravel()
        rows.append(
            {
                "image_id": image_id,
                "height": 480,
                "width": 640,
                "grid_height": values.shape[0],
                "grid_width": values.shape[1],
                "log_density": values.ravel(),
                "log_offset": offset,
            }
        )
    path.write_bytes(density_file(rows))
    return expected


def test_duckdb_decodes_with_the_documented_expression(tmp_path: Path) -> None:
    expected = stored_file(tmp_path / "shard.parquet")
    for image_id, values in expected.items():
        found = duckdb.sql(
            "SELECT log_density[i] / 32.0 + log_offset "
            f"FROM read_parquet('{tmp_path}/shard.parquet'), range(1, len(log_density) + 1) t(i) "
            f"WHERE image_id = '{image_id}' ORDER BY i"
        ).fetchall()
        assert [value for (value,) in found] == pytest.approx(values, abs=1e-12)


def test_pyarrow_decodes_with_the_documented_expression(tmp_path: Path) -> None:
    expected = stored_file(tmp_path / "shard.parquet")
    for row in pq.read_table(tmp_path / "shard.parquet").to_pylist():
        found = [
            row["log_density"][i] / 32.0 + row["log_offset"] for i in range(len(row["log_density"]))
        ]
        assert found == pytest.approx(expected[row["image_id"]], abs=1e-12)
        assert len(found) == row["grid_height"] * row["grid_width"]


def test_pandas_decodes_with_the_documented_expression(tmp_path: Path) -> None:
    expected = stored_file(tmp_path / "shard.parquet")
    frame = pd.read_parquet(tmp_path / "shard.parquet")
    decoded = frame["log_density"] / 32.0 + frame["log_offset"]
    for image_id, found in zip(frame["image_id"], decoded, strict=True):
        assert found == pytest.approx(expected[image_id], abs=1e-12)
        assert np.exp(found).sum() == pytest.approx(1)


def test_a_density_is_a_few_kilobytes(tmp_path: Path) -> None:
    # A smooth density of a 1024x768 image: a grid of 256x192, stored as 64x48.
    log_density = gaussian(192, 256, (100, 80), ((900.0, 100.0), (100.0, 1600.0)))
    values, offset = encode(log_density)
    row = {
        "image_id": "a",
        "height": 768,
        "width": 1024,
        "grid_height": 48,
        "grid_width": 64,
        "log_density": values.ravel(),
        "log_offset": offset,
    }
    one, many = (len(density_file([row | {"image_id": str(i)} for i in range(n)])) for n in (1, 41))
    assert (many - one) / 40 < 6000


@settings(max_examples=40, deadline=None)
@given(
    arrays(np.float32, (6, 9), elements=st.floats(-20, 0, width=32)),
    st.integers(1, 60),
    st.integers(1, 60),
)
def test_any_size_is_normalised(values: np.ndarray, height: int, width: int) -> None:
    found = to_size(values, height, width)
    assert found.shape == (height, width)
    assert found.dtype == np.float32
    assert logsumexp(found.astype(float)) == pytest.approx(0, abs=1e-5)


def test_the_same_size_is_the_same_density() -> None:
    log_density = normalise(np.random.default_rng(5).normal(size=(24, 32)).astype(np.float32))
    assert np.abs(to_size(log_density, 24, 32) - log_density).max() < 1e-5


@pytest.mark.parametrize(("height", "width"), [(3, 5), (24, 32), (100, 77), (1, 1)])
def test_a_constant_stays_constant(height: int, width: int) -> None:
    found = to_size(uniform(12, 16).astype(np.float32), height, width)
    assert found == pytest.approx(np.full((height, width), -np.log(height * width)), abs=1e-5)


def test_enlarging_keeps_places_and_slopes() -> None:
    # A linear ramp is reproduced exactly away from the border, where pixel areas are aligned.
    ramp = np.arange(32, dtype=np.float32)[None].repeat(16, axis=0) / 4
    found = to_size(ramp, 64, 128)
    inner = np.diff(found[32, 16:-16])
    assert inner == pytest.approx(np.full(len(inner), 1 / 16), abs=1e-4)
    blob = gaussian(32, 48, (30.5, 10.5), ((9.0, 0.0), (0.0, 9.0)))
    found = stats(to_size(blob, 320, 480).astype(float), 320, 480)
    assert (found["mean_x"], found["mean_y"]) == pytest.approx((305, 105), abs=0.5)


def test_normalise_takes_stacks() -> None:
    stack = np.random.default_rng(6).normal(size=(3, 4, 5)).astype(np.float32) * 10
    found = normalise(stack)
    assert found.dtype == np.float32
    assert logsumexp(found.astype(float), axis=(1, 2)) == pytest.approx(np.zeros(3), abs=1e-5)
    assert np.ptp(stack - found, axis=(1, 2)) == pytest.approx(np.zeros(3), abs=1e-5)
