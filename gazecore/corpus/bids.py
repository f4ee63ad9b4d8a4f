"""Eye tracking in BIDS datasets (BEP020, Eye-Tracking-BIDS).

    sub-01/beh/sub-01_task-view_recording-eye1_physio.tsv.gz        samples, without a header
    sub-01/beh/sub-01_task-view_recording-eye1_physioevents.tsv.gz  what the tracker found in them
    sub-01/beh/sub-01_task-view_events.tsv                          which image was shown when
    stimuli/                                                        the images
    *_physio.json, *_physioevents.json, *_events.json               beside them or above

Read are events of the `trial_type` fixation: `onset` on the clock that `OnsetSource` (formerly
`ForeignIndexColumn`) names, a column of the samples; `duration`; and `x_coordinate` and
`y_coordinate`, or else the mean of the samples within. `stim_file` of `events.tsv` is the image,
from `onset` (seconds, 0 being `StartTime` before the first sample) on for `duration`, or until the
next.

Source: BIDS specification, "Physiological recordings", section "Eye-tracking".
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gazecore.corpus.bids_files import BidsFile, BidsFiles
from gazecore.corpus.schema import Corpus
from gazecore.corpus.screen import Box, Origin, Shown, Size, box_of, from_top_left
from gazecore.corpus.viewings import NOT_SHOWN, Viewings
from gazecore.errors import CorpusError, one_line
from gazecore.storage import Location
from gazecore.wording import counted

_SECONDS = {
    "s": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "millisecond": 1e-3, "milliseconds": 1e-3,
    "us": 1e-6, "μs": 1e-6, "µs": 1e-6, "microseconds": 1e-6, "ns": 1e-9, "nanoseconds": 1e-9,
}  # fmt: skip
_ORIGINS: dict[tuple[str, ...], Origin] = {
    ("top", "left"): "top-left",
    ("bottom", "left"): "bottom-left",
    ("center", "center"): "centre",
    ("center",): "centre",
}
_SHORTEST, _LONGEST = 0.001, 10.0
_PIXELS = ("pixel", "pixels", "px")
_POSITION = ("x_coordinate", "y_coordinate")


@dataclass(frozen=True)
class _Samples:
    """What was recorded, by a clock of its own.

    Attributes:
        column: the column of the samples that is the clock.
        unit: seconds.
        times: (n,) seconds, not falling.
        points: (n, 2) x and y; NaN where nothing was seen.
        zero: when the time of `*_events.tsv` is 0, by this clock.
    """

    column: str
    unit: float
    times: np.ndarray
    points: np.ndarray
    zero: float


@dataclass(frozen=True)
class BidsOptions:
    """Which recordings of a BIDS dataset are read, and how images were shown."""

    images: str | None = None
    """Folder, prefix, glob or list of the images. Default: `stimuli` in SOURCE."""
    recording: str = "eye1"
    """Of the recordings of a run, that of this label; where there is one, that one."""
    task: str | None = None
    """Only this task. By default all."""
    screen: tuple[int, int] | None = None
    """Width and height of the screen in pixels. Default: ScreenResolution of `*_events.json`."""
    shown: Shown = "centred"
    """How images stood on it: in its middle at their own size or as large as fits, or all over."""


def read_bids(source: str, options: BidsOptions | None = None) -> Corpus:
    """Import the fixations of a BIDS dataset; subjects are the labels of `sub`.

    Images that are never shown are left out.

    Raises:
        CorpusError: a file or field is missing or damaged; the message names it.
        InputError: there are no images.
    """
    options = options or BidsOptions()
    files = BidsFiles(Location(source))
    runs = _runs(files, options)
    viewings = Viewings(options.images or f"{files.root.uri}/stimuli", "--bids.images")
    for run in runs:
        _add(viewings, files, run, options)
    return viewings.corpus(source)


def _runs(files: BidsFiles, options: BidsOptions) -> list[BidsFile]:
    """The file with events of each run, of the recording that is asked for."""
    runs: dict[tuple[Any, ...], dict[str, BidsFile]] = {}
    for file in files.of("physioevents", ".tsv.gz"):
        if "sub" not in file.entities:
            raise CorpusError(f"{(files.root / file.path).uri}: its name says no sub-<label>")
        if options.task in (None, file.entities.get("task")):
            others = {k: v for k, v in file.entities.items() if k != "recording"}
            run = runs.setdefault((file.folder, *sorted(others.items())), {})
            run[file.entities.get("recording", "")] = file
    if not runs:
        of = f" of the task {options.task}" if options.task else ""
        raise CorpusError(
            f"{files.root.uri} has no *_physioevents.tsv.gz{of}: samples alone are not read, the "
            "fixations in them must have been found"
        )
    for labels in runs.values():
        if len(labels) > 1 and options.recording not in labels:
            first = files.root / next(iter(labels.values())).path
            raise CorpusError(
                f"{first.uri} is one of the recordings {', '.join(labels)}: --bids.recording says "
                "which is read"
            )
    return [r[options.recording] if len(r) > 1 else next(iter(r.values())) for r in runs.values()]


def _add(viewings: Viewings, files: BidsFiles, run: BidsFile, options: BidsOptions) -> None:
    """Add the fixations of a run."""
    where = (files.root / run.path).uri
    samples = _samples(files, run)
    start, duration, points = _fixations(files, run, samples)
    told = files.metadata(run, "events")
    screen, origin = _screen(told, where, options)
    x, y = from_top_left(points[:, 0], points[:, 1], screen, origin, shares=False)
    onsets, ends, names = _showings(files, run)
    if told.get("OnsetSource") != samples.column:
        onsets, ends = onsets + samples.zero, ends + samples.zero
    last = np.searchsorted(onsets, start, side="right") - 1
    seen = (last >= 0) & (start < np.append(ends, -np.inf)[last])
    if len(start) and not seen.any():
        raise CorpusError(
            f"{where}: its fixations, {start.min():g} to {start.max():g} s on the clock of "
            f"`{samples.column}`, are on none of the {counted(len(names), 'images')} that "
            f"*_events.tsv shows, by StartTime from {onsets.min(initial=np.inf):g} s on"
        )
    viewings.collector.drop(NOT_SHOWN, int((~seen).sum()))

    def box(image: Size) -> Box:
        return box_of(image, screen, options.shown, "--bids.shown")

    for event, name in enumerate(names):
        its = np.flatnonzero(seen & (last == event))
        if len(its):
            times = start[its] - onsets[event], duration[its]
            fixations = np.column_stack([x[its], y[its], *times])
            viewings.add(name, run.entities["sub"], fixations, box)


def _samples(files: BidsFiles, run: BidsFile) -> _Samples:
    """The samples that events belong to, with the clock that these name."""
    path = run.path.removesuffix("_physioevents.tsv.gz") + "_physio.tsv.gz"
    where = (files.root / path).uri
    found = next((file for file in files.of("physio", ".tsv.gz") if file.path == path), None)
    if found is None:
        raise CorpusError(f"{where} is missing: the samples that its physioevents belong to")
    told, events = files.metadata(found, "physio"), files.metadata(run, "physioevents")
    columns = _columns(told, where, "physio")
    system = told.get("SampleCoordinateSystem", "gaze-on-screen")
    if system != "gaze-on-screen":
        raise CorpusError(
            f"{where}: SampleCoordinateSystem is {system}: only gaze-on-screen is read"
        )
    column = str(events.get("OnsetSource", events.get("ForeignIndexColumn")))
    if column not in columns:
        raise CorpusError(
            f"{where}: *_physioevents.json must name one of its columns, {', '.join(columns)}, as "
            f"OnsetSource, not {column}"
        )
    table = files.table(found, columns)
    for name in (column, *_POSITION):
        if name not in table:
            raise CorpusError(f"{where} has no numbers in a column `{name}`")
        units = _units(told, name)
        if name in _POSITION and units not in ("", *_PIXELS):
            raise CorpusError(f"{where}: `{name}` is in {units}: only pixels are read")
    ticks = table[column]
    if not len(ticks) or not (np.diff(ticks) >= 0).all():  # of NaN, nothing is true
        raise CorpusError(f"{where}: `{column}` falls from row to row, or has gaps")
    unit = _SECONDS.get(_units(told, column))
    try:
        if unit is None and not _units(told, column) and len(ticks) > 1:
            unit = 1 / float(told["SamplingFrequency"]) / float(np.median(np.diff(ticks)))
        zero = float(ticks[0] * (unit or np.nan)) - float(told["StartTime"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise CorpusError(f"{where}: StartTime, SamplingFrequency: {one_line(error)}") from error
    if unit is None:
        raise CorpusError(f"{where}: its *_physio.json must give `{column}` Units such as ms")
    points = np.column_stack([table[name] for name in _POSITION])
    return _Samples(column, unit, ticks * unit, points, zero)


def _fixations(
    files: BidsFiles, run: BidsFile, samples: _Samples
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """When fixations began (n,) and how long they took (n,), seconds; where they were (n, 2)."""
    where = (files.root / run.path).uri
    told = files.metadata(run, "physioevents")
    columns = _columns(told, where, "physioevents")
    table = files.table(run, columns, ("trial_type", "message"))
    for name in ("onset", "duration", "trial_type"):
        if name not in table:
            raise CorpusError(f"{where} has no column `{name}`, or not of its kind")
    kinds = np.array([(kind or "").strip().lower() for kind in table["trial_type"]], dtype=object)
    rows = np.flatnonzero((kinds == "fixation") & ~np.isnan(table["onset"]))
    rows = rows[np.argsort(table["onset"][rows], kind="stable")]
    start, duration = table["onset"][rows] * samples.unit, table["duration"][rows]
    median = float(np.nanmedian(duration)) if np.isfinite(duration).any() else np.nan
    # The specification's own example has durations in the clock's unit, others have seconds.
    ticking = median * samples.unit >= _SHORTEST
    unit = _SECONDS.get(_units(told, "duration"), samples.unit if ticking else 1.0)
    duration = duration * unit
    if not np.isnan(median) and not _SHORTEST <= median * unit <= _LONGEST:
        raise CorpusError(
            f"{where}: the median fixation takes {median * unit:g} s, and not from 1 ms to 10 s: "
            "*_physioevents.json must give `duration` its Units"
        )
    step = float(np.median(np.diff(samples.times))) if len(samples.times) > 1 else 0.0
    until = start + np.fmax(duration, step)
    first, end = np.searchsorted(samples.times, [start - step / 2, until - step / 2])
    points = np.full((len(rows), 2), np.nan)
    for column, name in enumerate(_POSITION):
        means = [_mean(samples.points[i:j, column]) for i, j in zip(first, end, strict=True)]
        given = table[name][rows] if name in table else np.full(len(rows), np.nan)
        points[:, column] = np.where(np.isnan(given), means, given)
    return start, duration, points


def _showings(files: BidsFiles, run: BidsFile) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """From when to when (n,) images were shown, seconds as in `*_events.tsv`, and their names."""
    listed = files.applicable(run, "events", ".tsv")
    if not listed:
        where = (files.root / run.path).uri
        raise CorpusError(f"{where}: no *_events.tsv beside it or above says what was shown")
    table = files.table(listed[-1], None, ("stim_file",))
    for name in ("onset", "duration", "stim_file"):
        if name not in table:
            where = (files.root / listed[-1].path).uri
            raise CorpusError(f"{where} has no column `{name}`, or not of its kind")
    there = np.array([name is not None for name in table["stim_file"]], dtype=bool)
    rows = np.flatnonzero(there & ~np.isnan(table["onset"]))
    rows = rows[np.argsort(table["onset"][rows], kind="stable")]
    onsets, lasting = table["onset"][rows], table["duration"][rows]
    following = np.append(onsets[1:], np.inf)[: len(rows)]
    ends = np.where(lasting > 0, onsets + lasting, following)
    return onsets, ends, [table["stim_file"][row] for row in rows]


def _screen(told: dict[str, Any], where: str, options: BidsOptions) -> tuple[Size, Origin]:
    """The screen's size, and where positions on it count from."""
    presented = told.get("StimulusPresentation")
    presented = presented if isinstance(presented, dict) else {}
    size = options.screen or presented.get("ScreenResolution")
    try:
        width, height = (int(side) for side in size or ())
        if min(width, height) < 1:
            raise ValueError
    except (TypeError, ValueError) as error:
        raise CorpusError(
            f"{where}: StimulusPresentation of *_events.json has no ScreenResolution of two sides: "
            "give --bids.screen"
        ) from error
    origin = presented.get("ScreenOrigin", told.get("EnvironmentCoordinates", "top-left"))
    words = origin.split("-") if isinstance(origin, str) else origin
    key = tuple(words) if isinstance(words, list) else ()
    if key not in _ORIGINS:
        raise CorpusError(f"{where}: ScreenOrigin {origin} of *_events.json is not known")
    return (width, height), _ORIGINS[key]


def _columns(told: dict[str, Any], where: str, suffix: str) -> list[str]:
    columns = told.get("Columns")
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        raise CorpusError(f"{where}: no *_{suffix}.json beside it or above lists its Columns")
    return columns


def _units(told: dict[str, Any], column: str) -> str:
    described = told.get(column)
    return str(described.get("Units", "")) if isinstance(described, dict) else ""


def _mean(values: np.ndarray) -> float:
    """Of those that are numbers; NaN if none is."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else np.nan
