"""How fast a run is, from when its shards were committed."""

from collections.abc import Mapping

import numpy as np

from gazecore.results.files import list_files
from gazecore.results.run import Run
from gazecore.shards.directory import shard_numbers
from gazecore.shards.plan import PlanPart

MIN_COMMITS = 6
MIN_SPAN = 2.0
"""How many times the time that the first shards took must lie between the first commit and the
last, so that waves of shards that end together are seen as such."""

RECENT_SPAN, RECENT_SECONDS = 6.0, 600.0
"""What is recent: so many times the same, or seconds."""

PAUSE_SPAN, PAUSE_SECONDS = 4.0, 60.0
"""Commits that are further apart, by both, have a pause between them, in which nothing worked."""


def commit_times(run: Run) -> dict[int, float]:
    """When each shard that is done was written, seconds since 1970; 0 where it is not known."""
    files = list_files(run.scores)
    return {n: file.written or 0.0 for file in files for n in shard_numbers([file.name])}


def begin_time(run: Run) -> float | None:
    """When the run was begun, seconds since 1970; None where the storage does not say."""
    return run.location.modified().get("run.json")


def commit_rate(
    parts: list[PlanPart], written: Mapping[int, float], begun: float | None
) -> float | None:
    """Images per second, of late; None while the commits do not tell.

    Shards that are in work at the same time end together: two commits a second apart can be all
    that ten minutes brought. So the rate is the slope of the images done over time, fitted by least
    squares, which a wave of commits does not tilt; and it takes a time in which several waves came.
    How long a wave takes is known from the first: from the run's begin to its first commit.

    Args:
        parts: of the plan.
        written: see `commit_times`.
        begun: see `begin_time`.
    """
    numbers = np.array(list(written), dtype=np.int64)
    times = np.array(list(written.values()), dtype=float)
    sizes = np.concatenate([part.sizes for part in parts] or [np.empty(0, int)])
    known = (times > 0) & (numbers < len(sizes))
    order = np.argsort(times[known], kind="stable")
    times, images = times[known][order], sizes[numbers[known][order]]
    if len(times) < MIN_COMMITS or begun is None or times[0] <= begun:
        return None
    gaps = np.diff(times)
    wave = max(times[0] - begun, float(np.quantile(gaps, 0.9, method="lower")))
    pauses = np.flatnonzero(gaps > max(PAUSE_SPAN * wave, PAUSE_SECONDS))
    start = pauses[-1] + 1 if len(pauses) else 0
    recent = times[start:] >= times[-1] - max(RECENT_SPAN * wave, RECENT_SECONDS)
    times, images = times[start:][recent], images[start:][recent]
    if len(times) < MIN_COMMITS or times[-1] - times[0] < MIN_SPAN * wave:
        return None
    done = np.cumsum(images) - images / 2
    since = times - times.mean()
    return float((since * (done - done.mean())).sum() / (since * since).sum())
