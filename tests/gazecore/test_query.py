"""A query sees its run and nothing else, on whatever storage the run lies."""

import contextlib
import gzip
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import boto3
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gazecore.errors import InputError
from gazecore.results import database
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
    "SELECT * FROM read_text('s3://other-bucket/secret.txt')",
    "SELECT * FROM glob('s3://other-bucket/*')",
    "SELECT * FROM read_parquet('s3://other-bucket/secret.txt')",
    "SELECT * FROM glob('memory://elsewhere/*')",
    "SELECT * FROM read_text('gs://other-bucket/secret.txt')",
    "SELECT * FROM read_csv('http://127.0.0.1:1/secret.csv')",
    "SELECT * FROM read_parquet('hf://datasets/a/b.parquet')",
    "SELECT * FROM read_text('gazecore-run://scores/../../secret.txt')",
    "SELECT * FROM read_text('gazecore-run://../secret.txt')",
    "SELECT * FROM read_text('gazecore-run://{beside}/secret.txt')",
    "SELECT * FROM read_text('gazecore-run:///etc/passwd')",
    "SELECT * FROM query('COPY scores TO ''gazecore-run://scores/new.parquet''')",
    "SELECT * FROM iceberg_scan('{beside}')",
    "SELECT * FROM delta_scan('{beside}')",
    "SELECT * FROM st_read('{beside}/secret.txt')",
    "SELECT * FROM which_secret('s3://other-bucket/secret.txt', 's3')",
    "SELECT * FROM sqlite_scan('{beside}/secret.txt', 'x')",
    "SELECT * FROM run",
    "COPY (SELECT 1) TO '{beside}/new.csv'",
    "COPY scores TO '{root}/scores/new.parquet'",
    "COPY scores TO 'gazecore-run://scores/new.parquet'",
    "COPY scores TO 's3://other-bucket/new.parquet'",
    "COPY scores FROM '{beside}/secret.txt'",
    "EXPLAIN ANALYZE COPY scores TO '{beside}/new.csv'",
    "EXPLAIN ANALYZE COPY scores TO 'gazecore-run://scores/new.parquet'",
    "EXPLAIN SELECT * FROM read_csv('{beside}/secret.txt')",
    "WITH t AS (COPY scores TO 'gazecore-run://scores/new.parquet') SELECT * FROM t",
    "WITH t AS (COPY scores TO 'gazecore-run://scores/new.parquet'), "
    "p AS (PIVOT scores ON status USING count(*)) SELECT * FROM p, t",
    "WITH t AS (COPY scores TO '{beside}/new.csv'), "
    "p AS (PIVOT scores ON status USING count(*)) SELECT * FROM p, t",
    "PIVOT (FROM read_text('{beside}/secret.txt')) ON filename",
    "PIVOT scores ON status USING count(*); COPY scores TO '{beside}/new.csv'",
    "EXPORT DATABASE '{beside}/new'",
    "IMPORT DATABASE '{beside}'",
    "CHECKPOINT",
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


@pytest.fixture(scope="module", params=["local", "memory", "s3"])
def place(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    s3_server: dict[str, str],
) -> Iterator[str]:
    """A folder, on each storage, with secrets beside the run that the keys can read."""
    memory = fsspec.filesystem("memory")
    memory.pipe("/elsewhere/secret.txt", b"secret")
    if request.param == "local":
        folder = tmp_path_factory.mktemp("query")
        for name in ("secret.txt", "run-other/secret.txt"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("secret")
        yield str(folder)
    elif request.param == "s3":
        with pytest.MonkeyPatch.context() as patch:
            for name, value in s3_server.items():
                patch.setenv(name, value)
            client = boto3.client("s3")
            for name in ("queried-bucket", "other-bucket"):
                client.create_bucket(Bucket=name)
            for name in ("secret.txt", "run-other/secret.txt"):
                client.put_object(Bucket="queried-bucket", Key=name, Body=b"secret")
            client.put_object(Bucket="other-bucket", Key="secret.txt", Body=b"secret")
            yield "s3://queried-bucket"
            found = boto3.resource("s3")
            for name in ("queried-bucket", "other-bucket"):
                found.Bucket(name).objects.all().delete()
                found.Bucket(name).delete()
    else:
        for name in ("secret.txt", "run-other/secret.txt"):
            memory.pipe(f"/queried/{name}", b"secret")
        yield "memory:///queried"
    memory.rm("/elsewhere", recursive=True)


@pytest.fixture(scope="module")
def run(place: str) -> Run:
    return make(f"{place}/run")


def all_files(place: str) -> dict[str, bytes]:
    fs, path = Location(place).fs, Location(place).path
    fs.invalidate_cache()
    return {name: fs.cat_file(name) for name in fs.find(path)}


@pytest.mark.parametrize("sql", HOSTILE)
def test_no_statement_sees_or_writes_anything_else(run: Run, place: str, sql: str) -> None:
    before = all_files(place)
    with pytest.raises(InputError) as caught:
        query(run, sql.format(beside=place, root=f"{place}/run"))
    assert "\n" not in str(caught.value)
    assert all_files(place) == before


def test_the_run_itself_is_seen(run: Run) -> None:
    joined = query(run, "SELECT count(*) AS n FROM scores JOIN densities USING (image_id)")
    assert joined.to_pylist() == [{"n": 9}]


def test_what_does_not_fit_in_memory_is_spilled(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(database.CONFIG, "memory_limit", "80MB")
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


SQL_FORMS = [
    ("VALUES (1), (2)", [{"col0": 1}, {"col0": 2}]),
    ("PIVOT scores ON status USING count(*)::INT GROUP BY height", [{"height": 48, "ok": 9}]),
    ("WITH p AS (PIVOT scores ON status USING count(*)::INT GROUP BY height) SELECT ok FROM p",
     [{"ok": 9}]),
    ("FROM (SELECT status FROM scores) PIVOT (count(*)::INT FOR status IN ('ok'))", [{"ok": 9}]),
    ("/* a */ -- b\n SELECT 1 AS x", [{"x": 1}]),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "rows"), SQL_FORMS)
def test_questions_come_in_many_forms(run: Run, sql: str, rows: list[dict[str, int]]) -> None:
    assert query(run, sql).to_pylist() == rows


@pytest.mark.parametrize("before", ["", "ANALYZE ", "(FORMAT json) "])
@pytest.mark.parametrize("sql", ["SELECT count(*) FROM scores", *(sql for sql, _ in SQL_FORMS[:3])])
def test_every_question_can_be_explained(run: Run, sql: str, before: str) -> None:
    assert query(run, f"-- why\n EXPLAIN {before}{sql}").column_names[0] == "explain_key"


@pytest.fixture
def labels(tmp_path: Path) -> dict[str, str]:
    """One table in all the forms that are taken, with what a name can hold."""
    rows = [("000.jpg", "cat"), ("007", "dog")]
    lines = [f'{{"image_id": "{i}", "label": "{label}"}}' for i, label in rows]
    as_csv = "\n".join(["image_id,label", *(",".join(row) for row in rows)])
    texts = {
        "a.csv": as_csv,
        "b [1]'s*.tsv": as_csv.replace(",", "\t"),
        "c.jsonl": "\n".join(lines),
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    table = pa.table({"image_id": [i for i, _ in rows], "label": [label for _, label in rows]})
    pq.write_table(table, tmp_path / "d.parquet")
    with gzip.open(tmp_path / "f.csv.gz", "wt") as file:
        file.write(as_csv)
    fsspec.filesystem("memory").pipe("/mine/e.csv", as_csv.upper().encode())
    here = {name: str(tmp_path / name) for name in (*texts, "d.parquet", "f.csv.gz")}
    return {**here, "e.csv": "memory:///mine/e.csv"}


@pytest.mark.parametrize("name", ["a.csv", "b [1]'s*.tsv", "c.jsonl", "d.parquet", "f.csv.gz"])
def test_a_table_of_ones_own_is_joined(run: Run, labels: dict[str, str], name: str) -> None:
    sql = "SELECT status, label FROM scores JOIN mine USING (image_id)"
    assert query(run, sql, {"mine": labels[name]}).to_pylist() == [{"status": "ok", "label": "cat"}]
    ids = query(run, "SELECT image_id FROM mine ORDER BY 1", {"mine": labels[name]})
    assert ids[0].to_pylist() == ["000.jpg", "007"]


def test_a_table_on_any_storage_and_a_name_in_any_case(run: Run, labels: dict[str, str]) -> None:
    found = query(run, "SELECT image_id, label FROM Mine", {"mine": labels["e.csv"]})
    assert found.to_pydict() == {"IMAGE_ID": ["000.JPG", "007"], "LABEL": ["CAT", "DOG"]}


def test_ids_that_look_like_numbers_stay_as_they_are(run: Run, tmp_path: Path) -> None:
    (tmp_path / "numbers.csv").write_text("image_id,label\n007,1\n")
    (tmp_path / "numbers.jsonl").write_text('{"image_id": 7, "label": 1}\n')
    for name, expected in (("csv", "007"), ("jsonl", "7")):
        mine = {"mine": str(tmp_path / f"numbers.{name}")}
        assert query(run, "FROM mine", mine).to_pylist() == [{"image_id": expected, "label": 1}]


def test_only_that_file_is_read(run: Run, labels: dict[str, str]) -> None:
    for sql in (
        f"SELECT * FROM read_text('{labels['c.jsonl']}')",
        f"SELECT * FROM glob('{Path(labels['a.csv']).parent}/*')",
    ):
        with pytest.raises(InputError):
            query(run, sql, {"mine": labels["a.csv"]})


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("scores", "a.csv"), ("Plan", "a.csv"), ("a b", "a.csv"), ('x"; DROP', "a.csv"),
        ("", "a.csv"), ("mine", "missing.csv"), ("mine", "memory://mine/missing.csv"),
        ("mine", "a.xlsx"), ("mine", "no-table.parquet"),
    ],
)  # fmt: skip
def test_a_table_that_is_none_is_one_line(
    run: Run, labels: dict[str, str], tmp_path: Path, name: str, file: str
) -> None:
    (tmp_path / "no-table.parquet").write_text("no table")
    where = file if "://" in file else labels.get(file, str(tmp_path / file))
    with pytest.raises(InputError) as caught:
        query(run, "SELECT 1", {name: where})
    assert "\n" not in str(caught.value)


def test_the_columns_are_told_of_every_table(run: Run) -> None:
    """Also of those that a question does not name, which are not listed for it."""
    told = query(run, "FROM duckdb_columns() SELECT table_name, column_name, data_type")
    kinds = {(row["table_name"], row["column_name"]): row["data_type"] for row in told.to_pylist()}
    for table in ("scores", "densities", "plan"):
        described = query(run, f"DESCRIBE {table}").to_pylist()
        assert {(table, row["column_name"]): row["column_type"] for row in described} == {
            key: kind for key, kind in kinds.items() if key[0] == table
        }
    shown = query(run, "SHOW TABLES")[0].to_pylist()
    assert sorted(shown) == ["densities", "plan", "scores"]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*)::INT AS n FROM SCORES",
        'SELECT count(*)::INT AS n FROM main."Scores"',
        "SELECT count(*)::INT AS n FROM query_table('sco' || 'res')",
        "SELECT count(*)::INT AS n FROM query('FROM sco' || 'res')",
    ],
)
def test_a_table_is_read_however_it_is_named(run: Run, sql: str) -> None:
    assert query(run, sql).to_pylist() == [{"n": 9}]
