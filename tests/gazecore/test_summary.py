"""The batched statistics against those of one density, step by step, in numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from gazecore.density.codec import FACTORS, encode
from gazecore.density.summary import summarise
from gazecore.errors import NotFinite
from gazecore.model.readout import mix
from tests.numbers import reference_statistics


def batch(seed: int, n: int, members: int, height: int, width: int) -> list[torch.Tensor]:
    """Densities with some structure: members, and a centre bias, as a model gives them."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(n, members, height, width)) * 30
    logits = gaussian_filter(noise, (0, 0, 3, 3)).astype(np.float32)
    parts = torch.from_numpy(logits).flatten(2).log_softmax(2).view(n, members, height, width)
    prior = torch.from_numpy(gaussian_filter(noise[0, 0], 9).astype(np.float32))
    return [mix(parts), parts, prior.flatten().log_softmax(0).view(height, width)]


def assert_same_peaks(found: list[dict], expected: list[dict]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-9, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    n=st.integers(1, 4),
    members=st.sampled_from([1, 2, 10]),
    rows=st.integers(1, 12),
    columns=st.integers(1, 12),
    factor=st.sampled_from(FACTORS),
)
def test_every_number_equals_the_reference(
    seed: int, n: int, members: int, rows: int, columns: int, factor: int
) -> None:
    mixture, parts, prior = batch(seed, n, members, 8 * rows, 8 * columns)
    found = summarise(mixture, parts, prior, factor)
    for i in range(n):
        numbers, steps, offset = found.of(i, 333, 777)
        arrays = mixture[i].numpy(), parts[i].numpy(), prior.numpy()
        expected = reference_statistics(*arrays, 333, 777)
        assert list(numbers) == list(expected)
        assert numbers.pop("n_peaks") == expected.pop("n_peaks")
        if members == 1:
            assert numbers.pop("disagreement_bits") is expected.pop("disagreement_bits") is None
        assert_same_peaks(numbers.pop("peaks"), expected.pop("peaks"))
        for name, value in expected.items():
            assert numbers[name] == pytest.approx(value, rel=1e-9, abs=1e-9), name
        stored, at = encode(arrays[0], factor)
        assert np.array_equal(steps, stored)
        assert offset == at


def test_a_density_is_the_same_in_any_company_and_on_any_threads() -> None:
    tensors = batch(7, 6, 10, 192, 256)
    threads = torch.get_num_threads()
    rows = []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            found = summarise(*tensors, 4)
            rows.append([found.of(i, 768, 1024)[0] for i in range(6)])
            alone = [summarise(t[i : i + 1], p[i : i + 1], tensors[2], 4)
                     for t, p in [tensors[:2]] for i in range(6)]  # fmt: skip
            rows.append([one.of(0, 768, 1024)[0] for one in alone])
    finally:
        torch.set_num_threads(threads)
    assert all(row == rows[0] for row in rows)


def test_plateaus_and_steps_are_counted_as_the_reference_counts_them() -> None:
    heights = np.zeros((8, 8, 16), np.float32)
    heights[1, 2:4, 2:5] = 2  # a plateau
    heights[2, 3, 3] = heights[2, 3, 4] = 2  # one that is higher on one side
    heights[2, 3, 5] = 3
    heights[3, ::2, ::2] = 1  # single cells
    heights[4, 0, :] = 5  # a ridge at the border
    heights[5, 1, 1], heights[5, 2, 2] = 4, 4  # touching by a corner
    heights[6, 1, 1], heights[6, 6, 12] = 4, 4 + np.log(0.04)  # one that is too low
    logs = torch.from_numpy(heights).flatten(1).log_softmax(1).view(heights.shape)
    prior = torch.zeros(8, 16).flatten().log_softmax(0).view(8, 16)
    found = summarise(logs, logs[:, None], prior, 1)
    for i, one in enumerate(logs.numpy()):
        expected = reference_statistics(one, one[None], prior.numpy(), 8, 16)
        assert_same_peaks(found.of(i, 8, 16)[0]["peaks"], expected["peaks"])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named_and_its_neighbours_are_not(value: float) -> None:
    tensors = batch(3, 3, 2, 16, 24)
    whole = summarise(*tensors, 2)
    tensors[0][1, 2, 3] = value
    tensors[1][2, 0, 5, 5] = value
    found = summarise(*tensors, 2)
    assert found.of(0, 64, 96)[0] == whole.of(0, 64, 96)[0]
    with pytest.raises(NotFinite, match="the density that"):
        found.of(1, 64, 96)
    with pytest.raises(NotFinite, match="density of a member"):
        found.of(2, 64, 96)
    tensors[2][0, 0] = value
    with pytest.raises(NotFinite, match="centre bias"):
        summarise(*tensors, 2).of(0, 64, 96)
