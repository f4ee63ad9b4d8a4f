"""The run directory: begun once, planned without loss, committed, read, verified and queried."""

import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.special import logsumexp

from gazecore.density.codec import STEP, encode
from gazecore.density.resample import normalise, to_size
from gazecore.errors import GazecoreError, InputError, NotFound, RunMismatch
from gazecore.images.formats import Limits
from gazecore.images.listing import LISTED
from gazecore.results import reader
from gazecore.results.query import query
from gazecore.results.run import ModelNote, Run, RunSettings, begin_run, open_run
from gazecore.results.schema import DENSITIES, SCORES
from gazecore.results.status import run_status
from gazecore.results.verify import problems
from gazecore.results.write import commit_shard
from gazecore.shards import planning
from gazecore.shards.directory import shard_name
from gazecore.shards.pipeline import failed_row
from gazecore.shards.plan import PLAN, images_in, plan_parts, shards
from gazecore.shards.planning import PlanSummary, update_plan
from gazecore.storage import Location
from tests.scoring import rows_of as made_up

SETTINGS = RunSettings(
    input="/photos",
    model="f" * 64,
    display_size="1024",
    shard_size=2,
    density_factor=2,
    limits=Limits(),
)

ODD_NAMES = ("plain", 'run [1] it\'s "100%" #2', "star* and {a,b}?", "ünï-日本")


def listing(*images: str | tuple[str, str], batch: int = 3) -> Iterator[pa.RecordBatch]:
    rows = [(i, f"/photos/{i}") if isinstance(i, str) else i for i in images]
    for start in range(0, len(rows), batch):
        part = [
            {"image_id": image_id, "uri": uri, "size": 10, "version": "1"}
            for image_id, uri in rows[start : start + batch]
        ]
        yield pa.RecordBatch.from_pylist(part, schema=LISTED)


def names(count: int, first: int = 0) -> list[str]:
    return [f"{i:03d}.jpg" for i in range(first, first + count)]


def begin(path: Path, **changes: Any) -> Run:
    return begin_run(Location(str(path)), replace(SETTINGS, **changes))


def planned(run: Run) -> list[tuple[int, str]]:
    """(shard, image_id) of every row of the plan, in order."""
    return [
        (number, image_id)
        for shard in shards(run)
        for number, image_id in zip(
            shard.images["shard"].to_pylist(), shard.images["image_id"].to_pylist(), strict=True
        )
    ]


def log_density_of(image_id: str) -> np.ndarray:
    return normalise(np.random.default_rng(int(image_id[:3])).normal(size=(8, 12)))


def commit(run: Run, *, failing: frozenset[str] = frozenset(), missing: int | None = None) -> None:
    """Score every shard but `missing` from made-up densities."""
    for shard in shards(run, lambda number: number != missing):
        scores, densities = [], []
        for row in shard.images.to_pylist():
            if row["image_id"] in failing:
                scores.append(failed_row(row, NotFound("there is nothing")))
                continue
            score, stored = made_up(
                row, log_density_of(row["image_id"]), run.settings.density_factor
            )
            scores.append(score)
            densities.append(stored)
        commit_shard(run, shard.number, scores, densities)


@pytest.fixture
def scored(tmp_path: Path) -> Run:
    """Five images in three shards; one of them failed."""
    run = begin(tmp_path / "run")
    update_plan(run, listing(*names(5)))
    commit(run, failing=frozenset({"001.jpg"}))
    return run


def files(run: Run) -> dict[str, bytes]:
    root = Path(run.location.path)
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


# ---------------------------------------------------------------------------------------- the run


def test_the_same_settings_go_on(tmp_path: Path) -> None:
    begin(tmp_path / "run")
    before = (tmp_path / "run" / "run.json").read_bytes()
    again = begin(tmp_path / "run")
    assert again.settings == SETTINGS
    assert (tmp_path / "run" / "run.json").read_bytes() == before
    assert open_run(Location(str(tmp_path / "run"))).settings == SETTINGS


def test_a_runs_model_has_a_name_that_decides_nothing(tmp_path: Path) -> None:
    location, note = Location(str(tmp_path / "run")), ModelNote("default", "OSIE, then MIT1003")
    begin_run(location, SETTINGS, note)
    assert open_run(location).model == note
    # Under another name the same model goes on, and what the run calls it stays.
    again = begin_run(location, SETTINGS, ModelNote("/models/default.safetensors"))
    assert again.model == open_run(location).model == note
    # A run of an earlier version has no name, is read, and goes on.
    marker = tmp_path / "run" / "run.json"
    content = json.loads(marker.read_text())
    del content["about_model"]
    marker.write_text(json.dumps(content))
    assert open_run(location).model == ModelNote()
    assert begin_run(location, SETTINGS, note).settings == SETTINGS
    assert json.loads(marker.read_text()) == content
    for wrong in ("default", ["default"], 3):
        marker.write_text(json.dumps({**content, "about_model": wrong}))
        with pytest.raises(InputError, match=r"run\.json cannot be read"):
            open_run(location)


CHANGES = [
    ("input", "/other"),
    ("model", "0" * 64),
    ("display_size", "native"),
    ("shard_size", 3),
    ("density_factor", 4),
    ("keep", ["caption"]),
    ("limits.max_bytes", 1),
    ("limits.max_pixels", 1),
]


def changed(name: str, value: Any) -> RunSettings:
    if name.startswith("limits."):
        limits = replace(SETTINGS.limits, **{name.removeprefix("limits."): value})
        return replace(SETTINGS, limits=limits)
    return replace(SETTINGS, **{name: tuple(value) if isinstance(value, list) else value})


def test_every_setting_is_among_the_changes() -> None:
    flat = asdict(SETTINGS)
    limits = flat.pop("limits")
    assert {name for name, _ in CHANGES} == {*flat, *(f"limits.{name}" for name in limits)}


@pytest.mark.parametrize(("name", "value"), CHANGES)
def test_a_changed_setting_is_refused_and_named(tmp_path: Path, name: str, value: Any) -> None:
    begin(tmp_path / "run")
    before = files(open_run(Location(str(tmp_path / "run"))))
    with pytest.raises(RunMismatch) as caught:
        begin_run(Location(str(tmp_path / "run")), changed(name, value))
    message = str(caught.value)
    assert f"{name}: it has " in message
    assert f"now {value}" in message
    assert message.count("it has") == 1, "one change is one difference"
    assert files(open_run(Location(str(tmp_path / "run")))) == before


def test_a_foreign_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").write_text("years of work")
    with pytest.raises(RunMismatch, match="not empty"):
        begin(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.docx"]


def test_an_empty_directory_is_taken(tmp_path: Path) -> None:
    assert begin(tmp_path).shards_done() == set()


def test_what_killed_writers_left_is_cleaned(scored: Run) -> None:
    before = files(scored)
    root = Path(scored.location.path)
    host, gone = socket.gethostname(), subprocess.Popen(["true"])
    gone.wait()
    for folder in ("", "plan", "scores", "densities"):
        (root / folder / f"x.parquet.0123@{host}-{gone.pid}.tmp").write_bytes(b"half")
    begin(root)
    assert files(scored) == before


def test_what_another_writer_is_at_is_left_alone_for_a_day(scored: Run) -> None:
    root = Path(scored.location.path)
    mine = root / "scores" / f"x.parquet.0123@{socket.gethostname()}-{os.getpid()}.tmp"
    elsewhere = root / "scores" / "x.parquet.4567@another-host-99.tmp"
    for path in (mine, elsewhere):
        path.write_bytes(b"half")
    begin(root)
    assert mine.exists()
    assert elsewhere.exists()
    for path in (mine, elsewhere):
        os.utime(path, (0, 0))
    begin(root)
    assert mine.exists()
    assert not elsewhere.exists()
    mine.unlink()


def test_two_processes_cannot_plan_at_once(tmp_path: Path) -> None:
    run = begin(tmp_path)

    def meanwhile() -> Iterator[pa.RecordBatch]:
        yield from listing(*names(3))
        update_plan(begin(tmp_path), listing(*names(5)))

    with pytest.raises(RunMismatch, match="another process is planning"):
        update_plan(run, meanwhile())
    assert update_plan(run, listing(*names(5))).images == 5


def test_a_run_killed_while_it_began_begins_again(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    gone = subprocess.Popen(["true"])
    gone.wait()
    (run / f"run.json.0123@{socket.gethostname()}-{gone.pid}.tmp").write_bytes(b"{")
    begin(run)
    assert [path.name for path in run.iterdir()] == ["run.json"]


def test_no_run_directory(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not a run directory"):
        open_run(Location(str(tmp_path / "nowhere")))


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "{}", '{"schema_version": 1}', '{"schema_version": 1, "limits": 3}'],
)
def test_a_damaged_marker_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match=r"run\.json"):
        open_run(Location(str(tmp_path)))


def test_another_format_version_is_refused(tmp_path: Path) -> None:
    begin(tmp_path)
    content = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(content | {"schema_version": 99}))
    with pytest.raises(InputError, match="99"):
        open_run(Location(str(tmp_path)))


def test_shards_have_at_least_one_image() -> None:
    with pytest.raises(InputError, match="shard_size"):
        replace(SETTINGS, shard_size=0)


# --------------------------------------------------------------------------------------- the plan


def test_every_image_once_in_order(tmp_path: Path) -> None:
    run = begin(tmp_path)
    assert update_plan(run, listing(*names(5))) == PlanSummary(images=5, shards=3, added=5)
    assert planned(run) == list(zip([0, 0, 1, 1, 2], names(5), strict=True))
    table = reader.Results(run).plan()
    assert table.schema.equals(PLAN)
    assert table.slice(0, 1).to_pylist() == [
        {"image_id": "000.jpg", "uri": "/photos/000.jpg", "size": 10, "version": "1", "shard": 0}
    ]


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_duplicates_are_merged(tmp_path: Path, batch: int) -> None:
    run = begin(tmp_path)
    images = [*names(3), *names(3), *names(2, first=2)]
    assert update_plan(run, listing(*images, batch=batch)).images == 4
    assert [image_id for _, image_id in planned(run)] == names(4)


def test_one_id_for_two_images_is_refused(tmp_path: Path) -> None:
    run = begin(tmp_path)
    with pytest.raises(InputError, match=r"'a'.*/x/1\.jpg.*/x/2\.jpg"):
        update_plan(run, listing(("a", "/x/1.jpg"), "b", ("a", "/x/2.jpg")))
    assert plan_parts(run) == []


def test_a_known_id_for_another_image_is_refused(tmp_path: Path) -> None:
    run = begin(tmp_path)
    update_plan(run, listing(("a", "/x/1.jpg")))
    with pytest.raises(InputError, match="'a'"):
        update_plan(run, listing(("a", "/x/2.jpg")))


def test_two_ids_for_one_image_are_two_rows(tmp_path: Path) -> None:
    run = begin(tmp_path)
    assert update_plan(run, listing(("a", "/x/1.jpg"), ("b", "/x/1.jpg"))).images == 2


def test_planning_again_changes_nothing(tmp_path: Path) -> None:
    run = begin(tmp_path)
    first = update_plan(run, listing(*names(7)))
    before = files(run)
    assert update_plan(run, listing(*names(7), batch=1)) == replace(first, added=0)
    assert files(run) == before


def test_new_images_get_new_shards(tmp_path: Path) -> None:
    run = begin(tmp_path)
    update_plan(run, listing(*names(5, first=10)))
    before = planned(run)
    # The new ones stand before, between and after the known ones.
    summary = update_plan(run, listing(*names(20)))
    assert summary == PlanSummary(images=20, shards=11, added=15)
    assert planned(run)[:5] == before
    new = planned(run)[5:]
    assert [image_id for _, image_id in new] == [*names(10), *names(5, first=15)]
    assert [shard for shard, _ in new] == [3 + i // 2 for i in range(15)]


def test_images_that_are_gone_stay_planned(tmp_path: Path) -> None:
    run = begin(tmp_path)
    update_plan(run, listing(*names(4)))
    assert update_plan(run, listing("003.jpg")).images == 4


def test_a_limit_then_more(tmp_path: Path) -> None:
    run = begin(tmp_path)
    assert update_plan(run, listing(*names(9)), limit=4).images == 4
    assert update_plan(run, listing(*names(9)), limit=4).added == 0
    assert update_plan(run, listing(*names(9)), limit=7).images == 7
    assert update_plan(run, listing(*names(9))) == PlanSummary(images=9, shards=5, added=2)
    assert [image_id for _, image_id in planned(run)] == names(9)


@pytest.mark.parametrize("count", [5, 6, 7, 11, 12, 13])
@pytest.mark.parametrize("batch", [1, 4, 100])
def test_parts_are_cut_at_whole_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, batch: int
) -> None:
    monkeypatch.setattr(planning, "SHARDS_PER_PART", 3)
    run = begin(tmp_path)
    summary = update_plan(run, listing(*names(count), batch=batch))
    assert summary == PlanSummary(images=count, shards=-(-count // 2), added=count)
    assert planned(run) == [(i // 2, name) for i, name in enumerate(names(count))]
    parts = plan_parts(run)
    assert [part.first_shard for part in parts] == list(range(0, summary.shards, 3))
    assert [part.images for part in parts[:-1]] == [6] * (len(parts) - 1)


@pytest.mark.parametrize("left", [0, 1, 2, 3])
def test_interrupted_planning_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    monkeypatch.setattr(planning, "SHARDS_PER_PART", 2)
    run = begin(tmp_path)
    images = [*names(15), *names(3)]
    update_plan(run, listing(*images))
    whole = files(run)
    parts = sorted(Path(run.plan.path).iterdir())
    assert len(parts) == 4
    for part in parts[left:]:
        part.unlink()
    update_plan(run, listing(*images, batch=5))
    assert files(run) == whole


def test_a_listing_that_breaks_off_plans_nothing(tmp_path: Path) -> None:
    def breaking() -> Iterator[pa.RecordBatch]:
        yield from listing(*names(5))
        raise InputError("the storage went away")

    run = begin(tmp_path)
    with pytest.raises(InputError, match="went away"):
        update_plan(run, breaking())
    assert plan_parts(run) == []


def test_a_large_plan_names_every_image_once(tmp_path: Path) -> None:
    run = begin(tmp_path, shard_size=256)
    count = 140_001
    images = [f"folder/{i:07d}.jpg" for i in range(count)]
    summary = update_plan(run, listing(*images, batch=10_000))
    assert summary == PlanSummary(images=count, shards=-(-count // 256), added=count)
    assert [part.shards for part in plan_parts(run)] == [256, 256, 35]
    table = reader.Results(run).plan()
    assert table["image_id"].to_pylist() == images
    assert table["shard"].to_pylist() == [i // 256 for i in range(count)]


def test_shards_yields_the_wanted_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "SHARDS_PER_PART", 2)
    run = begin(tmp_path)
    update_plan(run, listing(*names(11)))
    found = list(shards(run, {1, 2, 5}.__contains__))
    assert [shard.number for shard in found] == [1, 2, 5]
    assert [shard.images["image_id"].to_pylist() for shard in found] == [
        names(2, first=2),
        names(2, first=4),
        ["010.jpg"],
    ]
    assert list(shards(run, lambda _: False)) == []
    assert images_in(run, {1, 5}) == 3
    # Parts of which nothing is wanted are not even opened.
    (Path(run.plan.path) / "part-00001.parquet").write_bytes(
        (Path(run.plan.path) / "part-00001.parquet").read_bytes()[100:]
    )
    assert [shard.number for shard in shards(run, {0, 5}.__contains__)] == [0, 5]


# ------------------------------------------------------------------------------ writing and reading


def test_a_shard_is_done_when_its_scores_exist(tmp_path: Path) -> None:
    run = begin(tmp_path)
    update_plan(run, listing(*names(5)))
    assert run.shards_done() == set()
    commit(run, missing=1)
    assert run.shards_done() == {0, 2}
    Path(run.scores.path, "shard-000001.parquet.abc.tmp").write_bytes(b"")
    Path(run.scores.path, "notes.parquet").write_bytes(b"")
    assert run.shards_done() == {0, 2}


def test_committing_again_gives_the_same_bytes(scored: Run) -> None:
    before = files(scored)
    commit(scored, failing=frozenset({"001.jpg"}))
    assert files(scored) == before


def test_the_columns_are_the_documented_ones(scored: Run) -> None:
    for folder, schema in (("scores", SCORES), ("densities", DENSITIES)):
        for path in Path(scored.location.path, folder).iterdir():
            found = pq.read_schema(path)
            assert [(f.name, f.type, f.nullable) for f in found] == [
                (f.name, f.type, f.nullable) for f in schema
            ]


def test_every_planned_image_has_one_row(scored: Run) -> None:
    table = reader.open_results(scored.location.uri).scores
    assert table["image_id"].to_pylist() == names(5)
    rows = {row["image_id"]: row for row in table.to_pylist()}
    failed = rows.pop("001.jpg")
    assert {key: value for key, value in failed.items() if value is not None} == {
        "image_id": "001.jpg",
        "uri": "/photos/001.jpg",
        "status": "failed",
        "error": "not_found",
        "error_message": "there is nothing",
    }
    for row in rows.values():
        assert (row["status"], row["error"], row["height"], row["width"]) == ("ok", None, 48, 72)
        assert row["disagreement_bits"] is None
        assert 0 < row["information_bits"] < 10
    few = reader.Results(scored).read_scores(["image_id", "n_peaks"])
    assert few.schema.names == ["image_id", "n_peaks"]


def test_densities_come_back(scored: Run) -> None:
    results = reader.open_results(scored.location.uri)
    for image_id in ("000.jpg", "004.jpg"):
        expected = log_density_of(image_id)
        grid = results.density(image_id, grid=True)
        blocks = expected.astype(float).reshape(4, 2, 6, 2).mean(axis=(1, 3))
        assert grid.shape == (4, 6)
        assert logsumexp(grid) == pytest.approx(0, abs=1e-9)
        assert np.abs(grid - (blocks - logsumexp(blocks))).max() <= STEP
        full = results.density(image_id)
        assert full.shape == (48, 72)
        assert logsumexp(full.astype(float)) == pytest.approx(0, abs=1e-5)
        assert np.array_equal(full, to_size(grid, 48, 72))


@pytest.mark.parametrize("image_id", ["001.jpg", "nothing.jpg", "", "' OR 1=1"])
def test_an_image_without_a_density_is_named(scored: Run, image_id: str) -> None:
    with pytest.raises(InputError, match="no density"):
        reader.Results(scored).density(image_id)


def test_all_densities_are_streamed(scored: Run) -> None:
    results = reader.Results(scored)
    found = dict(results.densities(grid=True))
    assert list(found) == ["000.jpg", "002.jpg", "003.jpg", "004.jpg"]
    assert np.array_equal(found["003.jpg"], results.density("003.jpg", grid=True))
    assert {density.shape for _, density in results.densities()} == {(48, 72)}


def test_a_run_that_has_not_started_is_empty(tmp_path: Path) -> None:
    run = begin(tmp_path)
    update_plan(run, listing(*names(3)))
    results = reader.Results(run)
    assert results.scores.num_rows == 0
    assert results.read_scores(["image_id"]).schema.names == ["image_id"]
    assert list(results.densities()) == []
    with pytest.raises(InputError, match="no density"):
        results.density("000.jpg")


@pytest.fixture
def remote() -> Iterator[Run]:
    """Seven images, planned in two goes and scored, on a storage that is not the local disk."""
    run = begin_run(Location("memory://test-results/run"), SETTINGS)
    update_plan(run, listing(*names(5)))
    update_plan(run, listing(*names(7)))
    commit(run, failing=frozenset({"001.jpg"}))
    yield run
    fsspec.filesystem("memory").rm("/test-results", recursive=True)


def test_a_run_in_memory(remote: Run) -> None:
    uri = remote.location.uri
    assert uri == "memory:///test-results/run"
    again = begin_run(Location(uri), SETTINGS)
    assert list(problems(again)) == []
    assert reader.open_results(uri).scores["image_id"].to_pylist() == names(7)
    assert reader.open_results(uri).density("002.jpg").shape == (48, 72)
    assert run_status(again).ok == 6
    assert query(again, "SELECT count(*) AS n FROM scores").to_pylist() == [{"n": 7}]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_text('file:///etc/passwd')",
        "COPY scores TO '{run}/scores/stray.parquet'",
        "EXPLAIN ANALYZE COPY (SELECT 1 AS a) TO '{run}/scores/stray.parquet'",
        "WITH t AS (COPY (SELECT 1 AS a) TO '{run}/scores/stray.parquet') SELECT * FROM t",
    ],
)
def test_a_run_in_memory_is_only_read(remote: Run, sql: str) -> None:
    fs = fsspec.filesystem("memory")
    before = fs.find("/test-results")
    with pytest.raises(InputError):
        query(remote, sql.format(run=remote.location.uri))
    assert fs.find("/test-results") == before


# ------------------------------------------------------------------------------- verify and status


def test_a_whole_run_has_no_problems(scored: Run) -> None:
    assert list(problems(scored)) == []


def test_an_empty_plan_is_a_problem(tmp_path: Path) -> None:
    assert list(problems(begin(tmp_path))) == ["the plan is empty"]


def file(run: Run, name: str) -> Path:
    return Path(run.location.path, name)


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(path)), path)


def rows_changed(path: Path, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


SCORES_2 = "scores/shard-000001.parquet"
DENSITIES_2 = "densities/shard-000001.parquet"

DAMAGES: dict[str, tuple[Callable[[Run], Any], str]] = {
    "scores missing": (
        lambda run: file(run, SCORES_2).unlink(),
        f"{SCORES_2} is missing: 2 images",
    ),
    "densities missing": (
        lambda run: file(run, DENSITIES_2).unlink(),
        f"{DENSITIES_2} is missing",
    ),
    "scores swapped": (
        lambda run: rows_changed(file(run, SCORES_2), list.reverse),
        SCORES_2,
    ),
    "scores row lost": (
        lambda run: rows_changed(file(run, SCORES_2), list.pop),
        SCORES_2,
    ),
    "scores row twice": (
        lambda run: rows_changed(file(run, SCORES_2), lambda rows: rows.append(rows[0])),
        SCORES_2,
    ),
    "densities swapped": (
        lambda run: rows_changed(file(run, DENSITIES_2), list.reverse),
        DENSITIES_2,
    ),
    "density lost": (
        lambda run: rows_changed(file(run, DENSITIES_2), list.pop),
        DENSITIES_2,
    ),
    "density of a failed image": (
        lambda run: rows_changed(
            file(run, SCORES_2), lambda rows: rows[0].update(status="failed", error="not_found")
        ),
        "shard-000001.parquet",
    ),
    "ok with an error": (
        lambda run: rows_changed(
            file(run, SCORES_2), lambda rows: rows[0].update(error="not_found")
        ),
        "002.jpg",
    ),
    "failed without an error": (
        lambda run: rows_changed(
            file(run, "scores/shard-000000.parquet"), lambda rows: rows[1].update(error=None)
        ),
        "001.jpg",
    ),
    "unknown status": (
        lambda run: rows_changed(file(run, SCORES_2), lambda rows: rows[0].update(status="fine")),
        "002.jpg",
    ),
    "ok without numbers": (
        lambda run: rows_changed(
            file(run, SCORES_2), lambda rows: rows[0].update(information_bits=None)
        ),
        "002.jpg",
    ),
    "not normalised": (
        lambda run: rows_changed(
            file(run, DENSITIES_2), lambda rows: rows[0].update(log_offset=0.25)
        ),
        "002.jpg sums to",
    ),
    "not a number": (
        lambda run: rows_changed(
            file(run, DENSITIES_2), lambda rows: rows[0].update(log_offset=float("nan"))
        ),
        "002.jpg",
    ),
    "cells lost": (
        lambda run: rows_changed(
            file(run, DENSITIES_2), lambda rows: rows[0].update(grid_height=5)
        ),
        "the density of 002.jpg does not fit its grid",
    ),
    "other size": (
        lambda run: rows_changed(file(run, DENSITIES_2), lambda rows: rows[0].update(height=47)),
        "002.jpg",
    ),
    "column lost": (
        lambda run: rewrite(file(run, SCORES_2), lambda table: table.drop_columns("n_peaks")),
        "shard-000001.parquet",
    ),
    "column too many": (
        lambda run: rewrite(
            file(run, DENSITIES_2), lambda table: table.append_column("x", table["height"])
        ),
        "shard-000001.parquet",
    ),
    "scores truncated": (lambda run: truncate(file(run, SCORES_2)), "shard-000001.parquet"),
    "densities truncated": (lambda run: truncate(file(run, DENSITIES_2)), "shard-000001.parquet"),
    "scores empty": (
        lambda run: file(run, SCORES_2).write_bytes(b""),
        "shard-000001.parquet",
    ),
    "plan truncated": (
        lambda run: truncate(file(run, "plan/part-00000.parquet")),
        "part-00000.parquet",
    ),
    "stray shard": (
        lambda run: file(run, "scores/shard-000009.parquet").write_bytes(b"x"),
        "scores/shard-000009.parquet does not belong",
    ),
    "stray density": (
        lambda run: file(run, "densities/shard-000009.parquet").write_bytes(b"x"),
        "densities/shard-000009.parquet does not belong",
    ),
    "temporary file": (
        lambda run: file(run, "scores/shard-000001.parquet.00.tmp").write_bytes(b"x"),
        "does not belong",
    ),
    "stray file": (
        lambda run: file(run, "notes.txt").write_bytes(b"x"),
        "notes.txt does not belong",
    ),
    "stray plan": (
        lambda run: file(run, "plan/old.parquet").write_bytes(b"x"),
        "plan/old.parquet does not belong",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found(scored: Run, damage: str) -> None:
    act, expected = DAMAGES[damage]
    act(scored)
    found = list(problems(scored))
    assert any(expected in line for line in found), found
    assert all("\n" not in line for line in found)


def test_an_image_that_the_plan_names_twice_is_found(scored: Run) -> None:
    path = file(scored, "plan/part-00000.parquet")
    table = pq.read_table(path)
    double = pa.concat_tables([table.slice(0, 4), table.slice(0, 1)])
    double = double.replace_schema_metadata(table.schema.metadata)
    pq.write_table(double, path, row_group_size=2)
    assert any("more than once" in line for line in problems(scored))


def test_damage_in_one_shard_does_not_hide_another(scored: Run) -> None:
    truncate(file(scored, SCORES_2))
    file(scored, "scores/shard-000002.parquet").unlink()
    found = "\n".join(problems(scored))
    assert "shard-000001.parquet is not a readable table" in found
    assert "scores/shard-000002.parquet is missing" in found


def test_status_counts(tmp_path: Path) -> None:
    run = begin(tmp_path)
    update_plan(run, listing(*names(9)))
    status = run_status(run)
    assert (status.images, status.ok, status.failed, status.missing) == (9, 0, 0, 9)
    assert (status.shards, status.shards_done, status.errors, status.rate) == (5, 0, {}, None)
    commit(run, failing=frozenset({"001.jpg", "006.jpg", "007.jpg"}), missing=1)
    status = run_status(run)
    assert (status.images, status.ok, status.failed, status.missing) == (9, 4, 3, 2)
    assert (status.shards, status.shards_done) == (5, 4)
    assert status.errors == {"not_found": 3}


def test_the_rate_is_that_of_the_commits(tmp_path: Path) -> None:
    run = begin(tmp_path)
    update_plan(run, listing(*names(20)))
    commit(run)
    os.utime(tmp_path / "run.json", (990, 990))
    for shard in range(10):  # two images each, two shards at once
        os.utime(file(run, f"scores/{shard_name(shard)}"), (1000 + 10 * (shard // 2),) * 2)
    assert run_status(run).rate == pytest.approx(4 / 10)


# ------------------------------------------------------------------------------------------- query


@pytest.mark.parametrize("name", ODD_NAMES)
def test_views_of_any_directory(tmp_path: Path, name: str) -> None:
    run = begin(tmp_path / name / "run")
    update_plan(run, listing(*names(5)))
    commit(run, failing=frozenset({"001.jpg"}))
    found = query(run, "SELECT status, count(*)::INT AS n FROM scores GROUP BY ALL ORDER BY n")
    assert found.to_pylist() == [{"status": "failed", "n": 1}, {"status": "ok", "n": 4}]
    joined = query(
        run,
        "SELECT s.image_id, p.shard, len(d.log_density)::INT AS cells "
        "FROM scores s JOIN plan p USING (image_id) JOIN densities d USING (image_id) "
        "ORDER BY image_id DESC LIMIT 1",
    )
    assert joined.to_pylist() == [{"image_id": "004.jpg", "shard": 2, "cells": 24}]


def test_a_density_decodes_in_sql(scored: Run) -> None:
    sql = (
        "SELECT log_density[i] / 32.0 + log_offset AS v FROM densities, range(1, 25) t(i) "
        "WHERE image_id = '002.jpg' ORDER BY i"
    )
    found = query(scored, sql)["v"].to_numpy()
    assert found == pytest.approx(reader.Results(scored).density("002.jpg", grid=True).ravel())


@pytest.mark.parametrize(
    "sql",
    [
        "WITH t AS (SELECT 1 AS a) SELECT * FROM t",
        "FROM scores",
        "SELECT 1;",
        "SELECT ';'",
        "DESCRIBE scores",
        "SUMMARIZE scores",
    ],
)
def test_whatever_reads_is_taken(scored: Run, sql: str) -> None:
    assert query(scored, sql).num_rows > 0


@pytest.mark.parametrize(
    "sql",
    [
        "COPY scores TO '{run}/scores/stray.parquet'",
        "EXPLAIN ANALYZE COPY (SELECT 1 AS a) TO '{run}/scores/stray.parquet'",
        "EXPLAIN ANALYZE COPY scores TO '{run}/scores/shard-000000.parquet' (FORMAT csv)",
        "WITH t AS (COPY (SELECT 1 AS a) TO '{run}/scores/stray.parquet') SELECT * FROM t",
        "EXPORT DATABASE '{run}/scores'",
        "ATTACH '{run}/scores/stray.parquet' AS other",
        "ATTACH ':memory:' AS other",
        "CREATE TABLE t AS SELECT 1",
        "CREATE OR REPLACE VIEW scores AS SELECT 1",
        "INSERT INTO scores SELECT * FROM scores",
        "DELETE FROM scores",
        "UPDATE scores SET status = 'ok'",
        "DROP VIEW scores",
        "SET enable_external_access = true",
        "SET allowed_directories = ['/']",
        "RESET enable_external_access",
        "PRAGMA enable_profiling",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SELECT 1; SELECT 2",
        "SELECT 1; COPY scores TO '{run}/scores/stray.parquet'",
        "BEGIN TRANSACTION",
        "CALL pragma_version()",
        "",
        ";",
        "-- nothing",
    ],
)
def test_whatever_would_write_is_refused(scored: Run, sql: str) -> None:
    before = files(scored)
    with pytest.raises(InputError) as caught:
        query(scored, sql.format(run=scored.location.path))
    assert "\n" not in str(caught.value)
    assert files(scored) == before


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_csv('/etc/passwd', sep = ':', header = false)",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_text('file:///etc/passwd')",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM read_text('{run}/../../../../../../../../../../etc/passwd')",
        "SELECT * FROM read_text('{run}/../secret.txt')",
        "SELECT * FROM read_text('{run}-other/secret.txt')",
        "SELECT * FROM sniff_csv('/etc/passwd')",
    ],
)
def test_other_files_cannot_be_read(scored: Run, sql: str) -> None:
    run = Path(scored.location.path)
    (run.parent / "secret.txt").write_text("secret")
    (run.parent / f"{run.name}-other").mkdir()
    (run.parent / f"{run.name}-other" / "secret.txt").write_text("secret")
    with pytest.raises(InputError):
        query(scored, sql.format(run=run))


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELEC 1", "SELEC"),
        ("SELECT nonsense FROM scores", "nonsense"),
        ("SELECT * FROM nowhere", "nowhere"),
        ("SELECT CAST(image_id AS INT) FROM scores", "Could not convert"),
        ("SELECT 'open", "open"),
    ],
)
def test_wrong_sql_is_a_mistake(scored: Run, sql: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        query(scored, sql)
    assert "\n" not in str(caught.value)


def test_a_run_without_results_says_so(tmp_path: Path) -> None:
    run = begin(tmp_path)
    update_plan(run, listing(*names(3)))
    with pytest.raises(InputError, match="nothing yet"):
        query(run, "SELECT * FROM scores")


@pytest.mark.parametrize("folder", ["scores", "densities"])
@pytest.mark.parametrize("shard", [0, 2])
def test_a_damaged_file_is_an_error_of_ours(scored: Run, folder: str, shard: int) -> None:
    truncate(file(scored, f"{folder}/{shard_name(shard)}"))
    with pytest.raises(GazecoreError, match=shard_name(shard)):
        query(scored, f"SELECT * FROM {folder}")


def test_the_status_of_a_damaged_run_is_an_error_of_ours(scored: Run) -> None:
    truncate(file(scored, SCORES_2))
    with pytest.raises(GazecoreError, match=r"shard-000001\.parquet"):
        run_status(scored)


def test_queries_of_scores_never_read_densities(scored: Run) -> None:
    for path in Path(scored.densities.path).iterdir():
        data = path.read_bytes()
        footer = int.from_bytes(data[-8:-4], "little") + 8
        path.write_bytes(b"PAR1" + bytes(len(data) - footer - 4) + data[-footer:])
    assert query(scored, "SELECT sum(area_50) > 0 AS ok FROM scores").to_pylist() == [{"ok": True}]
    with pytest.raises(GazecoreError):
        query(scored, "SELECT log_density FROM densities")


def test_the_stored_cells_are_those_of_the_codec(scored: Run) -> None:
    row = query(scored, "SELECT * FROM densities WHERE image_id = '004.jpg'").to_pylist()[0]
    values, offset = encode(log_density_of("004.jpg"), SETTINGS.density_factor)
    assert row["log_density"] == values.ravel().tolist()
    assert row["log_offset"] == offset
