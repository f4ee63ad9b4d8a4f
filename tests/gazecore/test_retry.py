"""Failed rows are found, mended and counted; what a run would take is known beforehand."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from gazecore.errors import DecodeError, InputError, RunMismatch
from gazecore.images.listing import LISTED
from gazecore.results import reader, status
from gazecore.results.estimate import DENSITY_BYTES, SCORE_BYTES, estimate
from gazecore.results.retry import Again, failed_images, parts_again
from gazecore.results.run import Run, RunSettings, find_run
from gazecore.results.status import RunCounter, run_status
from gazecore.results.verify import problems
from gazecore.results.write import mend_shard
from gazecore.shards import planning
from gazecore.shards.directory import shard_name
from gazecore.shards.pipeline import Row, failed_row
from gazecore.shards.plan import PLAN, images_in, shards
from gazecore.shards.planning import PlanSummary, update_plan
from gazecore.storage import Location
from tests.gazecore.test_results import (
    SETTINGS,
    begin,
    commit,
    files,
    listing,
    log_density_of,
    names,
)
from tests.scoring import rows_of as made_up

FAILED = frozenset({"001.jpg", "004.jpg", "005.jpg"})


def make_run(folder: Path, failing: frozenset[str] = FAILED) -> Run:
    """Eight images in two shards of four."""
    run = begin(folder, shard_size=4)
    update_plan(run, listing(*names(8)))
    commit(run, failing=failing)
    return run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "run")


def rows_of(images: pa.Table, failing: frozenset[str]) -> tuple[list[Row], list[Row]]:
    """What an actor makes of images, some of which fail (again)."""
    scores, densities = [], []
    for row in images.to_pylist():
        if row["image_id"] in failing:
            scores.append(failed_row(row, DecodeError("another reason")))
            continue
        score, stored = made_up(row, log_density_of(row["image_id"]), SETTINGS.density_factor)
        scores.append(score)
        densities.append(stored)
    return scores, densities


def mend(run: Run, failing: frozenset[str] = frozenset()) -> None:
    for part in parts_again(run, Again(failed_images(run))):
        mend_shard(run, part.number, *rows_of(part.images, failing))


def test_the_failed_images_are_found_in_order_and_without_their_sizes(run: Run) -> None:
    assert failed_images(run) == {0: 1, 1: 2}
    parts = list(parts_again(run, Again({0: 1, 1: 2})))
    assert [part.number for part in parts] == [0, 1]
    assert [part.images["image_id"].to_pylist() for part in parts] == [
        ["001.jpg"], ["004.jpg", "005.jpg"],
    ]  # fmt: skip
    for part in parts:
        assert part.is_part
        assert part.images.schema.equals(PLAN)
        assert part.images["size"].null_count == part.images.num_rows
    assert not any(shard.is_part for shard in shards(run))


def test_many_shards_are_read_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "SHARDS_PER_PART", 7)
    monkeypatch.setattr(status, "_FILES_HELD", 10)
    run = begin(tmp_path, shard_size=1)
    update_plan(run, listing(*names(150)))
    bad = frozenset(names(150)[::2])
    commit(run, failing=bad)
    failed = failed_images(run)
    assert failed == dict.fromkeys(range(0, 150, 2), 1)
    parts = parts_again(run, Again(failed))
    assert {part.images["image_id"][0].as_py() for part in parts} == bad


def test_mended_files_are_those_of_a_run_in_which_nothing_failed(run: Run, tmp_path: Path) -> None:
    mend(run)
    assert files(run) == files(make_run(tmp_path / "fresh", frozenset()))
    assert failed_images(run) == {}
    assert list(problems(run)) == []


def test_what_fails_again_stays_failed_with_the_new_reason(run: Run, tmp_path: Path) -> None:
    before = reader.Results(run).scores.to_pylist()
    mend(run, frozenset({"004.jpg"}))
    assert list(problems(run)) == []
    after = reader.Results(run).scores.to_pylist()
    assert [row["image_id"] for row in after] == names(8)
    by_id = {row["image_id"]: row for row in after}
    assert [i for i, row in by_id.items() if row["status"] == "failed"] == ["004.jpg"]
    assert by_id["004.jpg"]["error"] == "decode_error"
    assert by_id["004.jpg"]["error_message"] == "another reason"
    for row in before:
        if row["image_id"] not in FAILED:
            assert by_id[row["image_id"]] == row
    fresh = make_run(tmp_path / "fresh", frozenset({"004.jpg"}))
    assert (
        files(run)["densities/shard-000001.parquet"]
        == (files(fresh)["densities/shard-000001.parquet"])
    )


def test_a_shard_in_which_nothing_changes_is_not_written(run: Run) -> None:
    mend(run, FAILED)
    paths = [Path(f.path) / shard_name(n) for f in (run.scores, run.densities) for n in (0, 1)]
    before = [path.stat().st_ino for path in paths]
    mend(run, FAILED)
    assert [path.stat().st_ino for path in paths] == before


@pytest.fixture
def killed_between(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A retry that ended after a shard's densities were published, and before its scores."""
    publish = Location.publish

    def dying(self: Location, data: bytes, *, create: bool = False) -> None:
        if "/scores/" in self.path:
            raise InterruptedError("killed")
        publish(self, data, create=create)

    with monkeypatch.context() as patch:
        patch.setattr(Location, "publish", dying)
        with pytest.raises(InterruptedError):
            mend(run)
    return run


def test_a_kill_between_the_two_files_is_said_in_a_line_and_mended(
    killed_between: Run, tmp_path: Path
) -> None:
    run = killed_between
    assert list(problems(run)) == [
        "densities/shard-000000.parquet has 1 density of images that are `failed` in the scores: "
        "a retry was interrupted; `gazecore score --retry-failed` mends it"
    ]
    results = reader.Results(run)
    assert results.scores["image_id"].to_pylist() == names(8)
    assert failed_images(run) == {0: 1, 1: 2}
    assert dict(results.densities(grid=True)).keys() == set(names(8)) - {"004.jpg", "005.jpg"}
    mend(run)
    assert files(run) == files(make_run(tmp_path / "fresh", frozenset()))


def test_early_densities_of_images_that_then_fail_again_are_taken_away(
    killed_between: Run, tmp_path: Path
) -> None:
    fresh = files(make_run(tmp_path / "fresh"))
    mend(killed_between, FAILED)
    assert list(problems(killed_between)) == []
    mended = files(killed_between)
    name = "densities/shard-000000.parquet"
    assert mended[name] == fresh[name]


def test_rows_that_are_ok_are_never_replaced(run: Run) -> None:
    [part, _] = parts_again(run, Again({0: 1, 1: 2}))
    mend(run)
    before = files(run)
    mend_shard(run, part.number, *rows_of(part.images, FAILED))  # another driver's, late
    assert files(run) == before


def test_a_shard_whose_densities_are_damaged_is_not_mended(run: Run) -> None:
    name = shard_name(0)
    part = next(parts_again(run, Again({0: 1})))
    other = (run.densities / shard_name(1)).read_bytes()
    (run.densities / name).publish(other)
    before = files(run)
    with pytest.raises(InputError, match=r"densities/shard-000000\.parquet lacks .*000\.jpg"):
        mend_shard(run, 0, *rows_of(part.images, frozenset()))
    assert files(run) == before


def test_counting_again_reads_what_is_new_or_was_replaced(run: Run) -> None:
    (run.scores / shard_name(1)).remove()
    counter = RunCounter(run)
    first = counter.status()
    assert (first.ok, first.failed, first.missing, first.is_complete) == (3, 1, 4, False)
    # What was counted is not read again: it could not be.
    path = Path(run.scores.path) / shard_name(0)
    data, times = path.read_bytes(), path.stat()
    path.write_bytes(data[:50])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    commit(run, failing=FAILED, missing=0)
    second = counter.status()
    assert (second.ok, second.failed, second.missing, second.is_complete) == (5, 3, 0, True)
    assert second.last_commit == os.stat(f"{run.scores.path}/{shard_name(1)}").st_mtime
    path.write_bytes(data)
    mend(run)
    assert counter.status() == run_status(run)
    assert (counter.status().ok, counter.status().errors) == (8, {})
    update_plan(run, listing(*names(9)))
    assert (counter.status().images, counter.status().is_complete) == (9, False)


def test_a_run_without_a_plan_is_not_complete(tmp_path: Path) -> None:
    assert not run_status(begin(tmp_path)).is_complete


def sized(*sizes: int | None) -> Iterator[pa.RecordBatch]:
    rows = [
        {"image_id": i, "uri": f"/photos/{i}", "size": size, "version": "1"}
        for i, size in zip(names(len(sizes)), sizes, strict=True)
    ]
    yield pa.RecordBatch.from_pylist([*rows, *rows[:2]], schema=LISTED)  # two are listed twice


def test_an_estimate_counts_what_a_real_plan_would_and_writes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = find_run(Location(str(folder)), SETTINGS)
    found = estimate(run, sized(10, 20, None, 40, 0), None)
    assert not folder.exists()
    assert found.plan == PlanSummary(images=5, shards=3, added=5)
    assert (found.images, found.shards, found.sized, found.bytes) == (5, 3, 4, 70)
    assert found.stored == 5 * (DENSITY_BYTES[2] + SCORE_BYTES)
    assert found.rate is None

    run = begin(folder)
    update_plan(run, sized(10, 20, None), None)
    commit(run, missing=1)
    os.utime(f"{run.scores.path}/{shard_name(0)}", (1000, 1000))
    before = files(run)
    found = estimate(run, sized(10, 20, None, 40, 50), 4)
    assert (found.plan, found.images) == (PlanSummary(images=4, shards=3, added=1), 2)
    assert (found.sized, found.bytes, found.rate) == (1, 40, None)
    assert files(run) == before
    commit(run)
    assert images_in(run, {1}) == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda run: replace(run.settings, shard_size=3),
        lambda run: [(run.location / "run.json").remove(), run.settings][1],
    ],
    ids=["other settings", "something else"],
)
def test_a_directory_that_a_run_would_refuse_is_refused(
    run: Run, spoil: Callable[[Run], RunSettings]
) -> None:
    settings = spoil(run)
    before = files(run)
    with pytest.raises(RunMismatch):
        find_run(run.location, settings)
    assert files(run) == before
