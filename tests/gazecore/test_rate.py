"""The rate that is said is right within a fifth, or not said."""

from collections.abc import Sequence

import numpy as np
import pytest

from gazecore.results.rate import commit_rate
from gazecore.shards.plan import PlanPart
from gazecore.storage import Location

BEGUN = 1.7e9


def rate(times: Sequence[float], size: int) -> float | None:
    part = PlanPart(Location("/nowhere"), 0, np.full(len(times), size, dtype=np.int32))
    return commit_rate([part], dict(enumerate(times)), BEGUN)


def schedule(
    rng: np.random.Generator, slots: int, seconds: float, spread: float, start: float, end: float
) -> list[float]:
    """When shards are committed that some slots work off, each one after the other."""
    commits = []
    for _ in range(slots):
        now = start + rng.uniform(0, 2)
        while (now := now + seconds * max(0.2, rng.normal(1, spread))) < end:
            commits.append(np.floor(now))  # as storages say it
    return sorted(commits)


@pytest.mark.parametrize("slots", [1, 2, 4, 16, 64])
@pytest.mark.parametrize("spread", [0.0, 0.05, 0.2])
def test_whatever_the_schedule_it_is_right_within_a_fifth_or_not_known(
    slots: int, spread: float
) -> None:
    rng = np.random.default_rng(slots)
    known = wrong = 0
    for _ in range(150):
        seconds, size = float(np.exp(rng.uniform(np.log(2), np.log(900)))), 256
        start = BEGUN + rng.uniform(3, 20)
        times = schedule(rng, slots, seconds, spread, start, start + seconds * rng.uniform(1, 12))
        found = rate(times, size)
        if found is not None:
            known += 1
            wrong += not 0.8 < found / (slots * size / seconds) < 1.2
    assert known > 50
    assert wrong <= known // 25  # of few shards that differ, some draws are far from their mean


def test_two_shards_that_end_together_say_nothing() -> None:
    assert rate([BEGUN + 500, BEGUN + 500.5], 256) is None
    assert rate([BEGUN + 500 + i / 10 for i in range(64)], 256) is None


def test_a_night_in_between_does_not_count() -> None:
    rng = np.random.default_rng(1)
    before = schedule(rng, 2, 30, 0.1, BEGUN + 10, BEGUN + 900)
    after = schedule(rng, 2, 30, 0.1, BEGUN + 40_000, BEGUN + 40_900)
    assert rate(before + after, 16) == pytest.approx(2 * 16 / 30, rel=0.2)
    again = schedule(rng, 4, 30, 0.1, BEGUN + 90_000, BEGUN + 90_600)
    assert rate(before + after + again, 16) == pytest.approx(4 * 16 / 30, rel=0.2)
    assert rate([*before, BEGUN + 40_030, BEGUN + 40_031], 16) is None


def test_a_copy_whose_files_are_all_of_one_time_says_nothing() -> None:
    assert rate([BEGUN + 5] * 100, 16) is None
    assert rate([BEGUN - 5] * 100, 16) is None
    assert rate([0.0] * 100, 16) is None
