"""Compaction: the same rows in few files, at any moment, whoever is killed, mended or added."""

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gazecore.errors import InputError, NotFound, RunFailed
from gazecore.results import compact as compacting
from gazecore.results import reader
from gazecore.results.compact import compact, make_plan, sort_group
from gazecore.results.compacted import TABLES, Table, manifest, read_compaction, sources
from gazecore.results.export import export_run
from gazecore.results.files import Object
from gazecore.results.query import query
from gazecore.results.retry import failed_images
from gazecore.results.run import Run, begin_run, open_run
from gazecore.results.schema import SCORES
from gazecore.results.status import run_status
from gazecore.results.verify import problems
from gazecore.results.write import commit_shard, mend_shard
from gazecore.shards.directory import shard_name
from gazecore.shards.pipeline import failed_row
from gazecore.shards.plan import shards
from gazecore.shards.planning import update_plan
from gazecore.storage import Location
from tests.gazecore.test_results import SETTINGS, commit, listing, log_density_of, names
from tests.jobs.conftest import ROOT
from tests.scoring import rows_of

SHARDS = 45
FAILING = frozenset({"001.jpg", "004.jpg", "005.jpg", "080.jpg"})


def mixed(count: int) -> list[str]:
    """Image ids in an order that is not theirs."""
    ids = names(count)
    random.Random(5).shuffle(ids)
    return ids


def make(root: str) -> Run:
    run = begin_run(Location(root), SETTINGS)
    update_plan(run, listing(*mixed(2 * SHARDS)))
    commit(run, failing=FAILING)
    return run


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows make many groups and parts."""
    monkeypatch.setattr(compacting, "GROUP_BYTES", 60_000)
    monkeypatch.setattr(compacting, "PART_BYTES", 50_000)
    monkeypatch.setattr(compacting, "_EVERY", 2)
    monkeypatch.setattr("gazecore.results.files.WHOLE", 4_000)


@pytest.fixture(params=["local", "memory", "s3"])
def run(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    s3_server: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    small: None,
) -> Iterator[Run]:
    """A run on each storage."""
    if request.param == "local":
        yield make(str(tmp_path / "run [1]"))
    elif request.param == "memory":
        yield make("memory://compacted/run")
        fsspec.filesystem("memory").rm("/compacted", recursive=True)
    else:
        for name, value in s3_server.items():
            monkeypatch.setenv(name, value)
        bucket = boto3.resource("s3").Bucket("compacted")
        bucket.create()
        yield make("s3://compacted/run")
        bucket.objects.all().delete()
        bucket.delete()


@pytest.fixture
def local(tmp_path: Path, small: None) -> Run:
    return make(str(tmp_path / "run"))


def rows(run: Run, table: str = "scores") -> list[dict[str, Any]]:
    return query(run, f"FROM {table} ORDER BY image_id").to_pylist()


def score_again(run: Run, image_id: str) -> None:
    """What a retry does of an image that failed."""
    for shard in shards(run):
        for row in shard.images.to_pylist():
            if row["image_id"] == image_id:
                score, stored = rows_of(row, log_density_of(image_id), 2)
                mend_shard(run, shard.number, [score], [stored])


def add(run: Run, count: int, total: int) -> None:
    """More images in new shards."""
    done = run.shards_done()
    update_plan(run, listing(*names(count, first=total)))
    for shard in shards(run, lambda number: number not in done):
        pairs = [rows_of(r, log_density_of(r["image_id"]), 2) for r in shard.images.to_pylist()]
        commit_shard(run, shard.number, [s for s, _ in pairs], [d for _, d in pairs])


def test_the_same_rows_in_few_sorted_files(run: Run) -> None:
    before = {table: rows(run, table) for table in ("scores", "densities")}
    status = run_status(run)
    read = reader.Results(run).scores.sort_by("image_id")
    for table in TABLES:
        schema = compacting.part_schema(run, table)
        made = compact(run, table)
        assert len(made.parts) > 2 or table == "densities"
        assert rows(run, table) == before[table]
        found = [part.object.read_table() for part in made.parts]
        assert all(part.schema.equals(schema) for part in found)
        ids = pa.concat_tables(found)["image_id"].to_pylist()
        assert ids == sorted(ids, key=str.encode)
        assert len(ids) == made.rows == len(before[table])
        for part in made.parts:
            column = part.object.read_parquet(lambda f: f.metadata.row_group(0).column(0))
            assert column.has_column_index
            assert column.has_offset_index
            assert part.object.read_parquet(lambda f: f.metadata.row_group(0).sorting_columns)
        assert sources(run, table).shards == []
    assert reader.Results(run).scores.sort_by("image_id").equals(read)
    assert reader.Results(run).read_scores(["uri"]).schema.names == ["uri"]
    assert run_status(run) == status
    assert sum(failed_images(run).values()) == len(FAILING)
    assert list(problems(run)) == []
    # Nothing is left but what is read; and to do it again is to do nothing.
    assert not any("sorted" in name for name in (run.location / "compacted").names())
    assert compact(run).generation == made_generation(run, "scores")


def made_generation(run: Run, table: Table) -> str:
    compaction = read_compaction(run, table)
    assert compaction
    return compaction.generation


def test_what_comes_later_is_read_beside_it(run: Run) -> None:
    compact(run)
    compact(run, "densities")
    first = made_generation(run, "scores")
    score_again(run, "005.jpg")
    add(run, 3, 2 * SHARDS)
    found = sources(run, "scores")
    assert len(found.outdated) == 1
    assert len(found.shards) == 3  # the mended one, and two new ones
    ended = {row["image_id"]: row["status"] for row in rows(run)}
    assert list(ended) == names(2 * SHARDS + 3)
    assert {i for i, status in ended.items() if status == "failed"} == FAILING - {"005.jpg"}
    assert [row["image_id"] for row in rows(run, "densities")] == [
        i for i, status in ended.items() if status == "ok"
    ]
    assert sorted(reader.Results(run).read_scores(["image_id"])[0].to_pylist()) == list(ended)
    status = run_status(run)
    assert (status.ok, status.failed, status.missing) == (len(ended) - 3, 3, 0)
    assert sum(failed_images(run).values()) == 3
    assert list(problems(run)) == []
    again = compact(run)
    assert again.generation != first
    assert again.rows == len(ended)
    assert sources(run, "scores").shards == sources(run, "scores").outdated == []
    assert {row["image_id"]: row["status"] for row in rows(run)} == ended


def test_densities_are_found_by_the_compacted_scores(local: Run, tmp_path: Path) -> None:
    results = reader.Results(local)
    lookup = reader.DensityLookup(results)
    before = {i: results.density(i) for i in ("000.jpg", "089.jpg")}
    export_run(results, Location(str(tmp_path / "before")), "png")
    compact(local)
    score_again(local, "080.jpg")
    add(local, 2, 2 * SHARDS)
    for image_id, density in before.items():
        assert np.array_equal(results.density(image_id), density)
    for image_id in ("080.jpg", "091.jpg"):
        assert results.density(image_id).shape == (48, 72)
    for image_id in ("001.jpg", "999.jpg"):
        with pytest.raises(InputError, match="no density"):
            results.density(image_id)
    again = reader.DensityLookup(results)
    for image_id in names(2 * SHARDS):
        if image_id not in FAILING:
            assert again.size(image_id) == lookup.size(image_id)
            assert np.array_equal(again.on_grid(image_id), lookup.on_grid(image_id))
    assert {i for i in names(2 * SHARDS + 2) if i not in again} == FAILING - {"080.jpg"}
    export_run(results, Location(str(tmp_path / "after")), "png")
    maps = {p.name: p.read_bytes() for p in (tmp_path / "after").iterdir()}
    for path in (tmp_path / "before").iterdir():
        assert maps.pop(path.name) == path.read_bytes()
    assert sorted(maps) == ["080.png", "090.png", "091.png"]


def test_a_compacted_run_is_told_by_few_files(local: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    compact(local)
    read: list[str] = []
    real = Object.read_bytes

    def counting(self: Object) -> bytes:
        read.append(self.path)
        return real(self)

    monkeypatch.setattr(Object, "read_bytes", counting)
    run_status(local)
    failed_images(local)
    query(local, "SELECT count(*) FROM scores")
    assert not [path for path in read if "/scores/" in path]


def test_a_copy_of_a_run_is_read_from_its_shards(local: Run, tmp_path: Path) -> None:
    compact(local)
    before = rows(local)
    shutil.copytree(local.location.path, tmp_path / "copy", copy_function=shutil.copyfile)
    copy = open_run(Location(str(tmp_path / "copy")))
    assert sources(copy, "scores").parts == []
    assert rows(copy) == before
    assert list(problems(copy)) == []
    compact(copy)
    assert len(sources(copy, "scores").parts) > 1
    assert rows(copy) == before


# ------------------------------------------------------------------------------------ being killed


class Killed(BaseException):
    pass


def ending(real: Any, step: int, done: list[str]) -> Any:
    def change(self: Location, *values: Any, **options: Any) -> None:
        if len(done) == step // 2 and not step % 2:
            raise Killed
        real(self, *values, **options)
        done.append(self.path)
        if len(done) == step // 2 + 1 and step % 2:
            raise Killed

    return change


@contextlib.contextmanager
def killed_at(step: int) -> Iterator[list[str]]:
    """Ends what goes on before its `step`th change of the storage, or after it if that is odd."""
    done: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("publish", "remove"):
            patch.setattr(Location, name, ending(getattr(Location, name), step, done))
        yield done


def test_killed_at_every_step_it_is_read_rightly_and_goes_on(local: Run) -> None:
    """From before its first change of the storage to after its last one."""
    before = rows(local)
    home = Path(local.location.path) / "compacted"
    for step in range(1000):
        shutil.rmtree(home, ignore_errors=True)
        with killed_at(step) as done:
            try:
                compact(local)
                break
            except Killed:
                pass
        assert rows(local) == before
        assert run_status(local).ok == len(before) - len(FAILING)
        written = {str(p): p.stat().st_mtime_ns for p in home.rglob("*.parquet")}
        made = compact(local)
        assert len(made.parts) > 2
        assert rows(local) == before
        assert list(problems(local)) == []
        assert not any("sorted" in path.name for path in home.rglob("*"))
        # What was there was not made anew.
        for path in home.rglob("part-*.parquet"):
            assert path.stat().st_mtime_ns == written.get(str(path), path.stat().st_mtime_ns)
    assert step > 12, done


def test_several_at_once(local: Run) -> None:
    before = rows(local)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            compact(local)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert rows(local) == before
    assert errors == []
    assert rows(local) == before
    assert list(problems(local)) == []


WORK = """
import sys
from gazecore.results import compact as compacting
from gazecore.results.run import open_run
from gazecore.storage import Location
compacting.GROUP_BYTES, compacting.PART_BYTES, compacting._EVERY = 20_000, 50_000, 2
print("begun", flush=True)
compacting.compact(open_run(Location(sys.argv[1])))
"""


@pytest.mark.slow
def test_killed_ten_times_at_random_a_reader_counts_right(local: Run) -> None:
    """While failed images are mended and new ones come."""
    rng = random.Random(11)
    most = 2 * SHARDS
    failing = sorted(FAILING)
    seen: list[int] = []
    wrong: list[Any] = []
    least = most
    is_over = threading.Event()

    def count() -> None:
        sql = "SELECT count(*), count(DISTINCT image_id), count_if(status = 'ok') FROM scores"
        while not is_over.is_set():
            low = least
            try:
                [(n, ids, ok)] = [tuple(row.values()) for row in query(local, sql).to_pylist()]
            except Exception as error:
                wrong.append(error)
                return
            seen.append(n)
            if not (low <= n <= most) or ids != n or not n - len(FAILING) <= ok <= n:
                wrong.append((low, most, n, ids, ok))

    readers = [threading.Thread(target=count) for _ in range(2)]
    for one in readers:
        one.start()
    kills = took = 0
    try:
        for turn in range(60):
            if kills == 10:
                break
            if turn % 3 == 1 and failing:
                score_again(local, failing.pop())
            if turn % 3 == 2:
                most += 2
                add(local, 2, most - 2)
                least = most
            process = subprocess.Popen(
                [sys.executable, "-c", WORK, local.location.path],
                cwd=ROOT, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            with process:
                assert process.stdout
                assert process.stdout.readline() == "begun\n"
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=rng.uniform(0, 1.5))
                if process.poll() is None:
                    process.kill()
                    kills += 1
                else:
                    took += 1
    finally:
        is_over.set()
        for one in readers:
            one.join()
    assert wrong == []
    assert kills == 10
    assert len(seen) > 20
    compact(local)
    assert len(rows(local)) == most
    assert list(problems(local)) == []


# ----------------------------------------------------------------------------------- what is wrong


def test_nothing_to_compact(tmp_path: Path) -> None:
    run = begin_run(Location(str(tmp_path / "run")), SETTINGS)
    update_plan(run, listing(*names(3)))
    with pytest.raises(InputError, match="holds nothing yet"):
        compact(run)


def test_a_damaged_shard_is_named_and_nothing_changes(local: Run) -> None:
    (Path(local.scores.path) / shard_name(7)).write_bytes(b"PAR1 and nothing")
    with pytest.raises(InputError, match=shard_name(7)):
        compact(local)
    assert read_compaction(local, "scores") is None


def test_rows_that_are_lost_on_the_way_are_not_published(local: Run) -> None:
    plan = make_plan(local, "scores")
    for numbered in enumerate(plan.groups):
        sort_group(plan, numbered)
    group = Path(plan.sorted.path) / "group-00000.parquet"
    table = pq.read_table(group)
    pq.write_table(table.slice(1).replace_schema_metadata(table.schema.metadata), group)
    with pytest.raises(RunFailed, match="compacted"):
        compact(local)
    assert read_compaction(local, "scores") is None
    shutil.rmtree(Path(local.location.path) / "compacted")
    assert compact(local).rows == 2 * SHARDS


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 1}', '{"version": 2}'])
def test_a_damaged_manifest_is_one_line_and_made_anew(local: Run, content: str) -> None:
    compact(local)
    where = Path(manifest(local, "scores").path)
    where.write_text(content)
    for read in (rows, run_status, lambda run: reader.Results(run).scores):
        with pytest.raises(InputError, match=r"scores\.json") as caught:
            read(local)
        assert "\n" not in str(caught.value)
    assert any("scores.json" in problem for problem in problems(local))
    compact(local)
    assert len(rows(local)) == 2 * SHARDS


def change_a_value(part: Path) -> None:
    table = pq.read_table(part)
    bits = table["information_bits"].to_numpy(zero_copy_only=False).copy()
    bits[np.flatnonzero(np.isfinite(bits))[0]] += 1
    column = table.schema.get_field_index("information_bits")
    pq.write_table(
        table.set_column(
            column, SCORES.field("information_bits"), pa.array(bits, from_pandas=True)
        ),
        part,
    )


def change_an_answer(part: Path) -> None:
    where = part.parent.parent / "scores.json"
    where.write_text(where.read_text().replace('"rows": 90', '"rows": 91'))


DAMAGES = {
    "a value": change_a_value,
    "a part is gone": Path.unlink,
    "a part is no table": lambda part: part.write_bytes(os.urandom(part.stat().st_size)),
    "a part is shorter": lambda part: os.truncate(part, 100),
    "the manifest": change_an_answer,
    "a stranger": lambda part: (part.parent.parent / "notes.txt").write_text("mine"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_verify_finds_damage(local: Run, damage: str) -> None:
    compact(local)
    part = sorted((Path(local.location.path) / "compacted").rglob("part-*.parquet"))[1]
    DAMAGES[damage](part)
    found = list(problems(local))
    assert found
    assert all("\n" not in line and "compacted" in line for line in found)


# ------------------------------------------------------------------------------- what was before it


def age(run: Run, seconds: float) -> None:
    for path in (Path(run.location.path) / "compacted").rglob("*"):
        os.utime(path, (time.time() - seconds,) * 2)


def generations(run: Run) -> set[str]:
    folder = Path(run.location.path) / "compacted"
    return {path.name for path in folder.iterdir() if path.is_dir()}


def test_what_was_read_before_is_kept_for_a_day(local: Run) -> None:
    first = compact(local).generation
    add(local, 2, 2 * SHARDS)
    second = compact(local).generation
    assert generations(local) == {f"scores-{first}", f"scores-{second}"}
    add(local, 2, 2 * SHARDS + 2)
    third = compact(local).generation
    assert len(generations(local)) == 3
    age(local, 90_000)
    add(local, 2, 2 * SHARDS + 4)
    fourth = compact(local).generation
    # The one that was read until a moment ago may still be.
    assert generations(local) == {f"scores-{third}", f"scores-{fourth}"}
    names_left = {path.name for path in (Path(local.location.path) / "compacted").iterdir()}
    assert f"scores-{first}-shards.parquet" not in names_left
    assert len(rows(local)) == 2 * SHARDS + 6
    assert list(problems(local)) == []


def test_a_compaction_that_goes_on_is_left_alone(local: Run) -> None:
    compact(local)
    age(local, 90_000)
    add(local, 2, 2 * SHARDS)
    other = make_plan(local, "scores")
    sort_group(other, (0, other.groups[0]))
    add(local, 2, 2 * SHARDS + 2)
    compact(local)
    assert other.sorted.exists()


def test_the_manifest_says_where_to_read(local: Run) -> None:
    """As docs/results-format.md tells those who read it by other programs."""
    made = compact(local)
    content = json.loads((Path(local.location.path) / "compacted" / "scores.json").read_text())
    folder = Path(local.location.path) / "compacted" / content["folder"]
    assert pq.read_table(folder).num_rows == made.rows == content["rows"]
    assert sorted(p.name for p in folder.iterdir()) == [part["name"] for part in content["parts"]]


def test_failed_rows_are_those_of_the_shards(local: Run) -> None:
    """A shard in which every image failed has scores and no densities."""
    update_plan(local, listing(*names(2, first=2 * SHARDS)))
    for shard in shards(local, lambda number: number == SHARDS):
        failed = [failed_row(row, NotFound("it is gone")) for row in shard.images.to_pylist()]
        commit_shard(local, shard.number, failed, [])
    for table in TABLES:
        assert compact(local, table).shards.num_rows == SHARDS + 1
    assert sources(local, "densities").shards == []
    assert list(problems(local)) == []


def test_a_run_of_which_every_image_failed_is_compacted_too(tmp_path: Path) -> None:
    run = begin_run(Location(str(tmp_path / "run")), SETTINGS)
    update_plan(run, listing(*names(9)))
    commit(run, failing=frozenset(names(9)))
    for table, rows in (("scores", 9), ("densities", 0)):
        assert compact(run, table).rows == rows
    assert query(run, "SELECT count(*)::INT AS n FROM densities").to_pylist() == [{"n": 0}]
    assert list(problems(open_run(run.location))) == []
