"""The best crops of a run's images: a table, and the pieces as files if they are asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from gazecore.crops.files import CropFiles
from gazecore.density.crops import CropConfig, best_crop, focal_point, ratio_of
from gazecore.errors import InputError
from gazecore.ownership import is_table_of, refuse_foreign
from gazecore.results.run import Run
from gazecore.results.status import Status, run_status
from gazecore.results.stream import StoredDensity, of_each_density
from gazecore.steps import Steps, told, uncounted
from gazecore.storage import Location
from gazecore.tables import growing_table, required
from gazecore.tasks import Tasks

CROPS = pa.schema(
    [
        required("image_id", pa.string()),
        required("aspect", pa.string()),
        *(required(name, pa.int32()) for name in ("x", "y", "width", "height")),
        *(required(name, pa.float64()) for name in ("scale", "share", "center_share")),
        *(required(name, pa.float64()) for name in ("focal_x", "focal_y")),
        pa.field("file", pa.string()),
        pa.field("error_message", pa.string()),
    ]
)
"""Meanings: docs/crops.md."""

_FIRST = 10


@dataclass
class Cropped:
    """What was found.

    Attributes:
        out: the table, of the schema CROPS.
        status: of the run.
        images: that have crops.
        files, failed: pieces that were written, and that could not be.
        kept, central: the mean share of the fixations that the crops of each aspect keep, and that
            central boxes of the same sizes would.
        first: the table's first rows, to show.
    """

    out: Location
    status: Status
    images: int = 0
    files: int = 0
    failed: int = 0
    kept: dict[str, float] = field(default_factory=dict)
    central: dict[str, float] = field(default_factory=dict)
    first: list[dict[str, Any]] = field(default_factory=list, repr=False)

    @property
    def table(self) -> pa.Table:
        """The table, read."""
        return self.out.read_table()

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Count the rows of an image."""
        self.first += rows[: _FIRST - len(self.first)]
        self.images += 1
        for row in rows:
            self.files += row["file"] is not None
            self.failed += row["error_message"] is not None
            for means, share in ((self.kept, "share"), (self.central, "center_share")):
                mean = means.get(row["aspect"], 0.0)
                means[row["aspect"]] = mean + (row[share] - mean) / self.images


def crop_run(
    run: Run,
    aspects: Sequence[str],
    out: Location,
    config: CropConfig = CropConfig(),
    files: Location | None = None,
    *,
    overwrite: bool = False,
    steps: Steps = uncounted,
    tasks: Tasks | None = None,
) -> Cropped:
    """Find the best crops of all images that have a density; one pass over them.

    Args:
        run: finished or not; of one that is not, what is scored so far is cropped.
        aspects: `16:9` and so on, each once.
        out: the Parquet file to write, of the schema CROPS: a row for each image and aspect.
        config: how a box is chosen.
        files: a folder for the pieces; None: none are cut, and no image is read.
        overwrite: replace files that gazecore did not make.
        steps: how somebody is told.
        tasks: who does the work; None: threads of this process.

    Raises:
        InputError: an aspect is none, or there is none; a file of others would be written over;
            or the run has no density.
        StorageUnavailable: an image's storage does not answer.
    """
    try:
        ratios = {aspect: ratio_of(aspect) for aspect in aspects}
    except ValueError as error:
        raise InputError(f"--aspect: {error}") from error
    if not ratios or len(ratios) < len(aspects):
        raise InputError("--aspect names at least one ratio, and each once")
    refuse_foreign([out], is_table_of(CROPS), overwrite)
    if f"{out.uri}/".startswith(f"{run.location.uri}/"):
        raise InputError("--out lies in the run, which holds its own files only: name another")
    pieces = CropFiles(run, files, aspects, overwrite) if files else None
    cropped = Cropped(out, run_status(run))
    if not cropped.status.ok:
        raise InputError(f"{run.location.uri} has no densities: no image is scored")

    def work(density: StoredDensity) -> list[dict[str, Any]]:
        return _rows(density, ratios, config, pieces)

    found = of_each_density(run, work, tasks)
    with growing_table(out, CROPS) as write, steps("densities", cropped.status.ok) as on_density:
        for rows in told(found, on_density):
            cropped.add(rows)
            write(rows)
    return cropped


def _rows(
    density: StoredDensity, ratios: dict[str, float], config: CropConfig, pieces: CropFiles | None
) -> list[dict[str, Any]]:
    probabilities = density.probabilities()
    crops = [best_crop(probabilities, ratio, config) for ratio in ratios.values()]
    x, y = focal_point(probabilities)
    del probabilities
    size = density.height, density.width
    cuts = pieces.write(density.image_id, size, crops) if pieces else [(None, None)] * len(crops)
    return [
        {
            "image_id": density.image_id, "aspect": aspect, "x": crop.x, "y": crop.y,
            "width": crop.width, "height": crop.height, "scale": crop.scale, "share": crop.share,
            "center_share": crop.center_share, "focal_x": x, "focal_y": y, "file": file,
            "error_message": error,
        }
        for aspect, crop, (file, error) in zip(ratios, crops, cuts, strict=True)
    ]  # fmt: skip
