"""A run's densities, and recorded fixations beside them, measured on regions: a table."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from gazecore.corpus.schema import Corpus
from gazecore.density.regions import measure, ranks
from gazecore.errors import InputError
from gazecore.ownership import is_table_of, refuse_foreign
from gazecore.regions.recorded import RECORDED, CorpusScanpaths, Scanpaths
from gazecore.regions.region import Region, Regions
from gazecore.results.run import Run
from gazecore.results.status import Status, run_status
from gazecore.results.stream import StoredDensity, of_each_density
from gazecore.steps import Steps, told, uncounted
from gazecore.storage import Location
from gazecore.tables import growing_table, required
from gazecore.tasks import Tasks

REGIONS = pa.schema(
    [
        required("image_id", pa.string()),
        required("region", pa.int64()),
        required("name", pa.string()),
        required("status", pa.string()),
        pa.field("error_message", pa.string()),
        pa.field("pixels", pa.int64()),
        pa.field("share", pa.float64()),
        pa.field("area_share", pa.float64()),
        pa.field("ratio", pa.float64()),
        pa.field("rank", pa.int32()),
        pa.field("peak_x", pa.float64()),
        pa.field("peak_y", pa.float64()),
        pa.field("peak_share", pa.float64()),
        required("fixations", pa.int32()),
        pa.field("chance", pa.float64()),
        *(pa.field(name, kind) for name, kind in RECORDED.items()),
    ]
)
"""Meanings: docs/regions.md."""

_FIRST = 10

FIXATIONS = 10
"""Of which at least one may fall in a region; about three seconds of free viewing."""


@dataclass
class Measured:
    """What was measured.

    Attributes:
        out: the table, of the schema REGIONS.
        status: of the run.
        images: with a density and a region at least.
        regions: measured.
        unmeasured: named, and not measured: their rows say why.
        correlation: of predicted with recorded shares over all regions that have both; None: too
            few have.
        compared: how many those are.
        first: the table's first rows, to show.
    """

    out: Location
    status: Status
    images: int = 0
    regions: int = 0
    unmeasured: int = 0
    correlation: float | None = None
    compared: int = 0
    first: list[dict[str, Any]] = field(default_factory=list, repr=False)
    _pairs: list[tuple[float, float]] = field(default_factory=list, repr=False)

    @property
    def table(self) -> pa.Table:
        """The table, read."""
        return self.out.read_table()

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Count the rows of an image."""
        self.first += rows[: _FIRST - len(self.first)]
        good = [row for row in rows if row["status"] == "ok"]
        self.images += bool(rows)
        self.regions += len(good)
        self.unmeasured += len(rows) - len(good)
        pairs = [(row["share"], row["recorded_share"]) for row in good if "recorded_share" in row]
        self._pairs += pairs

    def settle(self) -> None:
        """Compute what needs all of them."""
        predicted, recorded = np.array(self._pairs).reshape(-1, 2).T
        self.compared = len(predicted)
        if self.compared > 2 and predicted.std() and recorded.std():
            self.correlation = float(np.corrcoef(predicted, recorded)[0, 1])


def measure_run(
    run: Run,
    regions: Regions,
    out: Location,
    corpus: Corpus | None = None,
    fixations: int = FIXATIONS,
    *,
    overwrite: bool = False,
    steps: Steps = uncounted,
    tasks: Tasks | None = None,
) -> Measured:
    """Measure regions on the densities of a run; one pass over them.

    Args:
        run: finished or not; of one that is not, what is scored so far is measured.
        regions: from `open_regions`.
        out: the Parquet file to write, of the schema REGIONS: a row for every region.
        corpus: fixations on the run's images, by image_id, to measure beside.
        fixations: of which at least one may fall in, for the column `chance`.
        overwrite: replace a file that gazecore did not make.
        steps: how somebody is told.
        tasks: who does the work; None: threads of this process.

    Raises:
        InputError: `fixations` is not positive, a file of others would be written over, or no
            region is of an image of the run.
    """
    if not 1 <= fixations < 2**31:
        raise InputError(f"--fixations must be at least 1, not {fixations}")
    refuse_foreign([out], is_table_of(REGIONS), overwrite)
    if f"{out.uri}/".startswith(f"{run.location.uri}/"):
        raise InputError("--out lies in the run, which holds its own files only: name another")
    scanpaths = CorpusScanpaths(corpus) if corpus else None
    measured = Measured(out, run_status(run))
    seen: set[str] = set()

    def work(density: StoredDensity) -> tuple[str, list[dict[str, Any]]]:
        size = density.height, density.width
        listed = regions.of_image(density.image_id, *size)
        recorded = scanpaths.on(density.image_id, *size) if scanpaths and listed else None
        return density.image_id, _rows(density, listed, fixations, recorded) if listed else []

    found = of_each_density(run, work, tasks)
    with growing_table(out, REGIONS) as write, steps("densities", measured.status.ok) as on_density:
        for image_id, rows in told(found, on_density):
            if rows:
                seen.add(image_id)
                measured.add(rows)
                write(rows)
        others = regions.elsewhere(seen)
        if not seen:
            other = next(others, None)
            named = f"; it names {other[0]!r}, for instance" if other else ""
            raise InputError(f"no region is of an image with a density in the run{named}")
        for image_id, number, name in others:
            measured.unmeasured += 1
            why = "the run has no density of the image"
            write([_failed(image_id, number, name, why, fixations)])
    measured.settle()
    return measured


def _rows(
    density: StoredDensity, regions: list[Region], fixations: int, recorded: Scanpaths | None
) -> list[dict[str, Any]]:
    probabilities = density.probabilities()
    rows, good = [], []
    for region in regions:
        row = _failed(density.image_id, region.number, region.name, region.error, fixations)
        if region.pixels is not None:
            found = measure(probabilities, region.pixels)
            row |= {
                "status": "ok", "error_message": None,
                "pixels": region.pixels.count, "share": found.share,
                "area_share": found.area_share, "ratio": found.ratio,
                "peak_x": found.peak_x, "peak_y": found.peak_y, "peak_share": found.peak_share,
                "chance": found.chance(fixations),
            }  # fmt: skip
            row |= recorded.of(region.pixels) if recorded else {}
            good.append(row)
        rows.append(row)
    for row, rank in zip(good, ranks([row["share"] for row in good]), strict=True):
        row["rank"] = rank
    return rows


def _failed(image_id: str, number: int, name: str, why: str, fixations: int) -> dict[str, Any]:
    return {
        "image_id": image_id, "region": number, "name": name, "status": "failed",
        "error_message": why, "fixations": fixations,
    }  # fmt: skip
