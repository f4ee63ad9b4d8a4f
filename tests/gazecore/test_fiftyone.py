"""Runs as FiftyOne's data sets: what is in the folder, and what FiftyOne makes of it."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gazecore.errors import InputError
from gazecore.model.deepgaze import DeepGaze
from gazecore.results.export import Written, saliency_map
from gazecore.results.fiftyone import export_samples, field_names
from gazecore.results.huggingface import export_dataset
from gazecore.results.reader import Results
from gazecore.results.run import Run, RunSettings
from gazecore.storage import Location
from tests.conftest import make_photo
from tests.gazecore.test_export import score

SHOWN = ("information_bits", "concentration_bits", "peak_x", "area_50", "center_mass", "n_peaks")


@pytest.fixture
def results(photos: Path, tmp_path: Path, tiny: DeepGaze) -> Results:
    """A run of ten photographs that are files, three in an archive, and a broken one."""
    make_photo(21, 60, 40).save(tmp_path / "in.png")
    make_photo(22, 40, 60).save(tmp_path / "in.tif")
    make_photo(23, 50, 60).save(tmp_path / "in.jpg")
    with tarfile.open(photos / "more.tar", "w") as archive:
        for suffix in ("png", "tif", "jpg"):
            archive.add(tmp_path / f"in.{suffix}", f"x/one.{suffix}")
    (photos / "a" / "broken.png").write_bytes(b"\x89PNG and nothing more")
    return Results(score(photos, tmp_path / "run", tiny))


def samples_in(out: Path) -> dict[str, dict[str, Any]]:
    content = json.loads((out / "samples.json").read_text())
    return {sample["image_id"]: sample for sample in content["samples"]}


def test_samples_name_files_that_are_there(results: Results, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "samples"
    written = export_samples(results, Location(str(out)), "ranks")
    assert (written.status.ok, written.status.failed, written.unread) == (13, 1, {})
    samples, densities = samples_in(out), dict(results.densities())
    assert list(samples) == list(densities)
    for image_id, sample in samples.items():
        path = Path(sample["filepath"])
        if "more.tar" in image_id:
            assert not path.is_absolute()
            path = out / path
        else:
            assert path == photos / image_id
        with Image.open(path) as image:
            assert image.format in ("JPEG", "PNG")
            assert image.size == (sample["metadata"]["width"], sample["metadata"]["height"])
        with Image.open(out / sample["heatmap"]["map_path"]) as heatmap:
            grey = saliency_map(densities[image_id], "ranks")
            assert np.array_equal(np.asarray(heatmap), grey)
    assert len([path for path in (out / "data").rglob("*") if path.is_file()]) == 3


def test_the_same_again_is_the_same_and_others_files_are_kept(
    results: Results, tmp_path: Path
) -> None:
    out = tmp_path / "samples"
    found = []
    for _ in range(2):
        export_samples(results, Location(str(out)))
        found.append({p: p.read_bytes() for p in out.rglob("*") if p.is_file()})
    assert found[0] == found[1]
    for name in ("metadata.json", "samples.json", "fields/heatmap/a/photo-1.png"):
        mine = tmp_path / name.replace("/", "-")
        (mine / name).parent.mkdir(parents=True)
        (mine / name).write_text("{}")
        with pytest.raises(InputError, match="gazecore did not make it"):
            export_samples(results, Location(str(mine)))
        assert [p for p in mine.rglob("*") if p.is_file()] == [mine / name]
    (tmp_path / "theirs" / "data").mkdir(parents=True)
    with pytest.raises(InputError, match="data is there, and gazecore did not make it"):
        export_samples(results, Location(str(tmp_path / "theirs")))


def test_images_that_are_gone_have_no_sample(
    results: Results, photos: Path, tmp_path: Path
) -> None:
    (photos / "a" / "photo-1.jpg").unlink()
    (photos / "more.tar").unlink()
    written = export_samples(results, Location(str(tmp_path / "samples")))
    assert len(written.unread) == 4
    assert "a/photo-1.jpg" in written.unread
    assert len(samples_in(tmp_path / "samples")) == 9


def test_kept_columns_have_names_that_fiftyone_takes(results: Results) -> None:
    run = results.run
    keep = ("caption", "tags", "filepath", "a.b$c", "_x", "a_b_c", "日本", "$")
    kept = Run(run.location, RunSettings(**{**vars(run.settings), "keep": keep}))
    names = field_names(kept)
    assert [names[name] for name in keep] == [
        "caption", "tags_", "filepath_", "a_b_c", "x", "a_b_c_", "日本", "column",
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # FiftyOne's own warnings are not ours to fix
def test_fiftyone_opens_what_the_run_holds(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIFTYONE_DO_NOT_TRACK", "true")
    monkeypatch.setenv("FIFTYONE_DATABASE_DIR", str(tmp_path / "database"))
    fo = pytest.importorskip("fiftyone", reason="fiftyone is not installed")
    try:
        fo.list_datasets()
    except fo.core.config.FiftyOneConfigError as error:
        pytest.skip(f"FiftyOne's database does not run here: {error}")
    export_samples(results, Location(str(tmp_path / "samples")))
    data = fo.Dataset.from_dir(str(tmp_path / "samples"), fo.types.FiftyOneDataset, name="of-a-run")
    try:
        scores = {row["image_id"]: row for row in results.scores.to_pylist()}
        densities = dict(results.densities())
        assert data.media_type == "image"
        assert data.count() == len(densities)
        for sample in data:
            row = scores[sample["image_id"]]
            assert [sample[name] for name in SHOWN] == [row[name] for name in SHOWN]
            assert (sample.metadata.width, sample.metadata.height) == (row["width"], row["height"])
            assert Path(sample.filepath).is_file()
            grey = saliency_map(densities[row["image_id"]], "density")
            assert np.array_equal(sample["heatmap"].get_map(), grey)
            assert isinstance(sample["heatmap"], fo.Heatmap)
            for keypoint, peak in zip(sample["peaks"].keypoints, row["peaks"], strict=True):
                ((x, y),) = keypoint.points
                assert (x * row["width"], y * row["height"]) == pytest.approx(
                    (peak["x"], peak["y"])
                )
                assert keypoint["share"] == peak["share"]
        schema = data.get_field_schema()
        assert isinstance(schema["information_bits"], fo.FloatField)
        assert isinstance(schema["n_peaks"], fo.IntField)
        assert data.get_field("peaks.keypoints.share") is not None
        most = data.sort_by("information_bits", reverse=True).first()
        assert most["information_bits"] == max(
            row["information_bits"] for row in scores.values() if row["status"] == "ok"
        )
    finally:
        data.delete()


@pytest.mark.parametrize("export", [export_dataset, export_samples])
def test_data_sets_onto_other_storage_replace_their_own(
    results: Results, tmp_path: Path, export: Callable[[Results, Location], Written]
) -> None:
    there, here = Location(f"memory://{tmp_path.name}"), Location(str(tmp_path / "here"))
    for out in (there, there, here):
        assert export(results, out).unread == {}
    names = [p for p in (tmp_path / "here").rglob("*") if p.is_file()]
    assert names
    for path in names:
        found = there / str(path.relative_to(tmp_path / "here"))
        assert found.read_bytes() == path.read_bytes()
