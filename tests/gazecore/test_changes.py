"""Inputs that change under a run: what is noticed, and what a rescan makes of it."""

import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from gazecore.images.listing import list_images
from gazecore.model.deepgaze import DeepGaze
from gazecore.results.compact import compact
from gazecore.results.compacted import sources
from gazecore.results.noticed import Noticed, note_planned, note_rescan, read_noticed
from gazecore.results.reader import DensityLookup, Results
from gazecore.results.retry import Again, failed_images, outdated_images, parts_again
from gazecore.results.run import Run
from gazecore.results.status import run_status
from gazecore.results.verify import problems
from gazecore.scoring import ScoringStage
from gazecore.shards import local
from gazecore.shards.plan import PLAN, shards
from gazecore.shards.planning import PlanSummary, update_plan
from gazecore.shards.tally import Tally
from gazecore.storage import Location
from tests.conftest import make_photo
from tests.containers import KINDS, jpegs, write_container
from tests.scoring import Loaded, files, make_run, score_run


def replan(run: Run, source: Path, rescan: bool = False) -> PlanSummary:
    revise = (lambda changed, gone: note_rescan(run, changed, gone)) if rescan else None
    return update_plan(run, list_images(str(source)), revise=revise)


def take_up(run: Run, model: DeepGaze, again: Again) -> Tally:
    stage = Loaded(run.location.uri, ScoringStage(model, run))
    return local.run(run, stage, lambda tally: None, parts_again(run, again))


def rescan(run: Run, source: Path, model: DeepGaze) -> Tally:
    replan(run, source, rescan=True)
    return take_up(run, model, Again(outdated=outdated_images(run)))


def rows_of(run: Run) -> dict[str, dict[str, Any]]:
    rows = Results(run).scores.to_pylist()
    assert len({row["image_id"] for row in rows}) == len(rows)
    return {row["image_id"]: row for row in rows}


@pytest.fixture
def run(photos: Path, tmp_path: Path, tiny: DeepGaze) -> Run:
    run = make_run(tmp_path / "run", photos)
    score_run(run, tiny)
    return run


def test_a_listing_tells_what_changed_and_what_is_gone_and_alone_changes_nothing(
    run: Run, photos: Path
) -> None:
    before = {part: part.read_bytes() for part in Path(run.plan.path).iterdir()}
    assert replan(run, photos) == PlanSummary(10, 4, 0)
    make_photo(50).save(photos / "a" / "photo-1.jpg")
    os.utime(photos / "a" / "photo-3.jpg", ns=(1, 1))  # of the same size
    (photos / "b" / "photo-4.jpg").unlink()
    make_photo(51).save(photos / "b" / "new.jpg")
    assert replan(run, photos) == PlanSummary(11, 5, 1, changed=2, gone=1)
    assert before.items() <= {p: p.read_bytes() for p in Path(run.plan.path).iterdir()}.items()
    assert outdated_images(run) == {}


def test_a_rescan_makes_the_rows_of_a_run_of_the_images_as_they_are_now(
    run: Run, photos: Path, tmp_path: Path, tiny: DeepGaze
) -> None:
    kept = rows_of(run)["a/photo-5.jpg"]
    make_photo(50, 120, 80).save(photos / "a" / "photo-1.jpg")
    (photos / "a" / "photo-3.jpg").write_bytes(b"no picture any more")
    (photos / "b" / "photo-4.jpg").unlink()
    (photos / "b" / "photo-6.jpg").unlink()
    make_photo(51).save(photos / "b" / "new.jpg")
    tally = rescan(run, photos, tiny)
    assert tally.errors == {"gone": 2, "decode_error": 1}
    assert tally.ok == 2
    assert list(problems(run)) == []
    assert outdated_images(run) == {}

    rows, fresh = rows_of(run), make_run(tmp_path / "fresh", photos)
    score_run(fresh, tiny)
    now = rows_of(fresh)
    assert {i: row for i, row in rows.items() if row["status"] != "gone"} == now
    assert rows["a/photo-5.jpg"] == kept
    for image_id in ("b/photo-4.jpg", "b/photo-6.jpg"):
        assert (rows[image_id]["status"], rows[image_id]["error"]) == ("gone", "gone")
        assert rows[image_id]["information_bits"] is None
    densities = dict(Results(run).densities(grid=True))
    assert densities.keys() == {i for i, row in now.items() if row["status"] == "ok"}
    for image_id, density in Results(fresh).densities(grid=True):
        assert (density == densities[image_id]).all()
    status = run_status(run)
    assert (status.ok, status.failed, status.gone, status.missing) == (8, 1, 2, 0)
    assert failed_images(run).keys() == {0}
    assert Results(run).plan().schema.equals(PLAN)
    # Nothing is left, and what comes back is scored.
    assert rescan(run, photos, tiny).shards == 0
    make_photo(52).save(photos / "b" / "photo-4.jpg")
    assert replan(run, photos).changed == 1
    assert rescan(run, photos, tiny).ok == 1
    assert rows_of(run)["b/photo-4.jpg"]["status"] == "ok"
    assert list(problems(run)) == []


def test_of_shards_that_are_not_done_what_changed_is_scored_once_and_what_is_gone_is_marked(
    photos: Path, tmp_path: Path, tiny: DeepGaze
) -> None:
    run = make_run(tmp_path / "run", photos)
    make_photo(50, 120, 80).save(photos / "a" / "photo-1.jpg")
    assert replan(run, photos) == PlanSummary(10, 4, 0)
    [row] = [
        r for s in shards(run) for r in s.images.to_pylist() if r["image_id"] == "a/photo-1.jpg"
    ]
    assert row["version"] == str((photos / "a" / "photo-1.jpg").stat().st_mtime_ns)
    assert files(run) == files(make_run(tmp_path / "fresh", photos)) | {
        "run.json": (tmp_path / "run" / "run.json").read_bytes()
    }
    (photos / "b" / "photo-4.jpg").unlink()
    replan(run, photos, rescan=True)
    tally = score_run(run, tiny)
    assert (tally.ok, tally.errors) == (9, {"gone": 1})
    assert outdated_images(run) == {}
    assert list(problems(run)) == []
    assert replan(run, photos) == PlanSummary(10, 4, 0)


def test_a_listing_that_is_cut_short_says_nothing_of_what_it_lacks(run: Run, photos: Path) -> None:
    make_photo(50, 120, 80).save(photos / "a" / "photo-1.jpg")
    plan = update_plan(run, list_images(str(photos)), limit=2)
    assert (plan.changed, plan.gone) == (1, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_container_that_changed_has_changed_members(
    kind: str, tmp_path: Path, tiny: DeepGaze
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    write_container(photos / f"x.{kind}", jpegs(6))
    write_container(photos / f"y.{kind}", jpegs(3, "b"))
    run = make_run(tmp_path / "run", photos, shard_size=4)
    score_run(run, tiny)
    before = rows_of(run)
    images = jpegs(9)
    newer = dict(list(images.items())[4:])
    os.utime(photos / f"y.{kind}")  # touched is changed: a listing tells no more
    write_container(photos / f"x.{kind}", newer)
    summary = replan(run, photos)
    by_row = kind in ("parquet", "arrow")
    assert (summary.changed, summary.gone, summary.added) == ((8, 1, 0) if by_row else (5, 4, 3))
    rescan(run, photos, tiny)
    assert list(problems(run)) == []
    fresh = make_run(tmp_path / "fresh", photos)
    score_run(fresh, tiny)
    rows, now = rows_of(run), rows_of(fresh)
    assert {i: row for i, row in rows.items() if row["status"] != "gone"} == now
    assert {i for i in before if i not in now} == rows.keys() - now.keys()


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("writes", range(14))
def test_killed_at_any_write_a_reader_finds_each_image_once_and_the_same_goes_on(
    run: Run, photos: Path, tmp_path: Path, tiny: DeepGaze, monkeypatch: pytest.MonkeyPatch,
    writes: int,
) -> None:  # fmt: skip
    make_photo(50, 120, 80).save(photos / "a" / "photo-1.jpg")
    (photos / "a" / "photo-3.jpg").unlink()
    (photos / "b" / "photo-4.jpg").write_bytes(b"broken")
    everything = set(rows_of(run))
    publish, left = Location.publish, [writes]

    def dying(self: Location, data: bytes, *, create: bool = False) -> None:
        if not left[0]:
            raise Killed
        left[0] -= 1
        publish(self, data, create=create)

    with monkeypatch.context() as patch:
        patch.setattr(Location, "publish", dying)
        try:
            rescan(run, photos, tiny)
        except Killed:
            pass
        else:
            assert writes > 8, "it has as many writes as there are cases"
    rows = rows_of(run)
    assert rows.keys() == everything
    densities = dict(Results(run).densities(grid=True))
    assert {i for i, row in rows.items() if row["status"] == "ok"} <= densities.keys()
    done = not outdated_images(run) and not replan(run, photos).changed
    found = [line for line in problems(run) if "rescan" not in line]
    assert found == [] or not done
    note_planned(run, replan(run, photos), is_rescan=False)
    assert (read_noticed(run) is None) == done
    rescan(run, photos, tiny)
    note_planned(run, replan(run, photos), is_rescan=False)
    assert read_noticed(run) is None
    assert list(problems(run)) == []
    fresh = make_run(tmp_path / "fresh", photos)
    score_run(fresh, tiny)
    assert {i: r for i, r in rows_of(run).items() if r["status"] != "gone"} == rows_of(fresh)


def test_what_is_compacted_is_not_read_of_shards_that_were_rescanned(
    run: Run, photos: Path, tiny: DeepGaze
) -> None:
    compact(run)
    compact(run, "densities")
    make_photo(50, 120, 80).save(photos / "a" / "photo-1.jpg")
    (photos / "a" / "photo-3.jpg").unlink()
    rescan(run, photos, tiny)
    assert sources(run, "scores").outdated == [0]
    for _ in range(2):
        rows = rows_of(run)
        assert (rows["a/photo-1.jpg"]["width"], rows["a/photo-1.jpg"]["height"]) == (120, 80)
        assert rows["a/photo-3.jpg"]["status"] == "gone"
        assert "a/photo-3.jpg" not in DensityLookup(Results(run))
        assert Results(run).density("a/photo-1.jpg").shape == (80, 120)
        assert Results(run).query("SELECT count(*) AS n FROM densities")["n"][0].as_py() == 9
        status = run_status(run)
        assert (status.ok, status.failed, status.gone) == (9, 0, 1)
        assert list(problems(run)) == []
        compact(run)
        compact(run, "densities")
        assert sources(run, "scores").outdated == []


def test_named_images_are_scored_again_whatever_their_rows_say(
    run: Run, photos: Path, tiny: DeepGaze
) -> None:
    make_photo(50, 120, 80).save(photos / "a" / "photo-1.jpg")
    (photos / "a" / "photo-3.jpg").write_bytes(b"broken")
    run.takes_missing = False
    ids = frozenset({"a/photo-1.jpg", "a/photo-3.jpg"})
    tally = take_up(run, tiny, Again(asked={0: ids}))
    assert (tally.ok, tally.errors) == (1, {"decode_error": 1})
    rows = rows_of(run)
    assert rows["a/photo-1.jpg"]["width"] == 120
    assert rows["a/photo-3.jpg"]["status"] == "failed"
    assert list(problems(run)) == []


def test_files_of_a_run_that_nothing_changed_in_are_as_they_ever_were(run: Run) -> None:
    [plan] = Path(run.plan.path).iterdir()
    assert pq.read_schema(plan).names == PLAN.names
    for scores in Path(run.scores.path).iterdir():
        assert not pq.read_schema(scores).metadata


def test_what_was_noticed_is_said_in_words() -> None:
    assert str(Noticed(1)).startswith("1 changed image since")
    assert str(Noticed(0, 2)).startswith("2 deleted images since")
    assert str(Noticed(3, 1, True)).startswith("3 changed and 1 deleted images: a rescan was not")
