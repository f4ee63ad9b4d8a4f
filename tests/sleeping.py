"""A job whose images take time and no computing, as on somebody else's GPU.

Nothing here imports torch, so that an actor with this job starts in a second and takes 0.1 GB.
"""

import io
import json
import math
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray

from cluster.actors import Rows, Work
from gazecore.results.directory import ShardedDirectory
from gazecore.results.schema import DENSITIES, SCORES
from gazecore.scoring.stages import StageClock
from gazecore.storage import Location

CELLS = 64 * 48

UNIFORM = {
    "information_bits": 0.0, "concentration_bits": 0.0, "peak_x": 0.5, "peak_y": 0.5,
    "mean_x": 512.0, "mean_y": 384.0, "std_x": 295.6, "std_y": 221.7, "cov_xy": 0.0,
    "area_50": 0.5, "area_90": 0.9, "center_mass": 0.25, "n_peaks": 1,
}  # fmt: skip
"""What the statistics of that density are, so that `verify` finds nothing to say."""


@dataclass(frozen=True)
class SleepingJob:
    """Sleeps for each image, then commits real shards with made-up values.

    Attributes:
        run: the run directory.
        seconds: for each image, on average over shards.
        diary: folder where each commit leaves a note on who made it, just before; None: nowhere.
        payload: what else the job carries, as a network's weights.
        together: actors wait until so many have started.
        stagger: and then for up to so many seconds, so that they do not end their shards in step.
    """

    run: str
    seconds: float
    diary: str | None = None
    payload: Any = None
    together: int = 0
    stagger: float = 0

    @property
    def where(self) -> str:
        """See `Job.where`."""
        return self.run

    def start(self) -> Work:
        """Nothing is loaded."""
        if self.together:
            started = Path(self.run).parent / "started"
            started.mkdir(exist_ok=True)
            (started / str(os.getpid())).touch()
            while len(list(started.iterdir())) < self.together:
                time.sleep(0.2)
            time.sleep(random.uniform(0, self.stagger))
        return Work(self._process, self._commit, StageClock())

    def _process(
        self,
        images: pa.Table,
        crashed: frozenset[str] = frozenset(),
        last_try: bool = False,
        on_image: Callable[[bool], None] = lambda ok: None,
    ) -> tuple[Rows, Rows]:
        outcomes, results = [], []
        cells = [0] * CELLS  # everywhere is as likely
        size = {"height": 768, "width": 1024}
        pace = random.Random(images["image_id"][0].as_py()).uniform(0.9, 1.1)
        for row in images.select(["image_id", "uri"]).to_pylist():
            time.sleep(self.seconds * pace)
            outcomes.append({**row, "status": "ok", **size, **UNIFORM})
            results.append({
                "image_id": row["image_id"], **size, "grid_height": 48, "grid_width": 64,
                "log_density": cells, "log_offset": -math.log(CELLS),
            })  # fmt: skip
            on_image(True)
        return outcomes, results

    def _commit(self, shard: int, outcomes: Rows, results: Rows) -> None:
        if self.diary:
            note = {
                "shard": shard,
                "pid": os.getpid(),
                "node": ray.get_runtime_context().get_node_id(),
                "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"),
                "at": time.time(),
            }
            written = Path(self.diary) / f"{shard}-{os.getpid()}"
            written.write_text(json.dumps(note))
            written.rename(written.with_suffix(".json"))  # read whole, by who looks meanwhile
        files = (_parquet(outcomes, SCORES), _parquet(results, DENSITIES))
        ShardedDirectory(Location(self.run), 1, outcomes="scores", results="densities").commit(
            shard, *files
        )


def notes(diary: Path) -> list[dict[str, Any]]:
    """What `SleepingJob` left in its diary, one note for each commit."""
    return [json.loads(path.read_text()) for path in sorted(diary.glob("*.json"))]


def _parquet(rows: Rows, schema: pa.Schema) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema), buffer, compression="zstd")
    return buffer.getvalue()
