"""What works on shards, in whichever process: a stage, fed by its pipeline."""

from collections import Counter
from collections.abc import Callable

import pyarrow as pa

from gazecore import courtesy
from gazecore.errors import Gone
from gazecore.shards.pipeline import Pipeline
from gazecore.shards.plan import Shard
from gazecore.shards.stage import Row, StageConfig, failed_row
from gazecore.shards.tally import OK, Done

SHARDS_AT_ONCE = 2
"""Shards in work in one worker: while one is computed, the other is read or written."""


class Worker:
    """Loads a stage's network once, then processes shards and commits them, from any threads.

    Attributes:
        clock: where the time goes.
        in_work: shard number to images (ok, failed) so far, of each that is not committed yet.
    """

    def __init__(
        self, config: StageConfig, threads: int | None = None, gpu: bool | None = None
    ) -> None:
        """Load the network; `threads` and `gpu` as `StageConfig.build` takes them."""
        courtesy.use(config.reading.web)
        self._stage = config.build(threads, gpu)
        if gpu is None:
            import torch  # which the network has loaded

            gpu = torch.cuda.is_available()
        self._pipeline = Pipeline(self._stage, config.reading, threads, gpu)
        self.clock = self._pipeline.clock
        self.clock.set_lanes(write=SHARDS_AT_ONCE)
        self.in_work: dict[int, tuple[int, int]] = {}

    def process(
        self,
        shard: Shard,
        crashed: frozenset[str] = frozenset(),
        last_try: bool = False,
        on_image: Callable[[bool], None] = lambda ok: None,
    ) -> Done:
        """Process and commit a shard, or those images of one that is done which failed.

        Args:
            shard: of the plan.
            crashed, last_try, on_image: as `Pipeline.process` takes them.
        """
        self.in_work[shard.number] = (0, 0)

        def count(ok: bool) -> None:
            done = self.in_work[shard.number]
            self.in_work[shard.number] = (done[0] + ok, done[1] + (not ok))
            on_image(ok)

        commit = self._stage.mend if shard.is_part else self._stage.commit
        try:
            with self.clock.shard():
                outcomes, results = self._pipeline.process(
                    _there(shard), crashed=crashed, last_try=last_try, on_image=count
                )
                outcomes = _outcomes(shard, outcomes)
                with self.clock.phase("write"):
                    commit(shard.number, outcomes, results)
        finally:
            del self.in_work[shard.number]
        return Done(Counter(map(_end, outcomes)), self.clock.news("driver"))

    def survive(self, images: pa.Table) -> None:
        """Process images and forget the result: does this process live through it?"""
        self._pipeline.process(images)

    def close(self) -> None:
        """End the threads."""
        self._pipeline.close()


def _there(shard: Shard) -> pa.Table:
    """The images that can be read."""
    if not shard.gone:
        return shard.images
    ids = shard.images["image_id"].to_pylist()
    return shard.images.filter(pa.array([image_id not in shard.gone for image_id in ids]))


def _outcomes(shard: Shard, made: list[Row]) -> list[Row]:
    """An outcome for each image, in the plan's order, with what `Stage.commit` and `Stage.mend` are
    to know of it."""
    if not (shard.as_of or shard.asked):
        return made
    rows, done = [], {row["image_id"]: row for row in made}
    for planned in shard.images.to_pylist():
        image_id = planned["image_id"]
        row = done.get(image_id) or failed_row(planned, Gone("it is no longer in the input"))
        rows.append({**row, "as_of": shard.as_of.get(image_id), "asked": image_id in shard.asked})
    return rows


def _end(outcome: Row) -> str:
    return OK if outcome["status"] == "ok" else str(outcome["error"])
