import itertools
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import structlog

import gazecore.images.read
import gazecore.shards.pipeline
from gazecore.errors import NotFound
from gazecore.images.decode import NetworkInput
from gazecore.model.deepgaze import DeepGaze
from gazecore.shards.clock import PHASES, Clock, Times, verdict
from gazecore.shards.pipeline import Pipeline
from gazecore.shards.stage import ReadingConfig, Row
from tests.scoring import Scorer


class SleepingStage:
    """A network that takes as long as it is told to, and no processor."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def batch_size(self, height: int, width: int) -> int:
        return 1

    def compute(self, pixels: np.ndarray) -> np.ndarray:
        time.sleep(self.seconds)
        return pixels

    def finish(
        self, row: Row, image: NetworkInput, computed: np.ndarray, position: int
    ) -> tuple[Row, Row | None]:
        return {"image_id": row["image_id"], "status": "ok"}, None

    def commit(self, shard: int, outcomes: list[Row], results: list[Row]) -> None: ...

    def mend(self, shard: int, outcomes: list[Row], results: list[Row]) -> None: ...


def run(photos: Path, *, compute: float, fetchers: int) -> Times:
    paths = sorted(map(str, photos.rglob("*.jpg")))
    images = pa.table({"image_id": paths, "uri": paths, "size": [None] * len(paths),
                       "version": [None] * len(paths)})  # fmt: skip
    pipeline = Pipeline(SleepingStage(compute), ReadingConfig(fetchers=fetchers))
    with pipeline.clock.shard():
        pipeline.process(images)
    return pipeline.clock.times()


def test_the_stage_that_others_wait_for_is_named(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = run(photos, compute=0.2, fetchers=2)
    assert 2.0 <= busy.seconds["compute"] <= busy.working
    assert verdict(busy) == "compute-bound"
    assert busy.bytes_read == sum(path.stat().st_size for path in photos.rglob("*.jpg"))

    real = gazecore.images.read.fetch

    def slow(*arguments: object) -> bytes:
        time.sleep(0.4)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(gazecore.images.read, "fetch", slow)
    waiting = run(photos, compute=0.001, fetchers=2)
    assert waiting.seconds["fetch"] >= 4.0
    assert waiting.working < 0.9 * waiting.seconds["fetch"], "two threads fetch at once"
    assert waiting.busy("fetch") > waiting.busy("decode") > waiting.busy("compute")
    assert verdict(waiting) == "it waits for the storage"


def test_every_stage_is_measured_and_nothing_stays_ready(tiny: DeepGaze, photos: Path) -> None:
    paths = [*sorted(map(str, photos.rglob("*.jpg"))), str(photos / "missing.jpg")]
    images = pa.table({"image_id": paths, "uri": paths, "size": [None] * len(paths),
                       "version": [None] * len(paths)})  # fmt: skip
    scorer = Scorer(tiny)
    with scorer.clock.shard():
        scorer.score(images)
    times = scorer.clock.times()
    assert [stage for stage in PHASES if times.seconds[stage] <= 0] == ["write"]
    assert all(times.busy(stage) <= 1 for stage in PHASES)
    assert scorer.clock.ready == 0


def test_what_is_logged_while_an_image_is_read_names_its_shard(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def fetch(*_: object) -> bytes:
        seen.append(structlog.contextvars.get_contextvars())
        raise NotFound("gone")

    monkeypatch.setattr(gazecore.images.read, "fetch", fetch)
    with structlog.contextvars.bound_contextvars(shard=7):
        run(photos, compute=0, fetchers=4)
    assert seen == [{"shard": 7}] * 10


def test_overlapping_shards_are_counted_once_and_times_add_up() -> None:
    clock = Clock()
    clock.set_lanes(write=2)

    def work(delay: float) -> None:
        time.sleep(delay)
        with clock.shard(), clock.phase("write"):
            time.sleep(0.3)

    threads = [threading.Thread(target=work, args=(delay,)) for delay in (0, 0.1)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    early = clock.times()
    for thread in threads:
        thread.join()
    times = clock.times()
    assert 0.39 <= times.working < times.seconds["write"]
    assert times.seconds["write"] >= 0.6
    assert times.busy("write") == pytest.approx(times.seconds["write"] / (2 * times.working))
    assert 0 < early.working < times.working
    late = times - early
    assert (early + late).seconds == pytest.approx(times.seconds)
    assert Times().busy("fetch") == 0


@pytest.mark.parametrize(
    ("share", "words"),
    [
        ({"compute": 0.9, "fetch": 1.0}, "compute-bound"),
        ({"compute": 0.5, "decode": 0.95}, "waits for decoding"),
        ({"compute": 0.5, "write": 0.95}, "results to be written"),
        ({"compute": 0.5, "finish": 0.95}, "statistics"),
        ({"compute": 0.1, "fetch": 0.2}, "no stage is busy"),
    ],
)
def test_verdicts_are_in_words(share: dict[str, float], words: str) -> None:
    rooms = itertools.cycle([2.0, 3.0])
    times = Times(working=1.0)
    for stage in PHASES:
        times.room[stage] = next(rooms)
        times.seconds[stage] = share.get(stage, 0.0) * times.room[stage]
    assert words in verdict(times)
