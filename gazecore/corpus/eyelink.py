"""EyeLink's ASC files, as `edf2asc` makes them of EDF files.

    SUBJECT.asc     lines of text; of these, with times in milliseconds, are read
      MSG  time [offset] TRIALID ...                           a trial begins
      MSG  time [offset] !V IMGLOAD CENTER path [x y [w h]]    its image, and where it stands
      MSG  time [offset] !V TRIAL_VAR image path               or the image of the whole trial
      MSG  time [offset] !V CLEAR ...                          the image is gone
      MSG  time GAZE_COORDS left top right bottom              the screen, or DISPLAY_COORDS
      START time LEFT RIGHT ...  and  END time ...             a recording, and its eyes
      EFIX eye start end duration x y pupil                    a fixation

An offset is how long before the message it happened (EyeLink Data Viewer's manual, "Protocol for
EyeLink Data to Viewer Integration"). Where no file has a TRIALID, each recording is a trial.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from gazecore.corpus.schema import Corpus
from gazecore.corpus.screen import Box, Shown, Size, box_of
from gazecore.corpus.text import read_utf8
from gazecore.corpus.viewings import NOT_SHOWN, Viewings
from gazecore.errors import CorpusError, InputError, one_line
from gazecore.storage import Location

OTHER_EYE = "fixations of the other eye"
WITHOUT_NAME = "fixations of trials that name no image"

_NUMBER = r"[-+]?\d+(?:\.\d+)?"
_MESSAGE = re.compile(rf"MSG\s+(\d+(?:\.\d+)?)\s+(?:({_NUMBER})\s+)?(.*)")
_TRIAL = re.compile(rf"^MSG\s+\d[\d.]*\s+(?:{_NUMBER}\s+)?TRIALID", re.MULTILINE)
_COORDS = re.compile(r"(?:DISPLAY|GAZE)_COORDS" + rf"\s+({_NUMBER})" * 4)
_LOADED = re.compile(rf"!V IMGLOAD\s+(CENTER|TOP_LEFT|FILL)\s+(.+?)((?:\s+{_NUMBER}){{0,4}})\s*")
_VARIABLE = re.compile(r"!V TRIAL_VAR\s+image\s+(.+)", re.IGNORECASE)
_EYES = {"L": "left", "R": "right"}


@dataclass(frozen=True)
class EyelinkOptions:
    """Which eye is read of EyeLink's files, and how they name and show images."""

    images: str | None = None
    """Folder, prefix, glob or list of the images. Default: SOURCE."""
    eye: Literal["left", "right"] = "right"
    """Whose fixations are taken where both eyes were recorded; else those of the one that was."""
    message: str | None = None
    """Messages that name the image, a pattern with one group: `PICTURE (.+)`. Default: `!V ...`."""
    screen: tuple[int, int] | None = None
    """Width and height of the screen in pixels. Default: by the files' GAZE_COORDS."""
    shown: Shown | None = None
    """How images stood on the screen. Default: as `!V IMGLOAD` says, or else centred."""
    encoding: str | None = None
    """How the files are written: `latin-1`, `cp1252`, ... Default: UTF-8."""


@dataclass(frozen=True)
class _Showing:
    """That an image appeared, or None of them was there any more."""

    time: float
    name: str | None
    how: str = ""
    place: tuple[float, ...] = ()


@dataclass
class _Trial:
    showings: list[_Showing] = field(default_factory=list)
    variable: str | None = None
    """The image of the whole trial."""
    fixations: list[tuple[str, float, float, float, float]] = field(default_factory=list)
    """Eye, start and duration in ms, x, y."""
    eyes: frozenset[str] = frozenset()
    started: float | None = None
    coords: tuple[float, ...] | None = None
    """Left, top, right and lower pixel of the screen."""
    began: float = -np.inf

    def next(self, began: float = -np.inf) -> "_Trial":
        """The one after it, on the same screen, and perhaps in the same recording."""
        return _Trial(coords=self.coords, eyes=self.eyes, began=began)


def read_eyelink(source: str, options: EyelinkOptions | None = None) -> Corpus:
    """Import a folder of ASC files, or one; each is a subject of its name.

    A fixation is on the image that was shown last when it began. Where none of a trial's fixations
    began after its image was named, the whole trial is on that image. Images that are never shown
    are left out.

    Raises:
        CorpusError: a file is missing, cut or malformed; the message names it and the line.
        InputError: there are no images, or the pattern is none.
    """
    options = options or EyelinkOptions()
    pattern = _pattern(options.message)
    root = Location(source)
    is_file = root.path.lower().endswith(".asc")
    files = {_stem(root.path): root} if is_file else _files(root)
    folder = root.uri.rpartition("/")[0] if is_file else root.uri
    viewings = Viewings(options.images or folder, "--eyelink.images")
    for subject, location in files.items():
        for trial in _trials(location, options, pattern):
            _add(viewings, subject, trial, location, options)
    return viewings.corpus(source)


def _pattern(message: str | None) -> re.Pattern[str] | None:
    if message is None:
        return None
    try:
        pattern = re.compile(message)
    except re.error as error:
        raise InputError(f"--eyelink.message {message}: {one_line(error)}") from error
    if pattern.groups != 1:
        raise InputError(f"--eyelink.message {message}: it needs one group, such as `IMAGE (.+)`")
    return pattern


def _stem(path: str) -> str:
    return path.rpartition("/")[2].rpartition(".")[0]


def _files(root: Location) -> dict[str, Location]:
    """ASC files by their paths from the folder, without the suffix."""
    paths = [path.removeprefix(root.path).lstrip("/") for path in sorted(root.fs.find(root.path))]
    found = {path[:-4]: root / path for path in paths if path.lower().endswith(".asc")}
    if not found:
        edf = any(path.lower().endswith(".edf") for path in paths)
        remedy = "; `edf2asc` makes them of its EDF files" if edf else ""
        raise CorpusError(f"{root.uri} has no ASC files{remedy}")
    return found


def _trials(
    location: Location, options: EyelinkOptions, pattern: re.Pattern[str] | None
) -> list[_Trial]:
    """The trials of a file, in their order."""
    try:
        text = read_utf8(location, options.encoding, "--eyelink.encoding").decode()
    except OSError as error:
        raise CorpusError(f"{location.uri}: {one_line(error)}") from error
    by_recording = not _TRIAL.search(text)
    trial, began = _Trial(), 0
    trials = [trial]
    for number, line in enumerate(text.split("\n"), 1):
        kind = line.split(maxsplit=1)[0] if line[:1].isalpha() else ""  # most are samples
        try:
            if kind == "MSG" and (message := _MESSAGE.match(line)):
                time, offset, said = float(message[1]), float(message[2] or 0), message[3].strip()
                if said.startswith("TRIALID"):
                    trials.append(trial := trial.next(time))
                elif coords := _COORDS.match(said):
                    trial.coords = tuple(map(float, coords.groups()))
                else:
                    _read_message(trial, time - offset, said, pattern)
            elif kind == "START":
                began, time = number, float(line.split()[1])
                trial.started = time if trial.started is None else trial.started
                trial.eyes = frozenset(e for e in _EYES.values() if e.upper() in line.split())
            elif kind == "EFIX":
                _, eye, *numbers = line.split()[:7]
                if len(numbers) < 5:
                    raise ValueError("EFIX has no position: the line is cut")
                start, _, duration, x, y = (np.nan if n == "." else float(n) for n in numbers)
                # What ends in a trial may have begun in the one before, in the same recording.
                its = trials[-2] if start < trial.began and len(trials) > 1 else trial
                its.fixations.append((_EYES[eye], start, duration, x, y))
            elif kind == "EVENTS" and "GAZE" not in line.split():
                raise ValueError("EVENTS are not in GAZE positions: let `edf2asc` write those")
            elif kind == "END":
                began = 0
                if by_recording:
                    trials.append(trial := trial.next())
        except (ValueError, KeyError, IndexError) as error:
            raise CorpusError(f"{location.uri}: line {number}: {one_line(error)}") from error
    if began:
        raise CorpusError(
            f"{location.uri} is cut: the recording that START begins in line {began} has no END"
        )
    if not any(trial.fixations for trial in trials):
        raise CorpusError(f"{location.uri} has no fixations (EFIX): let `edf2asc` write events")
    return trials


def _read_message(trial: _Trial, time: float, said: str, pattern: re.Pattern[str] | None) -> None:
    """Take note of a message that shows or names an image, or takes it away."""
    if said.startswith("!V CLEAR"):
        trial.showings.append(_Showing(time, None))
    elif pattern:
        if found := pattern.search(said):
            trial.showings.append(_Showing(time, found[1]))
    elif loaded := _LOADED.fullmatch(said):
        place = tuple(map(float, loaded[3].split()))
        trial.showings.append(_Showing(time, loaded[2], loaded[1], place))
    elif variable := _VARIABLE.fullmatch(said):
        trial.variable = variable[1].strip()


def _add(
    viewings: Viewings, subject: str, trial: _Trial, location: Location, options: EyelinkOptions
) -> None:
    """Add what a trial's fixations fell on."""
    only = trial.eyes if len(trial.eyes) == 1 else {options.eye}
    rows = sorted(row[1:] for row in trial.fixations if row[0] in only)
    viewings.collector.drop(OTHER_EYE, len(trial.fixations) - len(rows))
    showings = sorted(trial.showings, key=lambda showing: showing.time)
    named = [showing for showing in showings if showing.name is not None]
    if not named and trial.variable is not None:
        named = [_Showing(np.inf, trial.variable)]
    if not named:
        viewings.collector.drop(WITHOUT_NAME, len(rows))
        return
    if not any(start >= named[0].time for start, *_ in rows):  # it was named afterwards
        showings = [_Showing(-np.inf, named[-1].name, named[-1].how, named[-1].place)]
    seen: dict[int, list[tuple[float, float, float, float]]] = {}
    for start, duration, x, y in rows:
        last = sum(showing.time <= start for showing in showings) - 1
        if last < 0 or showings[last].name is None:
            viewings.collector.drop(NOT_SHOWN, 1)
            continue
        since = showings[last].time
        if trial.started is not None:
            since = max(since, trial.started)
        seen.setdefault(last, []).append((x, y, (start - since) / 1000, duration / 1000))
    for last, fixations in seen.items():
        place = _box(showings[last], trial.coords, location, options)
        viewings.add(str(showings[last].name), subject, np.array(fixations), place)


def _box(
    showing: _Showing, coords: tuple[float, ...] | None, location: Location, options: EyelinkOptions
) -> Callable[[Size], Box]:
    """What says where an image stood, in the coordinates of the gaze."""

    def box(image: Size) -> Box:
        place = showing.place if options.shown is None else ()
        if len(place) == 4:
            x, y, width, height = place
            if min(width, height) <= 0:
                raise CorpusError(f"{location.uri}: {showing.name} is shown at no size")
        elif options.screen is None and coords is None:
            raise CorpusError(f"{location.uri} has no GAZE_COORDS: give --eyelink.screen")
        else:
            left, top, right, bottom = coords or (0, 0, 0, 0)
            screen = options.screen or (round(right - left + 1), round(bottom - top + 1))
            said: Shown = "stretched" if showing.how == "FILL" else "centred"
            shown = options.shown or said
            x, y, width, height = box_of(image, screen, shown, "--eyelink.shown")
            x, y = x + left, y + top
            if len(place) < 2:
                return x, y, width, height
            x, y = place[:2]
        if showing.how == "CENTER":
            x, y = x - width / 2, y - height / 2
        return x, y, width, height

    return box
