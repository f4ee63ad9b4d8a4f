"""A stage whose images take time and no computing, as on somebody else's GPU.

Nothing here imports torch, so that an actor with it starts in a second and takes 0.1 GB.
"""

import io
import json
import math
import os
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from PIL import Image

from gazecore.images.decode import NetworkInput
from gazecore.results.schema import DENSITIES, SCORES
from gazecore.shards.directory import ShardedDirectory
from gazecore.shards.stage import ReadingConfig, Row
from gazecore.shards.worker import SHARDS_AT_ONCE
from gazecore.storage import Location

CELLS = 64 * 48

UNIFORM = {
    "information_bits": 0.0, "concentration_bits": 0.0, "peak_x": 0.5, "peak_y": 0.5,
    "mean_x": 512.0, "mean_y": 384.0, "std_x": 295.6, "std_y": 221.7, "cov_xy": 0.0,
    "area_50": 0.5, "area_90": 0.9, "center_mass": 0.25, "n_peaks": 1,
    "peaks": [{"x": 0.5, "y": 0.5, "height": 1.0, "share": 0.003}],
}  # fmt: skip
"""What the statistics of that density are, so that `verify` finds nothing to say."""


def listed(folder: Path, count: int) -> str:
    """A list of so many images, all of which are one small file."""
    image = folder / "image.bmp"
    Image.new("RGB", (16, 16)).save(image)
    path = folder / "list.csv"
    path.write_text("image_id,uri\n" + "".join(f"{i:06d},{image}\n" for i in range(count)))
    return str(path)


@dataclass(frozen=True)
class SleepingConfig:
    """Sleeps for each image, then commits real shards with made-up values.

    Attributes:
        where: the run directory.
        seconds: for each image, on average, with as many at a time as an actor has shards.
        diary: folder where each commit leaves a note on who made it, just before; None: nowhere.
        payload: what else is sent, as a network's weights.
        together: actors wait until so many have started.
        stagger: and then for up to so many seconds, so that they do not end their shards in step.
    """

    where: str
    seconds: float
    diary: str | None = None
    payload: Any = None
    together: int = 0
    stagger: float = 0
    reading: ReadingConfig = field(default_factory=lambda: ReadingConfig("native", fetchers=2))

    def build(self, threads: int | None = None, gpu: bool | None = None) -> "SleepingStage":
        """Nothing is loaded."""
        if self.together:
            started = Path(self.where).parent / "started"
            started.mkdir(exist_ok=True)
            (started / str(os.getpid())).touch()
            while len(list(started.iterdir())) < self.together:
                time.sleep(0.2)
            time.sleep(random.uniform(0, self.stagger))
        return SleepingStage(self, threads)


class SleepingStage:
    def __init__(self, config: SleepingConfig, threads: int | None = None) -> None:
        self._config, self._threads = config, threads

    def batch_size(self, height: int, width: int) -> int:
        return 1

    def compute(self, pixels: np.ndarray) -> None:
        time.sleep(self._config.seconds / SHARDS_AT_ONCE * random.uniform(0.9, 1.1))

    def finish(
        self, row: Row, image: NetworkInput, computed: None, position: int
    ) -> tuple[Row, Row]:
        size = {"height": 768, "width": 1024}
        score = {"image_id": row["image_id"], "uri": row["uri"], "status": "ok", **size, **UNIFORM}
        density = {
            "image_id": row["image_id"], **size, "grid_height": 48, "grid_width": 64,
            "log_density": [0] * CELLS,  # everywhere is as likely
            "log_offset": -math.log(CELLS),
        }  # fmt: skip
        return score, density

    def commit(self, shard: int, outcomes: list[Row], results: list[Row]) -> None:
        if self._config.diary:
            note = {
                "shard": shard,
                "pid": os.getpid(),
                "node": ray.get_runtime_context().get_node_id(),
                "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"),
                "threads": self._threads,
                "at": time.time(),
            }
            written = Path(self._config.diary) / f"{shard}-{os.getpid()}"
            written.write_text(json.dumps(note))
            written.rename(written.with_suffix(".json"))  # read whole, by who looks meanwhile
        files = (_parquet(outcomes, SCORES), _parquet(results, DENSITIES))
        run = ShardedDirectory(
            Location(self._config.where), 1, outcomes="scores", results="densities"
        )
        run.commit(shard, *files)

    def mend(self, shard: int, outcomes: list[Row], results: list[Row]) -> None:
        raise AssertionError("nothing fails here")


def notes(diary: Path) -> list[dict[str, Any]]:
    """What `SleepingStage` left in its diary, one note for each commit."""
    return [json.loads(path.read_text()) for path in sorted(diary.glob("*.json"))]


def _parquet(rows: list[Row], schema: pa.Schema) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema), buffer, compression="zstd")
    return buffer.getvalue()
