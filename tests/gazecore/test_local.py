"""The executor without Ray: the same files, resume, failed rows, and shards that fail."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

import gazecore.shards.blame
import gazecore.shards.stop
from gazecore.errors import InputError, KeysRefused, RunFailed
from gazecore.images.listing import list_images
from gazecore.model.deepgaze import DeepGaze
from gazecore.results.reader import Results
from gazecore.results.retry import Again, failed_images, parts_again
from gazecore.results.run import Run
from gazecore.results.verify import problems
from gazecore.scoring import ScoringConfig, ScoringStage
from gazecore.shards import local
from gazecore.shards.planning import update_plan
from gazecore.shards.stage import ReadingConfig
from gazecore.shards.stop import Stop
from gazecore.shards.tally import Tally
from tests.conftest import make_photo
from tests.scoring import Loaded, files, make_run, score_run


def test_every_image_gets_a_row_and_progress_is_told(
    photos: Path, tmp_path: Path, tiny_bytes: bytes
) -> None:
    run = make_run(tmp_path / "run", photos)
    (photos / "a" / "photo-1.jpg").write_bytes(b"no picture")
    reports: list[Tally] = []
    config = ScoringConfig(run.location.uri, run.settings, tiny_bytes)
    tally = local.run(run, config, reports.append)
    assert (tally.ok, tally.errors, tally.shards) == (9, {"decode_error": 1}, 4)
    assert reports[-1] is tally
    assert tally.times.bytes_read > 0
    assert list(problems(run)) == []
    scores = {row["image_id"]: row for row in Results(run).scores.to_pylist()}
    assert scores["a/photo-1.jpg"]["error"] == "decode_error"


def test_what_is_missing_is_done_and_what_is_there_stays(
    photos: Path, tmp_path: Path, tiny: DeepGaze
) -> None:
    run = make_run(tmp_path / "run", photos)
    score_run(run, tiny)
    before = files(run)
    (run.scores / "shard-000001.parquet").remove()
    make_photo(99).save(photos / "a" / "new.jpg")
    update_plan(run, list_images(str(photos)))
    tally = score_run(run, tiny)
    assert (tally.ok, tally.shards) == (4, 2)
    assert before.items() <= files(run).items()
    assert list(problems(run)) == []
    assert score_run(run, tiny).shards == 0


def test_failed_images_are_tried_again(photos: Path, tmp_path: Path, tiny: DeepGaze) -> None:
    mended = photos / "a" / "photo-1.jpg"
    picture = mended.read_bytes()
    runs = [make_run(tmp_path / name, photos) for name in ("run", "fresh")]
    mended.write_bytes(b"no picture")
    score_run(runs[0], tiny)
    mended.write_bytes(picture)
    score_run(runs[1], tiny)
    again = parts_again(runs[0], Again(failed_images(runs[0])))
    stage = ScoringStage(tiny, runs[0])
    tally = local.run(runs[0], Loaded(runs[0].location.uri, stage), again=again)
    assert (tally.ok, tally.retried) == (1, (1, 0))
    assert files(runs[0]) == files(runs[1])


class Faulty(ScoringStage):
    """A stage whose shards end with an error when they are committed, as often as it is told."""

    def __init__(self, model: DeepGaze, run: Run, faults: dict[int, list[Exception]]) -> None:
        super().__init__(model, run)
        self.faults = faults
        self.order: list[int] = []

    def commit(self, shard: int, outcomes: list, results: list) -> None:
        self.order.append(shard)
        if self.faults.get(shard):
            raise self.faults[shard].pop()
        super().commit(shard, outcomes, results)


def test_a_shard_that_fails_is_tried_three_times_and_left_for_the_next_run(
    photos: Path, tmp_path: Path, tiny: DeepGaze
) -> None:
    run = make_run(tmp_path / "run", photos)
    faults = {2: [OSError("a full disk")] * 3, 1: [OSError("once")]}
    stage = Faulty(tiny, run, faults)
    tally = local.run(run, Loaded(run.location.uri, stage))
    assert tally.failed_shards == {2: "OSError: a full disk"}
    assert (tally.shards, tally.ok) == (3, 7)
    assert sorted(stage.order) == [0, 1, 1, 2, 2, 2, 3]
    assert local.run(run, Loaded(run.location.uri, stage)).shards == 1
    assert list(problems(run)) == []


def test_a_run_ends_where_one_shard_after_the_other_fails(
    photos: Path, tmp_path: Path, tiny: DeepGaze, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gazecore.shards.blame, "MAX_IN_A_ROW", 3)
    run = make_run(tmp_path / "run", photos, shard_size=1)
    stage = Faulty(tiny, run, {n: [OSError("no disk")] * 9 for n in range(10)})
    with pytest.raises(RunFailed, match=r"4 shards failed one after the other.*no disk"):
        local.run(run, Loaded(run.location.uri, stage))
    stage = Faulty(tiny, run, {0: [KeysRefused("other keys")]})
    with pytest.raises(KeysRefused, match="other keys"):
        local.run(run, Loaded(run.location.uri, stage))
    assert score_run(run, tiny).ok >= 8
    assert list(problems(run)) == []


def test_what_is_no_trouble_of_a_shard_ends_the_run_as_it_is(
    photos: Path, tmp_path: Path, tiny: DeepGaze
) -> None:
    class Broken:
        where, reading = str(tmp_path), ReadingConfig()

        def build(self, threads: int | None = None, gpu: bool | None = None) -> None:
            raise InputError("no such model")

    run = make_run(tmp_path / "run", photos)
    with pytest.raises(InputError, match="no such model"):
        local.run(run, Broken())  # type: ignore[arg-type]
    assert run.scores.names() == []


class Slow(ScoringStage):
    """Says that it has begun to commit, and waits there for leave."""

    def __init__(self, model: DeepGaze, run: Run) -> None:
        super().__init__(model, run)
        self.begun, self.leave = threading.Event(), threading.Event()

    def commit(self, shard: int, outcomes: list, results: list) -> None:
        self.begun.set()
        assert self.leave.wait(30)
        super().commit(shard, outcomes, results)


@pytest.mark.parametrize("times", [1, 2])
def test_a_signal_finishes_what_is_in_work_and_a_second_one_does_not_wait(
    photos: Path, tmp_path: Path, tiny: DeepGaze, times: int
) -> None:
    run = make_run(tmp_path / "run", photos, shard_size=1)
    stage = Slow(tiny, run)
    # A shell that started these tests in the background had them ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt() -> None:
        stage.begun.wait(30)
        os.kill(os.getpid(), signal.SIGINT)
        until = time.monotonic() + 30
        while not said and time.monotonic() < until:
            time.sleep(0.01)
        if times == 2:
            os.kill(os.getpid(), signal.SIGINT)
        else:
            stage.leave.set()

    said: list[str] = []
    thread = threading.Thread(target=interrupt)
    thread.start()
    with Stop(said.append) as stop:
        tally = local.run(run, Loaded(run.location.uri, stage), stop=stop)
    assert tally.interrupted
    assert stop.signal == signal.SIGINT
    assert "finishing" in said[0]
    if times == 1:
        assert 1 <= tally.shards <= 2
    else:
        assert tally.shards == 0
        assert run.scores.names() == []
    stage.leave.set()
    thread.join()
    signal.signal(signal.SIGINT, before)


def test_a_shard_is_done_twice_by_two_processes_without_harm(
    photos: Path, tmp_path: Path, tiny: DeepGaze
) -> None:
    run = make_run(tmp_path / "run", photos)
    undisturbed = make_run(tmp_path / "undisturbed", photos)
    score_run(undisturbed, tiny)
    both = [threading.Thread(target=score_run, args=(run, tiny)) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert files(run) == files(undisturbed)
