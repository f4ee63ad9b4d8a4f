"""Nothing that a reader would see is damaged without `verify` saying so, and nothing is planned or
read past damage."""

import json
import os
import random
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gazecore.errors import GazecoreError, InputError
from gazecore.results import reader
from gazecore.results.estimate import estimate
from gazecore.results.export import dataset_names
from gazecore.results.query import query
from gazecore.results.reader import DensityLookup
from gazecore.results.retry import Again, failed_images, parts_again
from gazecore.results.run import Run, begin_run, find_run, open_run
from gazecore.results.status import run_status
from gazecore.results.verify import problems
from gazecore.shards.planning import update_plan
from gazecore.storage import Location
from tests.gazecore.test_results import SETTINGS, begin, commit, listing, names

FLIPS = 300


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run = begin(tmp_path / "run")
    update_plan(run, listing(*names(9)))
    commit(run, failing=frozenset({"001.jpg", "006.jpg"}))
    assert list(problems(run)) == []
    return tmp_path / "run"


def found(folder: Path) -> list[str]:
    """What commands say of a run: that it cannot be opened, or what verify finds."""
    try:
        lines = list(problems(open_run(Location(str(folder)))))
    except GazecoreError as error:
        lines = [str(error)]
    assert all("\n" not in line for line in lines)
    return lines


def seen(path: Path) -> Any:
    """What readers see of a file."""
    if path.suffix == ".json":
        content = json.loads(path.read_bytes())
        return {key: content[key] for key in [*asdict(SETTINGS), "schema_version"]}
    file = pq.ParquetFile(path)
    table = file.read()
    sizes = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
    first = (file.schema_arrow.metadata or {}).get(b"gazecore.first_shard")
    return table.to_pylist(), table.schema.types, sizes, first


def test_no_single_bit_changes_what_is_seen_unnoticed(folder: Path) -> None:
    rng = random.Random(26)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    before = {path: seen(path) for path in paths}
    missed = []
    for _ in range(FLIPS):
        path = rng.choice(paths)
        data = path.read_bytes()
        bit = rng.randrange(8 * len(data))
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        lines = found(folder)
        try:
            is_changed = seen(path) != before[path]
        except Exception:
            is_changed = True
        if is_changed and not any(path.name in line for line in lines):
            missed.append((path.name, bit, lines))
        path.write_bytes(data)
    assert missed == []
    assert found(folder) == []


def rewritten(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    table = pq.read_table(path)
    metadata = table.schema.metadata
    pq.write_table(change(table).replace_schema_metadata(metadata), path, row_group_size=2)


def with_value(column: str, value: Any, row: int = 0) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        rows = table.to_pylist()
        rows[row][column] = value
        return pa.Table.from_pylist(rows, schema=table.schema)

    return change


IMPOSSIBLE = [
    (column, value)
    for column in (
        "information_bits", "concentration_bits", "peak_x", "peak_y", "mean_x", "mean_y", "std_x",
        "std_y", "area_50", "area_90", "center_mass", "disagreement_bits",
    )
    for value in (float("nan"), float("inf"), -5.0, 1e9)
]  # fmt: skip
IMPOSSIBLE += [("cov_xy", 1e9), ("cov_xy", float("nan"))]
IMPOSSIBLE += [("n_peaks", 0), ("n_peaks", -3), ("height", 0)]
PEAK = {"x": 36.0, "y": 24.0, "height": 1.0, "share": 0.5}
IMPOSSIBLE += [
    ("peaks", value)
    for value in (
        None, [], [None], [PEAK] * 99, [{**PEAK, "x": None}], [{**PEAK, "share": float("nan")}],
        [{**PEAK, "height": 0.5}],
    )
]  # fmt: skip


@pytest.mark.parametrize(("column", "value"), IMPOSSIBLE)
def test_what_no_image_can_have_is_found(folder: Path, column: str, value: Any) -> None:
    rewritten(folder / "scores/shard-000001.parquet", with_value(column, value))
    assert any("scores/shard-000001.parquet: the row of 002.jpg" in line for line in found(folder))


def test_peaks_that_contradict_each_other_or_the_row_are_found(folder: Path) -> None:
    path = folder / "scores/shard-000001.parquet"
    row = pq.read_table(path).to_pylist()[0]
    top = row["peaks"][0]
    lower = {**top, "height": 0.5, "share": 0.1}
    for peaks in (
        [{**top, "x": top["x"] + 1}],
        [lower, top],
        [top, {**lower, "x": 73.0}],
        [top, {**lower, "y": -1.0}],
        [{**top, "share": 0.95}, lower],
    ):
        rewritten(path, with_value("peaks", peaks))
        rewritten(path, with_value("n_peaks", len(peaks)))
        assert any("the row of 002.jpg" in line for line in found(folder)), peaks
    rewritten(path, with_value("peaks", [top, lower]))
    rewritten(path, with_value("n_peaks", 2))
    assert found(folder) == []


def test_another_uri_than_planned_is_found(folder: Path) -> None:
    rewritten(folder / "scores/shard-000001.parquet", with_value("uri", "/photos/other.jpg"))
    assert found(folder) == ["scores/shard-000001.parquet: its uris are not those of the plan"]


def as_type(column: str, kind: pa.DataType) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        index = table.schema.get_field_index(column)
        if pa.types.is_list(table[column].type):
            values = pa.array([str(v) for v in table[column].to_pylist()], kind)
        else:
            values = table[column].cast(kind)
        return table.set_column(index, column, values)

    return change


DAMAGED: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "scores of strings": (
        "scores/shard-000001.parquet",
        lambda path: rewritten(path, as_type("n_peaks", pa.string())),
    ),
    "errors of numbers": (
        "scores/shard-000001.parquet",
        lambda path: rewritten(
            path, lambda t: t.set_column(3, "error", pa.nulls(t.num_rows, pa.int64()))
        ),
    ),
    "densities of strings": (
        "densities/shard-000001.parquet",
        lambda path: rewritten(path, as_type("log_density", pa.string())),
    ),
    "a null density": (
        "densities/shard-000001.parquet",
        lambda path: rewritten(
            path,
            lambda t: t.set_column(5, "log_density", pa.nulls(t.num_rows, pa.list_(pa.int16()))),
        ),
    ),
    "a density with another grid": (
        "densities/shard-000001.parquet",
        lambda path: rewritten(path, with_value("grid_width", 0)),
    ),
    "scores that are no table": (
        "scores/shard-000001.parquet",
        lambda path: path.write_bytes(b"PAR1" + bytes(100) + b"PAR1"),
    ),
    "densities that are empty": (
        "densities/shard-000001.parquet",
        lambda path: path.write_bytes(b""),
    ),
    "a plan that is no table": (
        "plan/part-00000.parquet",
        lambda path: path.write_bytes(b"PAR1" + bytes(100) + b"PAR1"),
    ),
    "a plan of numbers": (
        "plan/part-00000.parquet",
        lambda path: rewritten(
            path, lambda t: t.set_column(1, "uri", pa.nulls(t.num_rows, pa.int32()))
        ),
    ),
    "a marker of brackets": ("run.json", lambda path: path.write_text("[" * 100_000)),
    "a marker of another kind": ("run.json", lambda path: path.write_text("[]")),
    "a marker with other values": (
        "run.json",
        lambda path: path.write_text(path.read_text().replace('_size": 2', '_size": "x"')),
    ),
}  # fmt: skip


def every_density(lookup: DensityLookup) -> list[Any]:
    return [lookup.on_grid(image_id) for image_id in lookup.by_shard(names(9))]


READERS: dict[str, Callable[[Run], Any]] = {
    "status": run_status,
    "verify": lambda run: list(problems(run)),
    "query": lambda run: query(run, "SELECT * FROM scores JOIN densities USING (image_id)"),
    "scores": lambda run: reader.Results(run).scores,
    "density": lambda run: [reader.Results(run).density(i) for i in ("002.jpg", "004.jpg")],
    "densities": lambda run: list(reader.Results(run).densities()),
    "export": lambda run: dataset_names(reader.Results(run).plan()["image_id"].to_pylist()),
    "evaluate": lambda run: every_density(DensityLookup(reader.Results(run))),
    "score": lambda run: update_plan(begin_run(run.location, SETTINGS), listing(*names(12))),
    "dry run": lambda run: estimate(find_run(run.location, SETTINGS), listing(*names(12)), None),
    "retry": lambda run: list(parts_again(run, Again(failed_images(run)))),
}


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("reader", READERS)
def test_damage_is_one_line_to_every_reader(folder: Path, damage: str, reader: str) -> None:
    name, act = DAMAGED[damage]
    act(folder / name)
    said = ""
    try:
        READERS[reader](open_run(Location(str(folder))))
    except GazecoreError as error:
        said = str(error)
    assert said == "" or name.rpartition("/")[2] in said
    assert "\n" not in said


@pytest.mark.parametrize("damage", DAMAGED)
def test_damage_is_one_line_of_verify_and_the_rest_is_checked(folder: Path, damage: str) -> None:
    name, act = DAMAGED[damage]
    act(folder / name)
    (folder / "notes.txt").write_text("x")
    if not name.startswith("plan"):
        rewritten(folder / "scores/shard-000003.parquet", with_value("peak_x", -5.0, row=1))
    lines = found(folder)
    assert any(name.rpartition("/")[2] in line for line in lines)
    if name != "run.json" and not name.startswith("plan"):
        assert any("the row of 007.jpg" in line for line in lines)
        assert any("notes.txt" in line for line in lines)
        assert len(lines) == 3


def test_runs_of_before_without_checksums_are_fine_and_go_on(folder: Path) -> None:
    for path in folder.rglob("*.parquet"):
        rewritten(path, lambda table: table)
    content = json.loads((folder / "run.json").read_text())
    del content["sha256"]
    (folder / "run.json").write_text(json.dumps(content))
    assert found(folder) == []
    update_plan(begin_run(Location(str(folder)), SETTINGS), listing(*names(12)))
    assert run_status(open_run(Location(str(folder)))).missing == 3


@pytest.mark.parametrize("lost", ["all", "last"])
def test_results_without_their_plan_are_refused(folder: Path, lost: str) -> None:
    if lost == "last":
        update_plan(open_run(Location(str(folder))), listing(*names(12)))
        commit(open_run(Location(str(folder))))
    last = sorted((folder / "plan").iterdir())[-1]
    last.unlink()
    run = open_run(Location(str(folder)))
    readers: list[Callable[[], Any]] = [
        lambda: update_plan(run, listing(*names(10))),
        lambda: run_status(run),
        lambda: estimate(run, listing(*names(10)), None),
    ]
    for read in readers:
        with pytest.raises(InputError, match="files of its plan are gone"):
            read()
    assert any("does not belong to the run" in line for line in problems(run))
    assert not last.exists()


def test_a_finished_run_needs_no_leave_to_write(folder: Path, monkeypatch: Any) -> None:
    """Root may write anywhere: so every way of writing is closed."""

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    (folder / "scores" / f"x.parquet.{'0' * 32}@elsewhere-1.tmp").write_bytes(b"x")
    os.utime(folder / "scores" / f"x.parquet.{'0' * 32}@elsewhere-1.tmp", (1, 1))
    for name in ("link", "replace", "makedirs", "unlink", "remove"):
        monkeypatch.setattr(os, name, refuse)
    run = begin_run(Location(str(folder)), SETTINGS)
    assert run.shards_done() == set(range(5))
