"""The layout of OSIE (Xu et al. 2014): `stimuli/*.jpg` and `fixations.mat`.

`fixations.mat` holds a cell array `fixations` with one struct per image: `.img` (file name) and
`.subjects` (structs of `fix_x`, `fix_y` in pixels and `fix_duration` in milliseconds, in viewing
order). Coordinates are taken as they are. Fixations outside their image are dropped and counted.
"""

from typing import Any

import numpy as np

from gazecore.corpus.collect import Collector, image_size, left_over, read_mat
from gazecore.corpus.schema import Corpus
from gazecore.errors import CorpusError, one_line
from gazecore.images.formats import SUFFIXES
from gazecore.storage import Location


def read_osie(source: str) -> Corpus:
    """Import a folder in OSIE's layout.

    Raises:
        CorpusError: a file or field is missing or malformed; the message names it.
    """
    root = Location(source)
    mat = root / "fixations.mat"
    collector = Collector()
    cells = np.atleast_1d(read_mat(mat, "fixations"))
    if not len(cells):
        raise CorpusError(f"{mat.uri}: fixations is empty")
    for position, cell in enumerate(cells):
        try:
            name, subjects = str(cell.img), np.atleast_1d(cell.subjects)
            scanpaths = [
                [_row(getattr(s, key), key) for key in ("fix_x", "fix_y", "fix_duration")]
                for s in subjects
            ]
        except (AttributeError, ValueError, TypeError) as error:
            raise CorpusError(
                f"{mat.uri}: fixations{{{position + 1}}}: {one_line(error)}"
            ) from error
        stimulus = root / "stimuli" / name
        collector.add_image(name, stimulus.uri, image_size(stimulus))
        for subject, (x, y, duration) in enumerate(scanpaths):
            if not len(x) == len(y) == len(duration):
                raise CorpusError(
                    f"{mat.uri}: {name}, subject {subject + 1}: fix_x, fix_y and fix_duration "
                    f"have {len(x)}, {len(y)} and {len(duration)} values"
                )
            collector.add_scanpath(name, str(subject + 1), x, y, duration=duration / 1000)
    unnamed = left_over(root / "stimuli", SUFFIXES, collector.sizes)
    collector.drop("images that fixations.mat does not name", unnamed)
    return collector.corpus()


def _row(values: Any, name: str) -> np.ndarray:
    """Numbers in a row, float64 (n,), singleton dimensions gone."""
    row = np.atleast_1d(values)
    if row.ndim > 1 or (row.size and row.dtype.kind not in "biuf"):
        raise ValueError(f"{name} is {row.dtype} of the shape {row.shape}, not numbers in a row")
    return row.astype(float)
