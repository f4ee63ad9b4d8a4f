"""Runs for pages: made-up densities, names that no page may take for anything but names."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from gazecore.errors import DecodeError
from gazecore.images.formats import Limits
from gazecore.images.listing import listing_of
from gazecore.results.run import ModelNote, Run, RunSettings, begin_run, open_run
from gazecore.results.write import commit_shard
from gazecore.shards.plan import shards
from gazecore.shards.planning import update_plan
from gazecore.shards.stage import failed_row
from gazecore.storage import Location
from tests.conftest import make_photo
from tests.scoring import rows_of

HOSTILE = (
    "</script><script>window.hacked = 1</script>.jpg",
    "<img src=x onerror='window.hacked = 1'>.jpg",
    "\"quoted' & <!-- {{ 7 * 7 }} <b>.jpg",
    "back\\slash \u2028 line.jpg",
    f"{'long-name-' * 15}.jpg",
)


def density(x: float, y: float, sigma: float = 0.1) -> np.ndarray:
    """A bump at a place in parts of the sides, on a grid of 24 x 36: log, float32."""
    rows, columns = np.mgrid[:24, :36]
    away = ((columns + 0.5) / 36 - x) ** 2 + ((rows + 0.5) / 24 - y) ** 2
    log = -away / (2 * sigma**2)
    return (log - math.log(np.exp(log).sum())).astype(np.float32)


def page_run(
    folder: Path,
    names: Sequence[str],
    images: Path | None = None,
    failing: Sequence[str] = (),
    done: int | None = None,
) -> Run:
    """A run of images of 72 x 48 pixels in shards of sixteen.

    Args:
        folder: of the run.
        names: the image_ids; each image's bump is further right than that of the one before.
        images: a folder to fill with the images; None: there are none.
        failing: those of them that could not be read.
        done: shards that have rows; None: all.
    """
    settings = RunSettings(f"{folder.parent}/holiday", "f" * 64, "1024", 16, 1, Limits())
    note = ModelNote("default", "OSIE, then MIT1003")
    run = begin_run(Location(str(folder)), settings, note)
    uris = [str(images or folder.parent / "gone") + f"/{n}.jpg" for n in range(len(names))]
    for number, uri in enumerate(uris if images else ()):
        Path(uri).parent.mkdir(exist_ok=True)
        make_photo(number, 72, 48).save(uri)
    update_plan(run, listing_of(pa.table({"image_id": list(names), "uri": uris})))
    place = {name: (i + 1) / (len(names) + 1) for i, name in enumerate(names)}
    for shard in list(shards(run))[:done]:
        scores, stored = [], []
        for row in shard.images.select(["image_id", "uri"]).to_pylist():
            name = row["image_id"]
            if name in failing:
                scores.append(failed_row(row, DecodeError(f"no image: {name}")))
                continue
            made = rows_of(row, density(place[name], 0.4, 0.05 + 0.1 * place[name]), 1)
            scores.append(made[0])
            stored.append(made[1])
        commit_shard(run, shard.number, scores, stored)
    return open_run(run.location)
