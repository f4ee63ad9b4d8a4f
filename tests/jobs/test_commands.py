import csv
import io
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import gazecore.results.reader
from gazecore.model.spec import SHIPPED
from jobs.__main__ import COMMANDS
from jobs.console import out
from tests.conftest import make_photo, make_photos
from tests.jobs.conftest import ROOT, Command, run_gazecore, run_here, words


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


@dataclass(frozen=True)
class Finished:
    """A finished run over ten photographs and a file that is none, at `folder`/run."""

    folder: Path
    photos: Path
    model: str

    def gazecore(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run_here(self.folder, *arguments)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_bytes: bytes) -> Finished:
    folder = tmp_path_factory.mktemp("finished")
    run = Finished(folder, make_photos(folder / "photos"), str(folder / "tiny.safetensors"))
    Path(run.model).write_bytes(tiny_bytes)
    (run.photos / "a" / "broken.png").write_bytes(b"\x89PNG and nothing more")
    result = run_gazecore(
        folder, "score", str(run.photos), "--out", "run", "--model", run.model, "--shard-size", "4"
    )
    assert result.returncode == 0, result.stderr
    assert "scored 10 failed 1 decode_error" in words(result.stdout)
    assert f"results {folder / 'run'}" in words(result.stdout)
    return run


def test_score_status_verify_and_query_tell_the_same(finished: Finished, tmp_path: Path) -> None:
    status = words(finished.gazecore("status", "run").stdout)
    assert "images 11 in 3 shards" in status
    assert "done 10 ok in 3 shards" in status
    assert "missing 0 failed 1 1 decode_error" in status
    verified = finished.gazecore("verify", "run")
    assert verified.returncode == 0
    assert "11 images, 10 ok, 1 failed, 3 shards" in verified.stdout

    sql = "SELECT status, count(*) AS n FROM scores GROUP BY 1 ORDER BY 1"
    table = finished.gazecore("query", "run", sql, "--format", "table")
    assert "status n failed 1 ok 10" in words(table.stdout)
    as_csv = finished.gazecore("query", "run", sql)  # no terminal here, so CSV is the default
    assert list(csv.reader(io.StringIO(as_csv.stdout))) == [
        ["status", "n"], ["failed", "1"], ["ok", "10"],
    ]  # fmt: skip
    as_json = finished.gazecore("query", "run", sql, "--format", "json")
    assert [json.loads(line) for line in as_json.stdout.splitlines()] == [
        {"status": "failed", "n": 1}, {"status": "ok", "n": 10},
    ]  # fmt: skip

    shutil.copytree(finished.folder / "run", tmp_path / "damaged")
    (tmp_path / "damaged" / "scores" / "shard-000001.parquet").unlink()
    damaged = finished.gazecore("verify", str(tmp_path / "damaged"))
    assert damaged.returncode == 1
    assert "shard-000001.parquet is missing: 4 images" in damaged.stdout


def test_the_documented_sql_expression_decodes_a_density(
    finished: Finished, tmp_path: Path
) -> None:
    answer = finished.gazecore(
        "query", "run", "SELECT list_sum(list_transform(log_density, "
        "lambda q: exp(q / 32.0 + log_offset))) AS total, len(log_density) AS cells, grid_height, "
        "grid_width FROM densities", "--format", "json",
    )  # fmt: skip
    rows = [json.loads(line) for line in answer.stdout.splitlines()]
    assert len(rows) == 10
    for row in rows:
        assert row["total"] == pytest.approx(1, abs=1e-9)
        assert row["cells"] == row["grid_height"] * row["grid_width"]


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("DROP VIEW scores", "one SELECT"),
        ("COPY scores TO 'run/scores/extra.parquet'", "one SELECT"),
        ("SELECT * FROM read_csv('/etc/passwd')", "failed"),
        ("SELECT nothing FROM scores", "nothing"),
        ("SELEC", "syntax"),
    ],
)
def test_queries_that_write_or_are_wrong_are_refused(
    finished: Finished, sql: str, reason: str
) -> None:
    result = finished.gazecore("query", "run", sql)
    assert result.returncode == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert reason in result.stderr


def test_another_model_input_or_setting_is_refused_with_its_name(
    finished: Finished,
) -> None:
    photos, base = finished.photos, ("--out", "run", "--model", finished.model)
    for arguments, named in (
        ((str(photos), *base, "--shard-size", "5"), "shard_size: it has 4, now 5"),
        ((str(photos / "a"), *base, "--shard-size", "4"), "input: it has"),
        ((str(photos), "--out", "run", "--model", "default"), "model: it has"),
        ((str(photos), *base, "--shard-size", "4", "--limits.max-pixels", "9"), "max_pixels"),
    ):
        result = finished.gazecore("score", *arguments)
        assert result.returncode == 2, arguments
        assert len(result.stderr.splitlines()) == 1
        assert named in result.stderr


def test_predict_draws_an_overlay_and_prints_numbers(
    gazecore_here: Command, tiny_file: str, tmp_path: Path
) -> None:
    make_photo(1, 300, 200).save(tmp_path / "one.jpg")
    (tmp_path / "other").mkdir()
    make_photo(2, 200, 300).save(tmp_path / "other" / "one.jpg")
    (tmp_path / "no.jpg").write_bytes(b"no")
    result = gazecore_here(
        "predict", "one.jpg", "no.jpg", "other/one.jpg", "--out", "seen", "--model", tiny_file
    )
    assert result.returncode == 1
    assert "no.jpg: the file is not an image" in words(result.stderr)
    assert size_of(tmp_path / "seen" / "one.png") == (540, 341 + 58)  # enlarged, and a legend below
    assert size_of(tmp_path / "seen" / "one-2.png") == (540, 512 + 58)
    assert "bit" in result.stdout
    result = gazecore_here(
        "predict", "other", "on*.jpg", "--out", "maps", "--model", tiny_file, "--style", "heatmap",
        "--format", "webp", "--size", "256", "--transparent",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert size_of(tmp_path / "maps" / "one.webp") == (171, 256)
    assert size_of(tmp_path / "maps" / "one-2.webp") == (256, 171)


def test_lists_with_ids_and_failures_of_every_kind(
    gazecore_command: Command, tiny_file: str, tmp_path: Path
) -> None:
    make_photo(1).save(tmp_path / "here.png")
    make_photo(2, 400, 300).save(tmp_path / "large.png")
    (tmp_path / "folder.png").mkdir()
    rows = {"one": "here.png", "two": "missing.png", "three": "large.png", "four": "folder.png",
            "five": "gopher://nowhere/x.png"}  # fmt: skip
    pq.write_table(
        pa.table({"image_id": list(rows), "uri": list(rows.values())}), tmp_path / "list.parquet"
    )
    result = gazecore_command(
        "score",
        "list.parquet",
        "--out",
        "run",
        "--model",
        tiny_file,
        "--limits.max-pixels",
        "50000",
    )
    assert result.returncode == 0, result.stderr
    scores = gazecore.results.reader.open_results(str(tmp_path / "run")).scores.to_pylist()
    assert {row["image_id"]: row["error"] for row in scores} == {
        "one": None, "two": "not_found", "three": "too_large", "four": "storage_error",
        "five": "not_found",
    }  # fmt: skip


def test_mistakes_end_in_one_line_and_exit_code_2(
    gazecore_here: Command, tiny_file: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").write_bytes(b"not a bundle")
    (tmp_path / "list.csv").write_text("link,name\na,b\n")
    for arguments, named in (
        (("score", "nowhere", "--out", "r", "--model", tiny_file), "nowhere"),
        (("score", "empty", "--out", "r", "--model", tiny_file), "no images"),
        (("score", "empty", "--out", "r", "--model", "damaged"), "damaged"),
        (("score", "empty", "--out", "r", "--model", "absent"), "absent"),
        (("score", "list.csv", "--out", "s", "--model", tiny_file), "uri"),
        (("status", "empty"), "run.json"),
        (("query", "empty", "SELECT 1"), "run.json"),
        (("models", "damaged"), "safetensors"),
        (("scroe",), "scroe"),
    ):
        result = gazecore_here(*arguments)
        assert result.returncode == 2, (arguments, result.stderr)
        assert len(result.stderr.strip().splitlines()) == 1, result.stderr
        assert named in result.stderr


def test_models_prints_what_the_shipped_bundles_hold(gazecore_here: Command) -> None:
    paper = words(gazecore_here("models", "paper").stdout)
    assert "readout 2560 -> 16 -> 32 -> 2 -> 1, relu, 10 members" in paper
    listed = words(gazecore_here("models").stdout)
    for name, purpose in SHIPPED.items():
        assert f"{name} {purpose}" in listed
    assert "trained on OSIE and EyeCrowd, then MIT1003 beside OSIE and EyeCrowd" in listed
    assert "more gazecore models NAME" in listed
    assert gazecore_here("models", "--json").returncode == 2
    text = words(gazecore_here("models", "default").stdout)
    assert "backbone vgg19-oxford" in text
    assert "readout 5120 -> 64 -> 32 -> 2 -> 1, softplus, 10 members" in text
    assert "training: command gazecore train" in text
    assert "reached: out of fold information gain 1.045 bit per fixation" in text
    # A hundred names are a number here, and all there for who asks.
    assert "pretraining: held out images 172, --json names them" in text
    assert "1010.jpg" not in text
    header = json.loads(gazecore_here("models", "default", "--json").stdout)
    assert header["fingerprint"] in text
    held_out = header["training"]["started_from"]["held_out_images"]
    assert len(held_out) == 172
    assert "1010.jpg" in held_out


def test_every_command_explains_itself(gazecore_command: Command, gazecore_here: Command) -> None:
    overview = gazecore_command("--help").stdout
    for command in COMMANDS:
        assert command in overview
        result = gazecore_here(command, "--help")
        assert result.returncode == 0
        assert f"usage: gazecore {command}" in result.stdout
        for noise in ("{None", "--no-", "(default: )"):
            assert noise not in result.stdout


def test_a_closed_output_and_a_reader_that_went_away_are_no_failure(tmp_path: Path) -> None:
    for shell in ("{} models >&-", "set -o pipefail; {} models | head -1", "{} --version >&-"):
        command = shell.format(f"{sys.executable} -m jobs")
        done = subprocess.run(
            ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (shell, done.stderr)
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "0"])
@pytest.mark.parametrize(
    "command",
    [
        ("train", "cache", "--out", "x", "--training.learning-rate"),
        ("evaluate", "corpus", "--out", "x", "--sigma"),
        ("status", "run", "--every"),
        ("score", "photos", "--out", "x", "--dry-run", "--rate"),
    ],
    ids=" ".join,
)
def test_a_number_that_is_none_is_one_line(
    gazecore_here: Command, command: tuple[str, ...], value: str
) -> None:
    result = gazecore_here(*command[:-1], f"{command[-1]}={value}")
    assert result.returncode == 2
    assert "must be" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_wide_answer_shows_every_value(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(out, "width", 80)
    sql = "SELECT * EXCLUDE uri FROM scores WHERE status = 'ok' ORDER BY image_id"
    shown = finished.gazecore("query", "run", sql, "--format", "table").stdout
    asked = finished.gazecore("query", "run", sql, "--format", "json").stdout
    rows = [json.loads(line) for line in asked.splitlines()]
    records = shown.split("row ")[1:]
    assert len(records) == len(rows) == 10
    for record, row in zip(records, rows, strict=True):
        lines = [line.split() for line in record.splitlines()[1:]]
        assert [name for name, *_ in lines] == list(row)
        values = {name: value for name, *value in lines}
        assert values["image_id"] == [row["image_id"]]
        assert float(values["peak_x"][0]) == pytest.approx(row["peak_x"], rel=1e-5)
        assert values["error"] == []
    assert max(map(len, shown.splitlines())) <= 80
    plan = finished.gazecore("query", "run", f"EXPLAIN {sql}", "--format", "table").stdout
    assert len(plan.splitlines()) > 5


def test_a_table_of_ones_own_is_joined_by_the_command(finished: Finished) -> None:
    ids = sorted(str(p.relative_to(finished.photos)) for p in finished.photos.rglob("*.jpg"))
    rows = "".join(f"{i},{i[0]}\n" for i in ids)
    (finished.folder / "labels.csv").write_text("image_id,label\n" + rows)
    sql = "SELECT label, count(*) AS n FROM scores JOIN mine USING (image_id) GROUP BY 1 ORDER BY 1"
    asked = finished.gazecore("query", "run", sql, "--with", "mine=labels.csv")
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.splitlines() == ['"label","n"', '"a",5', '"b",5']
    for wrong in ("labels.csv", "mine=", "scores=labels.csv", "mine=nothing.csv"):
        refused = finished.gazecore("query", "run", sql, "--with", wrong)
        assert refused.returncode == 2
        assert len(refused.stderr.splitlines()) == 1


def test_a_run_is_compacted_and_all_commands_tell_the_same(
    finished: Finished, tmp_path: Path
) -> None:
    shutil.copytree(finished.folder / "run", tmp_path / "run")
    questions = (
        ("query", "run", "FROM scores ORDER BY image_id"),
        ("query", "run", "FROM densities ORDER BY image_id"),
        ("status", "run"), ("verify", "run"), ("export", "run", "--format", "png", "--out", "maps"),
    )  # fmt: skip
    before = [run_here(tmp_path, *asked).stdout for asked in questions]
    made = run_here(tmp_path, "compact", "run", "--densities")
    assert made.returncode == 0, made.stderr
    assert "scores: 11 rows of 3 shards in 1 file, " in made.stdout
    assert "densities: 10 rows of 3 shards in 1 file, " in made.stdout
    assert [run_here(tmp_path, *asked).stdout for asked in questions] == before
    # The same command again continues the run, whose new image is read beside what is compacted.
    make_photo(77).save(finished.photos / "c.jpg")
    try:
        result = run_here(
            tmp_path, "score", str(finished.photos), "--out", "run", "--model", finished.model,
            "--shard-size", "4",
        )  # fmt: skip
    finally:
        (finished.photos / "c.jpg").unlink()
    assert result.returncode == 0, result.stderr
    counted = run_here(tmp_path, "query", "run", "SELECT count(*) AS n FROM scores")
    assert counted.stdout.splitlines()[1] == "12"
    assert run_here(tmp_path, "verify", "run").returncode == 0
    nothing = run_here(tmp_path, "compact", str(finished.photos))
    assert nothing.returncode == 2
    assert len(nothing.stderr.splitlines()) == 1


def test_a_scoring_of_many_shards_ends_with_a_compaction(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.compact.MANY", 4)
    arguments = ("score", str(finished.photos), "--out", "run", "--model", finished.model,
                 "--shard-size", "2")  # fmt: skip
    few = run_here(tmp_path, *arguments, "--limit", "6")
    assert few.returncode == 0, few.stderr
    assert not (tmp_path / "run" / "compacted").exists()
    many = run_here(tmp_path, *arguments)
    assert many.returncode == 0, many.stderr
    assert "compacted  11 rows of 6 shards in 1 file" in many.stdout
    again = run_here(tmp_path, *arguments)
    assert "compacted" not in again.stdout
    assert run_here(tmp_path, "verify", "run").returncode == 0


def test_trouble_in_the_compaction_is_no_failure_of_the_scoring(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.compact.MANY", 1)
    (tmp_path / "run").mkdir()
    shutil.copytree(finished.folder / "run", tmp_path / "run", dirs_exist_ok=True)
    (tmp_path / "run" / "compacted").write_text("in the way")
    result = run_here(
        tmp_path, "score", str(finished.photos), "--out", "run", "--model", finished.model,
        "--shard-size", "4",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "not compacted" in result.stdout
    assert "gazecore compact" in result.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(
    "arguments",
    [
        ("--version",),
        ("status", "tests/golden/run"),
        *(
            ("query", "tests/golden/run", "SELECT image_id FROM scores", "--format", kind)
            for kind in ("table", "csv", "json", "parquet")
        ),
    ],
    ids=" ".join,
)
def test_an_answer_that_cannot_be_written_is_no_success(arguments: tuple[str, ...]) -> None:
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "jobs", *arguments],
            cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "No space left on device" in ended.stderr
