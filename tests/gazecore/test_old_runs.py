"""Runs of the version before are read by everything, and written by nothing."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import gazecore
from gazecore.comparison.outputs import compare_runs
from gazecore.errors import RunMismatch
from gazecore.results.compact import compact
from gazecore.results.export import export_run
from gazecore.results.query import query
from gazecore.results.reader import DensityLookup, Results
from gazecore.results.run import Run, begin_run, find_run, open_run
from gazecore.results.status import run_status
from gazecore.results.verify import problems
from gazecore.shards.directory import DIGEST, digest
from gazecore.shards.planning import update_plan
from gazecore.storage import Location
from tests.gazecore.test_results import SETTINGS, begin, commit, listing, names

FAILED = "001.jpg"


def as_written_before(folder: Path) -> None:
    """Make a run what version 1 wrote: another number in its marker, no column of peaks."""
    marker = folder / "run.json"
    content = json.loads(marker.read_text()) | {"schema_version": 1}
    del content[DIGEST]
    marker.write_text(json.dumps({**content, DIGEST: digest(content)}, indent=2) + "\n")
    for path in (folder / "scores").iterdir():
        table = pq.read_table(path).drop_columns("peaks")
        pq.write_table(table, path, write_page_checksum=True)


@pytest.fixture
def new(tmp_path: Path) -> Run:
    """Five images, of which one failed, in three shards."""
    run = begin(tmp_path / "new")
    update_plan(run, listing(*names(5)))
    commit(run, failing=frozenset({FAILED}))
    return run


@pytest.fixture
def old(tmp_path: Path) -> Run:
    """The same, as version 1 wrote it."""
    run = begin(tmp_path / "old")
    update_plan(run, listing(*names(5)))
    commit(run, failing=frozenset({FAILED}))
    as_written_before(tmp_path / "old")
    return open_run(Location(str(tmp_path / "old")))


def test_the_fixture_is_what_version_1_wrote(old: Run) -> None:
    assert old.version == 1
    for path in Path(old.scores.path).iterdir():
        assert "peaks" not in pq.read_schema(path).names
        assert pq.read_schema(path).names == old.schema.names


@pytest.mark.parametrize("compacted", [False, True])
def test_it_is_counted_verified_asked_and_read(old: Run, new: Run, compacted: bool) -> None:
    if compacted:
        for run in (old, new):
            compact(run)
            compact(run, "densities")
    status = run_status(old)
    assert (status.ok, status.failed, status.is_complete) == (4, 1, True)
    assert list(problems(old)) == []
    sql = "SELECT * FROM scores JOIN densities USING (image_id) ORDER BY image_id"
    found, expected = query(old, sql), query(new, sql)
    assert found.equals(expected.drop_columns("peaks"))
    assert query(old, "DESCRIBE scores").num_rows == query(new, "DESCRIBE scores").num_rows - 1
    assert query(old, "SELECT count(*) AS n FROM plan")["n"].to_pylist() == [5]
    results = gazecore.open_run(old.location.uri)
    scores = results.scores
    assert scores.equals(Results(new).scores.drop_columns("peaks"))
    assert scores.schema.equals(old.schema)
    assert results.density("002.jpg").shape == (48, 72)
    assert [image_id for image_id, _ in results.densities()] == [n for n in names(5) if n != FAILED]
    assert DensityLookup(results).by_shard(names(5)) == [n for n in names(5) if n != FAILED]


def test_it_is_exported_as_a_new_one(old: Run, new: Run, tmp_path: Path) -> None:
    for run, name in ((old, "a"), (new, "b")):
        assert export_run(Results(run), Location(str(tmp_path / name)), "png").made == 4
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_beside_a_new_one_all_is_compared_but_the_number_of_peaks(
    old: Run, new: Run, tmp_path: Path
) -> None:
    found = compare_runs(old, new, Location(str(tmp_path / "compared"))).images
    assert found["js_bits"].to_pylist() == pytest.approx([0] * 4, abs=1e-9)
    assert found["area_50_change"].to_pylist() == [0] * 4
    assert found["n_peaks_change"].null_count == found["n_peaks_rank_change"].null_count == 4
    found = compare_runs(old, old, Location(str(tmp_path / "same"))).images
    assert found["n_peaks_change"].to_pylist() == [0] * 4


@pytest.mark.parametrize("go_on", [begin_run, find_run])
def test_it_is_not_gone_on_with(old: Run, go_on: Callable[..., Run]) -> None:
    before = {path: path.read_bytes() for path in Path(old.location.path).rglob("*.*")}
    with pytest.raises(RunMismatch, match="run format 1") as caught:
        go_on(old.location, SETTINGS)
    assert "another --out" in str(caught.value)
    assert before == {path: path.read_bytes() for path in Path(old.location.path).rglob("*.*")}


def test_damage_is_found_in_it_too(old: Run) -> None:
    path = Path(old.scores.path) / "shard-000001.parquet"
    table = pq.read_table(path)
    wrong = pa.array([99.0] * table.num_rows, pa.float32())
    pq.write_table(
        table.set_column(table.schema.get_field_index("area_50"), "area_50", wrong), path
    )
    assert any("the row of 002.jpg" in line for line in problems(old))
