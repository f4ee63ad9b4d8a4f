"""A query sees its run and nothing else, on whatever storage the run lies."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from gazecore.errors import InputError
from gazecore.results import query as querying
from gazecore.results.query import query
from gazecore.results.run import Run, begin_run
from gazecore.shards.planning import update_plan
from gazecore.storage import Location
from tests.gazecore.test_results import SETTINGS, commit, listing, names

HOSTILE = [
    "SELECT content FROM read_text('{beside}/secret.txt')",
    "SELECT content FROM read_text('{root}/../secret.txt')",
    "SELECT content FROM read_text('{root}-other/secret.txt')",
    "SELECT content FROM read_blob('{beside}/secret.txt')",
    "SELECT * FROM read_csv('{beside}/secret.txt')",
    "SELECT * FROM read_json('{beside}/secret.txt')",
    "SELECT * FROM read_parquet('{beside}/secret.txt')",
    "SELECT * FROM parquet_metadata('{beside}/secret.txt')",
    "SELECT * FROM sniff_csv('{beside}/secret.txt')",
    "SELECT * FROM glob('{beside}/*')",
    "SELECT * FROM glob('{beside}/**')",
    "SELECT * FROM query_table('{beside}/secret.txt')",
    "FROM '{beside}/secret.txt'",
    "SELECT * FROM scores WHERE uri IN (SELECT content FROM read_text('{beside}/secret.txt'))",
    "SELECT content FROM read_text('memory://elsewhere/secret.txt')",
    "SELECT content FROM read_text('/etc/passwd')",
    "SELECT content FROM read_text('file:///etc/passwd')",
    "FROM '/etc/passwd'",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM read_text('/proc/self/environ')",
    "SELECT * FROM read_text('s3://other/secret.txt')",
    "SELECT * FROM read_text('https://127.0.0.1:1/secret.txt')",
    "SELECT * FROM duckdb_secrets()",
    "SELECT getenv('HOME')",
    "SELECT * FROM sqlite_scan('{beside}/secret.txt', 'x')",
    "SELECT * FROM run",
    "COPY (SELECT 1) TO '{beside}/new.csv'",
    "COPY scores TO '{root}/scores/new.parquet'",
    "EXPORT DATABASE '{beside}/new'",
    "ATTACH '{beside}/new.db'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "SET allowed_directories = ['/']",
    "RESET allowed_directories",
    "PRAGMA enable_external_access = true",
    "CREATE SECRET x (TYPE s3, KEY_ID 'a', SECRET 'b')",
    "CREATE TABLE x AS SELECT 1",
    "SELECT 1; SELECT content FROM read_text('/etc/passwd')",
]


def make(root: str) -> Run:
    run = begin_run(Location(root), SETTINGS)
    update_plan(run, listing(*names(9)))
    commit(run)
    return run


@pytest.fixture(scope="module", params=["local", "memory"])
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A folder, on either storage, with secrets beside the run."""
    memory = fsspec.filesystem("memory")
    memory.pipe("/elsewhere/secret.txt", b"secret")
    if request.param == "local":
        folder = tmp_path_factory.mktemp("query")
        for name in ("secret.txt", "run-other/secret.txt"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("secret")
        yield str(folder)
    else:
        for name in ("secret.txt", "run-other/secret.txt"):
            memory.pipe(f"/queried/{name}", b"secret")
        yield "memory:///queried"
    memory.rm("/elsewhere", recursive=True)


@pytest.fixture(scope="module")
def run(place: str) -> Run:
    return make(f"{place}/run")


@pytest.mark.parametrize("sql", HOSTILE)
def test_no_statement_sees_or_writes_anything_else(run: Run, place: str, sql: str) -> None:
    before = sorted(Location(place).names())
    with pytest.raises(InputError) as caught:
        query(run, sql.format(beside=place, root=f"{place}/run"))
    assert "\n" not in str(caught.value)
    assert sorted(Location(place).names()) == before


def test_the_run_itself_is_seen(run: Run) -> None:
    joined = query(run, "SELECT count(*) AS n FROM scores JOIN densities USING (image_id)")
    assert joined.to_pylist() == [{"n": 9}]


def test_what_does_not_fit_in_memory_is_spilled(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(querying._CLOSED, "memory_limit", "80MB")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rows = "SELECT i::VARCHAR || repeat('x', 90) AS t FROM range(2000000) r(i) ORDER BY hash(i)"
    big = f"SELECT count(t) AS n FROM (SELECT t, row_number() OVER (ORDER BY t) FROM ({rows}))"
    largest = 0
    is_over = threading.Event()

    def watch() -> None:
        nonlocal largest
        while not is_over.wait(0.005):
            with contextlib.suppress(OSError):
                largest = max([largest, *(p.stat().st_size for p in tmp_path.rglob("*"))])

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        assert query(run, big).to_pylist() == [{"n": 2_000_000}]
    finally:
        is_over.set()
        watcher.join()
    assert largest > 2**20
    assert os.listdir(tmp_path) == []
