"""Runs as data sets: through Hugging Face's own `datasets`, offline."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from gazecore.errors import InputError
from gazecore.model.deepgaze import DeepGaze
from gazecore.results import huggingface
from gazecore.results.card import MEANINGS
from gazecore.results.export import saliency_map
from gazecore.results.huggingface import export_dataset
from gazecore.results.reader import Results
from gazecore.results.run import Run, RunSettings
from gazecore.results.schema import SCORES
from gazecore.storage import Location
from tests.conftest import make_photo, make_photos
from tests.gazecore.test_export import score

TURNED = 6  # EXIF: a quarter turn


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs as cameras and curators have them: turned, deep, of other formats, broken."""
    folder = make_photos(tmp_path_factory.mktemp("photos") / "photos")
    exif = Image.Exif()
    exif[0x0112] = TURNED
    make_photo(5, 80, 40).save(folder / "turned.jpg", exif=exif)
    make_photo(6, 50, 60).save(folder / "page.tif")
    deep = np.asarray(make_photo(7, 30, 40).convert("L")).astype(np.uint16) * 256
    Image.fromarray(deep).save(folder / "deep.png")
    make_photo(8, 40, 30).convert("CMYK").save(folder / "print.jpg")
    (folder / "broken.png").write_bytes(b"\x89PNG and nothing more")
    return folder


@pytest.fixture
def results(photos: Path, tmp_path: Path, tiny: DeepGaze) -> Results:
    return Results(score(photos, tmp_path / "my run", tiny))


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`datasets.load_dataset` without a network and with a cache of this test's own."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    datasets.disable_progress_bars()

    def load(folder: Path) -> Any:
        cache = str(tmp_path / "cache" / folder.name)
        return datasets.load_dataset(str(folder), split="train", cache_dir=cache)

    return load


def upright(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        turned = image.getexif().get(0x0112) == TURNED
        return image.size[::-1] if turned else image.size


@pytest.mark.filterwarnings("ignore")  # those of `datasets` are not ours to fix
def test_datasets_reads_what_the_run_holds(
    results: Results, photos: Path, tmp_path: Path, load: Any
) -> None:
    out = tmp_path / "set"
    written = export_dataset(results, Location(str(out)))
    assert (written.status.ok, written.status.failed, written.unread) == (14, 1, {})
    data = load(out)
    scores = {row["image_id"]: row for row in results.scores.to_pylist()}
    densities = dict(results.densities())
    assert data["image_id"][:] == list(densities)
    for row in data:
        expected = scores[row["image_id"]]
        for name in set(SCORES.names) - {"uri", "status", "error", "error_message"}:
            assert row[name] == expected[name], name
        assert row["saliency"].mode == "L"
        grey = saliency_map(densities[row["image_id"]], "density")
        assert np.array_equal(np.asarray(row["saliency"]), grey)
        assert row["image"].size == (row["width"], row["height"])
        assert row["image"].size == upright(photos / row["image_id"])
        assert row["image"].mode in ("L", "RGB")
    assert str(photos) not in (out / "README.md").read_text()
    assert str(photos).encode() not in b"".join(p.read_bytes() for p in out.rglob("*.parquet"))


def test_files_are_kept_where_pillow_shows_what_was_scored(
    results: Results, photos: Path, tmp_path: Path
) -> None:
    export_dataset(results, Location(str(tmp_path / "set")))
    (part,) = (tmp_path / "set" / "data").iterdir()
    for row in pq.read_table(part).to_pylist():
        data, is_same = row["image"]["bytes"], row["image_id"] not in (
            "page.tif", "deep.png", "print.jpg"
        )  # fmt: skip
        assert (data == (photos / row["image_id"]).read_bytes()) == is_same
        assert is_same or data.startswith(b"\x89PNG")


def test_the_card_is_yaml_that_says_what_each_column_is(results: Results, tmp_path: Path) -> None:
    out = tmp_path / "set"
    export_dataset(results, Location(str(out)), "ranks")
    _, front, text = (out / "README.md").read_text().split("---\n", 2)
    about = yaml.safe_load(front)
    (part,) = (out / "data").iterdir()
    assert [
        path.name for path in out.glob(about["configs"][0]["data_files"][0]["path"])
    ] == [part.name] == ["train-00000-of-00001.parquet"]  # fmt: skip
    schema = pq.read_schema(part)
    assert [f["name"] for f in about["dataset_info"]["features"]] == schema.names
    assert set(schema.names) - {"saliency"} == set(MEANINGS)
    assert "histogram-equalised" in text
    assert "as in the input" not in text
    assert results.run.settings.model in text
    assert "- 14 images; failed, without a row: 1" in text
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == features["saliency"] == {"_type": "Image"}


@pytest.mark.filterwarnings("ignore")
def test_images_that_are_gone_are_named_and_null(
    photos: Path, tmp_path: Path, tiny: DeepGaze, load: Any
) -> None:
    folder = make_photos(tmp_path / "photos")
    gone, grown, *_ = ids = sorted(str(p.relative_to(folder)) for p in folder.rglob("*.jpg"))
    results = Results(score(folder, tmp_path / "run", tiny))
    (folder / gone).unlink()
    make_photo(3, 500, 100).save(folder / grown)
    written = export_dataset(results, Location(str(tmp_path / "set")))
    assert sorted(written.unread) == [gone, grown]
    assert "500x100" in written.unread[grown]
    data = {row["image_id"]: row for row in load(tmp_path / "set")}
    assert [data[i]["image"] is None for i in ids] == [True, True] + [False] * 8
    assert all(row["saliency"].size == (row["width"], row["height"]) for row in data.values())
    assert (
        "- 10 images; without `image`, which could not be read again: 2"
        in (tmp_path / "set" / "README.md").read_text()
    )
    bare = export_dataset(results, Location(str(tmp_path / "bare")), images=False)
    assert bare.unread == {}
    assert "image" not in load(tmp_path / "bare").column_names


@pytest.mark.filterwarnings("ignore")
def test_parts_are_cut_and_those_of_before_are_gone(
    results: Results, tmp_path: Path, load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, data = tmp_path / "set", tmp_path / "set" / "data"
    monkeypatch.setattr(huggingface, "PART_BYTES", 8000)
    monkeypatch.setattr(huggingface, "_GROUP_ROWS", 2)
    export_dataset(results, Location(str(out)))
    before = sorted(path.name for path in data.iterdir())
    assert len(before) > 1
    assert before == huggingface.part_names(len(before))
    assert all(pq.read_metadata(data / name).num_rows for name in before)
    ids = load(out)["image_id"][:]
    assert ids == [image_id for image_id, _ in results.densities()]
    (data / "mine.parquet").write_bytes(b"mine")
    monkeypatch.undo()
    export_dataset(results, Location(str(out)))
    names = ["mine.parquet", "train-00000-of-00001.parquet"]
    assert sorted(path.name for path in data.iterdir()) == names
    (tmp_path / "cache").rename(tmp_path / "old-cache")
    assert load(out)["image_id"][:] == ids


@pytest.mark.parametrize("name", ["README.md", "data/train-00000-of-00001.parquet"])
def test_what_others_wrote_or_changed_is_kept(results: Results, tmp_path: Path, name: str) -> None:
    out = Location(str(tmp_path / "set"))
    for _ in range(2):  # our own is replaced
        export_dataset(results, out)
    path = tmp_path / "set" / name
    if name == "README.md":
        path.write_text(path.read_text().replace("---\n", "---\nlicense: mit\n", 1))
    else:
        pq.write_table(pa.table({"a": [1]}), path)
    before = {p: p.read_bytes() for p in (tmp_path / "set").rglob("*") if p.is_file()}
    with pytest.raises(InputError, match="gazecore did not make it"):
        export_dataset(results, out)
    assert {p: p.read_bytes() for p in before} == before
    export_dataset(results, out, overwrite=True)
    assert path.read_bytes() != before[path]


def test_columns_of_the_input_stay_whatever_they_are_called(results: Results) -> None:
    run, settings = results.run, results.run.settings
    keep = ("caption", "image", "saliency", "image_", 'a "b": |c`')
    kept = Run(run.location, RunSettings(**{**vars(settings), "keep": keep}))
    names = huggingface.column_names(kept)
    assert [names[name] for name in keep] == [
        "caption", "image__", "saliency_", "image_", 'a "b": |c`',
    ]  # fmt: skip
    assert len(set(names.values())) == len(names)
