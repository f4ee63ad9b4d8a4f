"""What people did in a region, where their fixations were recorded."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from gazecore.corpus.schema import Corpus
from gazecore.density.regions import Pixels

RECORDED = {
    "recorded_fixations": pa.int32(),
    "recorded_share": pa.float64(),
    "viewers": pa.int32(),
    "hit_share": pa.float64(),
    "first_hit": pa.float64(),
    "first_hit_seconds": pa.float64(),
    "dwell_seconds": pa.float64(),
    "dwell_share": pa.float64(),
}
"""What `Scanpaths.of` finds; docs/regions.md says what each is."""


@dataclass(frozen=True)
class Scanpaths:
    """The fixations on an image, one or more.

    Attributes:
        points: (n, 2), x and y.
        viewer: int (n,), which viewer's.
        index: (n,), order within the viewer's scanpath.
        t, duration: (n,) seconds, NaN where they are not known.
    """

    points: np.ndarray
    viewer: np.ndarray
    index: np.ndarray
    t: np.ndarray
    duration: np.ndarray

    def of(self, pixels: Pixels) -> dict[str, float | int | None]:
        """What people did in a region: a value for each of RECORDED, None where it is unknown."""
        inside = pixels.hold(self.points)
        viewers = len(np.unique(self.viewer))
        # A viewer's first: fixations are in the order of viewers and of their scanpaths.
        hits, first = np.unique(self.viewer[inside], return_index=True)
        times = self.t[inside][first]
        durations_known = not np.isnan(self.duration).any()
        all_time = float(self.duration.sum())
        dwell = float(self.duration[inside].sum())
        return {
            "recorded_fixations": int(inside.sum()),
            "recorded_share": float(inside.mean()),
            "viewers": viewers,
            "hit_share": len(hits) / viewers,
            "first_hit": float(self.index[inside][first].mean()) if len(hits) else None,
            "first_hit_seconds": (
                float(times.mean()) if len(hits) and not np.isnan(times).any() else None
            ),
            "dwell_seconds": dwell / viewers if durations_known else None,
            "dwell_share": dwell / all_time if durations_known and all_time > 0 else None,
        }


class CorpusScanpaths:
    """A corpus's fixations by image."""

    def __init__(self, corpus: Corpus) -> None:
        table = corpus.fixations
        self._rows = corpus.rows_by_image()
        self._sizes = {r["image_id"]: (r["height"], r["width"]) for r in corpus.images.to_pylist()}
        self._points = np.column_stack([table[name].to_numpy() for name in ("x", "y")])
        subjects = table["subject"].combine_chunks().dictionary_encode()
        self._viewer = subjects.indices.to_numpy()
        self._index = table["index"].to_numpy()
        self._t, self._duration = (
            table[name].fill_null(np.nan).to_numpy() for name in ("t", "duration")
        )

    def on(self, image_id: str, height: int, width: int) -> Scanpaths | None:
        """The fixations on an image; None where there are none, or it has another size there."""
        rows = self._rows.get(image_id)
        if rows is None or not len(rows) or self._sizes[image_id] != (height, width):
            return None
        rows = rows[np.lexsort((self._index[rows], self._viewer[rows]))]
        return Scanpaths(
            self._points[rows], self._viewer[rows], self._index[rows], self._t[rows],
            self._duration[rows],
        )  # fmt: skip
