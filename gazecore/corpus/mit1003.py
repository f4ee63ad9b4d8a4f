"""The original distribution of MIT1003 (Judd et al. 2009): gaze samples at 240 Hz.

    ALLSTIMULI/<stem>.jpeg
    DATA/<user>/<stem>.mat    a struct named after the stem (its first 63 characters, as MATLAB
                              allows no more) with `DATA(1).eyeData`: x, y and state a sample

Fixations are found as the distribution's own `checkFixations` does (see `fixations_of`). As in
the paper, the first of each scanpath, which the central fixation mark forced, is left out.
Positions are taken as they are, and `t` is the number of a fixation's first sample, counted from
1, over 240; both as in pysaliency. Blinks have negative coordinates, so they fall outside.
"""

from dataclasses import dataclass

import numpy as np

from gazecore.corpus.collect import (
    NOWHERE,
    OUTSIDE,
    WITHOUT_IMAGE,
    Collector,
    image_size,
    left_over,
    mat_points,
    read_mat,
)
from gazecore.corpus.schema import Corpus
from gazecore.errors import CorpusError
from gazecore.images.formats import SUFFIXES
from gazecore.storage import Location

RATE = 240.0
"""Samples a second."""

_NAME_LENGTH = 63
_WINDOW = 4  # samples over which the speed is smoothed
_LAG = 5  # samples between the two speeds whose difference is the acceleration
_THRESHOLD = 34 * 6 / 60  # 34 pixels a degree, 6 degrees a second, over windows of 1/60 s
_SHORTEST_RUN = 3  # accelerating samples that make a saccade
_SEARCH = 25  # samples after it in which the deceleration must end
_SHORTEST_FIXATION = 12  # samples, 50 ms; anything shorter joins the saccades around it


@dataclass(frozen=True)
class Mit1003Options:
    """How MIT1003's scanpaths are read."""

    keep_first: bool = False
    """Keep the first fixation of each scanpath."""


def read_mit1003(source: str, options: Mit1003Options | None = None) -> Corpus:
    """Import the folder that holds ALLSTIMULI and DATA.

    Raises:
        CorpusError: a file or field is missing or malformed; the message names it.
    """
    options = options or Mit1003Options()
    root = Location(source)
    names = [n for n in (root / "ALLSTIMULI").names() if n.endswith(".jpeg") and n[0] != "."]
    users = [n for n in (root / "DATA").names() if "." not in n]
    for folder, found in (("ALLSTIMULI", names), ("DATA", users)):
        if not found:
            raise CorpusError(f"{(root / folder).uri}: no stimuli or no users' folders there")
    collector = Collector()
    for name in names:
        stimulus = root / "ALLSTIMULI" / name
        height, width = image_size(stimulus)
        collector.add_image(name, stimulus.uri, (height, width))
        for user in users:
            x, y = _eye_data(root / "DATA" / user / f"{name.removesuffix('.jpeg')}.mat")
            start, end = fixations_of(x, y)
            x, y = (
                np.array([_median(v[a:b]) for a, b in zip(start, end, strict=True)]) for v in (x, y)
            )
            index = np.arange(len(start))
            # Stricter than the corpus's own rule: the distribution counts positions from 1.
            inside = (x > 0) & (x < width) & (y > 0) & (y < height)
            first = index < (0 if options.keep_first else 1)
            collector.dropped["first fixations of a scanpath"] += int(first.sum())
            unseen = (np.isnan(x) | np.isnan(y)) & ~first
            collector.drop(NOWHERE, int(unseen.sum()))
            collector.dropped[OUTSIDE] += int((~inside & ~first & ~unseen).sum())
            kept = inside & ~first
            collector.add_scanpath(
                name,
                user,
                x[kept],
                y[kept],
                t=(start[kept] + 1) / RATE,
                duration=(end - start)[kept] / RATE,
                index=index[kept],
            )
    used = [f"{name.removesuffix('.jpeg')}.mat" for name in names]
    for user in users:
        collector.drop(WITHOUT_IMAGE, left_over(root / "DATA" / user, (".mat",), used))
    others = left_over(root / "ALLSTIMULI", SUFFIXES, names)
    collector.drop("images that are no .jpeg", others)
    return collector.corpus()


def fixations_of(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut a trial's gaze samples into fixations by the rule of `checkFixations`.

    A saccade begins where the smoothed speed rises by more than the threshold on at least three
    samples in a row, and ends where, soon after, the speed has fallen as fast and stopped doing so;
    a rise without such a fall is no saccade, unless it is the only one and lasts to the end of the
    trial. Saccades with at most 12 samples between them are one, and a last fixation of at most 12
    samples belongs to the saccade before it. What remains are fixations.

    Args:
        x, y: (n,) pixels; NaN where the tracker saw nothing.

    Returns:
        start, end: int (m,), fixation i is samples start[i] to end[i] - 1.
    """
    n = len(x)
    change = _acceleration(x, y)
    rising, falling = change > _THRESHOLD, change < -_THRESHOLD
    edges = np.flatnonzero(np.diff(np.concatenate([[False], rising, [False]]).astype(int)))
    runs = [(a, b - 1) for a, b in edges.reshape(-1, 2) if b - a >= _SHORTEST_RUN]
    moving = np.flatnonzero(change != 0)
    saccades: list[tuple[int, int]] = []
    for first, last in runs:
        # The last falling sample: the one before the fall is over.
        fall = [i for i in range(last + 1, min(last + 1 + _SEARCH, n - 2)) if falling[i]]
        ends = [i for i in fall if not falling[i + 1]]
        if ends:
            saccades.append((first, ends[0]))
        elif len(runs) == 1 and last == moving[-1]:
            saccades.append((first, n - 1))
    merged: list[tuple[int, int]] = []
    for first, last in saccades:
        if merged and first - merged[-1][1] <= _SHORTEST_FIXATION:
            first = merged.pop()[0]
        merged.append((first, last))
    if merged and n - 1 - merged[-1][1] <= _SHORTEST_FIXATION:
        merged[-1] = (merged[-1][0], n - 1)
    starts = [0, *(last + 1 for _, last in merged)]
    ends = [*(first for first, _ in merged), n]
    if starts[-1] == n:  # the trial ends in a saccade
        del starts[-1], ends[-1]
    return np.array(starts), np.array(ends)


def _acceleration(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How much faster the smoothed gaze is `_LAG` samples later, in pixels a sample; else 0."""
    step = np.concatenate([[0.0], np.hypot(np.diff(x), np.diff(y))])
    speed = np.convolve(step, np.full(_WINDOW, 1 / _WINDOW))[: len(step)]
    change = np.zeros(len(step))
    if len(step) > _LAG + 1:
        change[1:-_LAG] = speed[1 + _LAG :] - speed[1:-_LAG]
    return change


def _median(values: np.ndarray) -> float:
    seen = values[~np.isnan(values)]
    return float(np.median(seen)) if len(seen) else float("nan")


def _eye_data(location: Location) -> tuple[np.ndarray, np.ndarray]:
    name = location.path.rpartition("/")[2].removesuffix(".mat")[:_NAME_LENGTH]
    struct = read_mat(location, name)
    where = f"{location.uri}: {name}.DATA(1).eyeData"
    try:
        values = np.atleast_1d(struct.DATA)[0].eyeData
    except (AttributeError, IndexError) as error:
        raise CorpusError(f"{where} is missing") from error
    x, y = mat_points(values, where)
    if not len(x):
        raise CorpusError(f"{where} is empty")
    return x, y
