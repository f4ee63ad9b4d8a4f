"""Columns of an input that its scores carry."""

import csv
import io
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import gazecore
from gazecore.errors import InputError, RunMismatch
from gazecore.images.containers.batches import Batches
from gazecore.images.containers.tables import open_table
from gazecore.model.deepgaze import DeepGaze
from gazecore.results.compact import compact
from gazecore.results.reader import Results, open_results
from gazecore.results.run import Run, open_run
from gazecore.results.settings import ScoringOptions
from gazecore.results.verify import problems
from gazecore.scoring import Request, ScoringStage
from gazecore.shards import local
from gazecore.storage import Location
from gazecore.view.run import write_report
from tests.conftest import make_photo
from tests.containers import jpegs, write_folder
from tests.scoring import Loaded, files

CAPTIONS = ["a dog", 'with "quotes", and commas', "Straße\nin two lines", "", "-", "5"]
LABELS = [3, 1, 0, 2, 5, -7]
KEPT = list(zip(CAPTIONS, map(str, LABELS), strict=True))

FORMS = ["list.csv", "list.jsonl", "list.parquet", "bytes.parquet", "structs.parquet", "all.arrow"]


def write(form: str, folder: Path) -> Path:
    """Six images, of which one is none, with captions and labels, in a list or a table."""
    images = {**jpegs(5), "a/broken.jpg": b"no picture"}
    table = pa.table({"uri": [*images], "caption": CAPTIONS, "label": LABELS})
    rows, path = table.to_pylist(), folder / form
    if form.startswith("list"):
        write_folder(folder, images)
    elif form == "bytes.parquet":
        table = table.set_column(0, "image", pa.array([*images.values()]))
    else:
        structs = [{"bytes": data, "path": name} for name, data in images.items()]
        table = table.set_column(0, "image", pa.array(structs))
    match path.suffix:
        case ".csv":
            text = io.StringIO(newline="")
            writer = csv.DictWriter(text, table.column_names)
            writer.writeheader()
            writer.writerows(rows)
            path.write_text(text.getvalue(), newline="")
        case ".jsonl":
            path.write_text("\n".join(map(json.dumps, rows)))
        case ".parquet":
            pq.write_table(table, path, row_group_size=4)
        case _:
            with pa.ipc.new_stream(path, table.schema) as stream:
                stream.write_table(table, max_chunksize=4)
    return path


def score(source: Path | None, out: Path, model: DeepGaze, options: dict[str, Any]) -> Run:
    scoring = Request(source and str(source), str(out), ScoringOptions(**options)).begin()
    stage = Loaded(scoring.run.location.uri, ScoringStage(model, scoring.run))
    local.run(scoring.run, stage, lambda tally: None, scoring.parts_again())
    scoring.end()
    return scoring.run


def kept(run: Run) -> list[tuple[str, str]]:
    rows = open_results(run.location.uri).scores.to_pylist()
    return [(row["caption"], row["label"]) for row in rows]


@pytest.fixture
def options(tiny_file: str) -> dict[str, Any]:
    return {"model": tiny_file, "keep": ("caption, label",), "shard_size": 4}


@pytest.mark.parametrize("form", FORMS)
def test_scores_carry_what_the_input_says_of_every_image_failed_or_not(
    form: str, tmp_path: Path, tiny: DeepGaze, options: dict[str, Any]
) -> None:
    source, out = write(form, tmp_path), tmp_path / "run"
    run = score(source, out, tiny, options)
    assert kept(run) == KEPT
    assert Results(run).scores["status"].to_pylist() == ["ok"] * 5 + ["failed"]
    assert list(problems(run)) == []
    asked = "SELECT sum(label::INT)::INT AS total FROM scores WHERE caption <> 'a dog'"
    assert run.schema.names[-2:] == ["caption", "label"]
    assert Results(run).query(asked).to_pylist() == [{"total": sum(LABELS) - 3}]
    assert Results(run).query("SELECT count(*)::INT AS n FROM plan").to_pylist() == [{"n": 6}]

    # Whoever goes on, or takes failed images up again, says nothing of it.
    before = files(run)
    (Path(run.scores.path) / "shard-000001.parquet").unlink()
    assert files(score(None, out, tiny, {"model": options["model"]})) == before
    score(None, out, tiny, {"model": options["model"], "retry_failed": True})
    assert files(run) == before

    compact(run)
    again = open_run(Location(str(out)))
    assert sorted(kept(again)) == sorted(KEPT)
    assert Results(again).query(asked).to_pylist() == [{"total": sum(LABELS) - 3}]
    assert list(problems(again)) == []


def test_a_rescan_leaves_what_images_carry_and_mixed_parts_of_the_plan_are_read(
    tmp_path: Path, tiny: DeepGaze, options: dict[str, Any]
) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    write("bytes.parquet", folder)
    out = tmp_path / "run"
    score(folder, out, tiny, options)
    make_photo(7).save(folder / "plain.jpg")  # of which the input says nothing
    run = score(folder, out, tiny, options)
    assert kept(run) == [*KEPT, (None, None)]
    make_photo(8, 90, 90).save(folder / "plain.jpg")
    run = score(folder, out, tiny, options | {"rescan": True})
    assert kept(run) == [*KEPT, (None, None)]
    assert Results(run).scores["width"][-1].as_py() == 90
    (folder / "bytes.parquet").unlink()
    run = score(folder, out, tiny, options | {"rescan": True})
    assert kept(run) == [*KEPT, (None, None)]
    assert Results(run).scores["status"].to_pylist() == ["gone"] * 6 + ["ok"]
    assert list(problems(run)) == []
    assert Results(run).query("SELECT count(*)::INT AS n FROM plan").to_pylist() == [{"n": 7}]


def test_what_a_run_keeps_stays_what_it_was(
    tmp_path: Path, tiny: DeepGaze, options: dict[str, Any]
) -> None:
    source = write("list.csv", tmp_path)
    score(source, tmp_path / "run", tiny, options)
    with pytest.raises(RunMismatch, match=r"keep: it has \['caption', 'label'\], now \['label'\]"):
        score(source, tmp_path / "run", tiny, options | {"keep": ("label",)})


@pytest.mark.parametrize(
    ("form", "keep", "message"),
    [
        ("list.csv", "captoin", r"no column `captoin`; its columns are uri, caption, label"),
        ("bytes.parquet", "captoin", r"no column `captoin`; its columns are image, caption, label"),
        ("all.arrow", "captoin", r"no column `captoin`; its columns are image, caption, label"),
        ("list.jsonl", "captoin", r"no column `captoin`"),
        ("list.csv", "caption,caption", r"--keep caption: the scores have a column of that name"),
        ("structs.parquet", "image", r"column `image` holds struct<.*>, not text, numbers or"),
        ("list.csv", "Label,label", r"its columns are uri, caption, label"),
        ("list.csv", "uri", r"--keep uri: the scores have a column of that name"),
    ],
)
def test_columns_that_cannot_be_kept_are_refused_before_anything_is_written(
    form: str, keep: str, message: str, tmp_path: Path, tiny: DeepGaze, options: dict[str, Any]
) -> None:
    source = write(form, tmp_path)
    with pytest.raises(InputError, match=message):
        score(source, tmp_path / "run", tiny, options | {"keep": (keep,)})
    assert not (tmp_path / "run").exists()


def test_a_list_without_columns_keeps_none(
    tmp_path: Path, tiny: DeepGaze, options: dict[str, Any]
) -> None:
    write_folder(tmp_path, jpegs(2))
    (tmp_path / "list.txt").write_text("a/0000.jpg\na/0001.jpg\n")
    with pytest.raises(InputError, match=r"list\.txt has no columns: --keep is for lists"):
        score(tmp_path / "list.txt", tmp_path / "run", tiny, options)


def test_any_text_is_carried_as_it_is(
    tmp_path: Path, tiny: DeepGaze, options: dict[str, Any]
) -> None:
    """Of all planes, in a run of images that are listed twice now and then."""
    rng = random.Random(3)
    write_folder(tmp_path, jpegs(3))
    texts = ["".join(chr(rng.randrange(1, 0xD7FF)) for _ in range(40)) for _ in range(3)]
    rows = [{"uri": f"a/000{i}.jpg", "caption": t, "label": [i]} for i, t in enumerate(texts)]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, [*rows, rows[1]])))
    run = score(tmp_path / "list.jsonl", tmp_path / "run", tiny, options)
    assert kept(run) == [(text, f"[{i}]") for i, text in enumerate(texts)]


def test_columns_are_kept_from_python(tmp_path: Path, tiny_file: str) -> None:
    source = write("list.csv", tmp_path)
    run = gazecore.score(source, tmp_path / "run", model=tiny_file, keep=["caption", "label"])
    assert kept(run.run) == KEPT


def test_a_page_takes_no_column_that_was_kept_for_one_of_its_own(
    tmp_path: Path, tiny: DeepGaze, options: dict[str, Any]
) -> None:
    write_folder(tmp_path, jpegs(2))
    rows = [{"uri": f"a/000{i}.jpg", "key": "same", "list": "same"} for i in range(2)]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run = score(tmp_path / "list.jsonl", tmp_path / "run", tiny, options | {"keep": ("key,list",)})
    reported = write_report(run, Location(str(tmp_path / "page")), densities_only=True)
    assert (reported.images, reported.unread) == (2, 2)


def test_the_columns_of_a_table_are_read_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an Arrow file a batch is read whole, images with it: once, however many columns."""
    path, lengths = write("all.arrow", tmp_path), list[int]()
    read = Batches._part

    def noted(table: Batches, length: int) -> bytes:
        lengths.append(length)
        return read(table, length)

    monkeypatch.setattr(Batches, "_part", noted)
    asked = []
    for names in (["label"], ["label", "caption", "image.path"]):
        lengths.clear()
        assert [row[0] for row in open_table(str(path)).texts(names)] == list(map(str, LABELS))
        asked.append([*lengths])
    assert asked[0] == asked[1]
