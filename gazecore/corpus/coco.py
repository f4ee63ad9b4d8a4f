"""COCO-FreeView (Yang et al. 2023) and COCO-Search18 (Chen et al. 2021): on COCO's images.

    *.json        a list of scanpaths: `name` of the image, `subject`, `X` and `Y` in pixels of the
                  display, `T` how long each fixation took in ms; `split`, `condition`, and in
                  COCO-Search18 `task`, what was searched for
    */NAME.jpg    the images, in any folders

Images were shown on a display of 1680 x 1050 pixels, resized to fit and centred. The images that
are released with the scanpaths have that size; positions on COCO's own are brought back to them.
The first of each scanpath, which a central fixation mark forced, is left out.
"""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from gazecore.corpus.collect import Collector, image_size
from gazecore.corpus.schema import Corpus
from gazecore.corpus.screen import box_of, on_image
from gazecore.errors import CorpusError, one_line
from gazecore.images.formats import SUFFIXES
from gazecore.storage import Location
from gazecore.wording import counted

DISPLAY = (1680, 1050)
"""Width and height of the display, pixels."""


@dataclass(frozen=True)
class CocoOptions:
    """Which scanpaths are read, and from which file."""

    scanpaths: str | None = None
    """The JSON file, relative to SOURCE. By default the only one there."""
    split: str | None = None
    """Only these scanpaths: `train`, `valid` or `test`. By default all."""
    condition: str | None = None
    """Only these: `freeview`, `present` or `absent`. By default all."""
    task: str | None = None
    """Only the search for this, such as `clock`. By default all."""
    keep_first: bool = False
    """Keep the first fixation of each scanpath."""


def read_coco(source: str, options: CocoOptions | None = None) -> Corpus:
    """Import scanpaths; images without one of those that are asked for are left out.

    Scanpaths of a subject on one image, as for several tasks, are one after the other.

    Raises:
        CorpusError: a file or field is missing or malformed; the message names it.
    """
    options = options or CocoOptions()
    root = Location(source)
    listed = _scanpaths(root, options.scanpaths)
    wanted = {
        key: value
        for key in ("split", "condition", "task")
        if (value := getattr(options, key)) is not None
    }
    chosen = [s for s in listed if all(s.get(key) == value for key, value in wanted.items())]
    if not chosen:
        said = ", ".join(f"{key} {value!r}" for key, value in wanted.items())
        known = ", ".join(
            f"{key}: {' '.join(sorted({str(s[key]) for s in listed if key in s}))}"
            for key in wanted
        )
        raise CorpusError(f"{source} has no scanpath of {said or 'any kind'}; it has {known}")
    files = _images(root)
    collector = Collector()
    followed: dict[tuple[str, str], int] = {}
    missing = 0
    for number, scanpath in enumerate(chosen):
        try:
            name, subject = str(scanpath["name"]), str(scanpath["subject"])
            x, y, t = (np.asarray(scanpath[key], dtype=float) for key in ("X", "Y", "T"))
            if not x.ndim == 1 or not len(x) == len(y) == len(t):
                raise ValueError(f"X, Y and T have {len(x)}, {len(y)} and {len(t)} values")
        except (KeyError, TypeError, ValueError) as error:
            raise CorpusError(f"{source}: scanpath {number}: {one_line(error)}") from error
        if name not in files:
            missing += 1
            continue
        if name not in collector.sizes:
            collector.add_image(name, files[name].uri, image_size(files[name]))
        begun = followed.get((name, subject), 0)
        followed[name, subject] = begun + len(x)
        kept = slice(0 if options.keep_first else 1, None)
        collector.drop("first fixations of a scanpath", len(x) - len(x[kept]))
        height, width = collector.sizes[name]
        image = (width, height)
        columns, rows = on_image(x[kept], y[kept], box_of(image, DISPLAY, "fit", ""), image)
        index = begun + np.arange(len(x))[kept]
        collector.add_scanpath(name, subject, columns, rows, None, t[kept] / 1000, index)
    collector.drop("scanpaths without an image", missing)
    if not collector.sizes:
        raise CorpusError(
            f"{source}: none of the images of {counted(len(chosen), 'scanpaths')} is there, such "
            f"as {chosen[0]['name']}"
        )
    return collector.corpus()


def _scanpaths(root: Location, named: str | None) -> list[dict[str, Any]]:
    names = [named] if named else [n for n in root.names() if n.lower().endswith(".json")]
    if len(names) != 1:
        raise CorpusError(
            f"{root.uri} has {counted(len(names), 'JSON files')}: name the one with scanpaths by "
            "--coco.scanpaths"
        )
    location = root / names[0]
    try:
        found = json.loads(location.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CorpusError(f"{location.uri}: {one_line(error)}") from error
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise CorpusError(f"{location.uri} is no list of scanpaths")
    return found


def _images(root: Location) -> dict[str, Location]:
    """Images by their names; folders of several tasks hold the same ones."""
    files: dict[str, Location] = {}
    for path in sorted(root.fs.find(root.path)):
        name = path.rpartition("/")[2]
        if name.lower().endswith(SUFFIXES) and name[0] != ".":
            files.setdefault(name, root / path.removeprefix(root.path).lstrip("/"))
    return files
