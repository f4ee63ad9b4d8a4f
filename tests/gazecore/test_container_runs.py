"""Runs over containers: the same scores as of files, whatever is odd among them, and resumed."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gazecore.model.deepgaze import DeepGaze
from gazecore.results.reader import Results
from gazecore.results.verify import problems
from tests.conftest import make_photo
from tests.containers import (
    KINDS,
    jpegs,
    write_container,
    write_folder,
    write_parquet,
    write_tar,
    write_zip,
)
from tests.scoring import files, make_run, score_run


def write_forms(folder: Path, images: Mapping[str, bytes]) -> dict[str, Path]:
    """The same images in the forms that people keep them in, in one order."""
    forms = {kind: folder / f"x.{kind}" for kind in KINDS}
    for path in forms.values():
        write_container(path, images)
    forms["folder"] = folder / "folder"
    write_folder(forms["folder"], images)
    names, half = list(images), len(images) // 2
    forms["hugging face"] = folder / "hf"
    (folder / "hf" / "data").mkdir(parents=True)
    for number, some in enumerate((names[:half], names[half:])):
        path = folder / "hf" / "data" / f"train-{number:05d}-of-00002.parquet"
        write_parquet(path, {name: images[name] for name in some}, hf=True)
    forms["two tars"] = folder / "tars"
    forms["two tars"].mkdir()
    for number, some in enumerate((names[:half], names[half:])):
        write_tar(forms["two tars"] / f"{number}.tar", {name: images[name] for name in some})
    forms["stored zip"] = folder / "stored.zip"
    write_zip(forms["stored zip"], images, zipfile.ZIP_STORED)
    return forms


def rows_of(run: Any) -> list[dict[str, Any]]:
    """Scores in the order of the plan, without ids."""
    rows = Results(run).scores.to_pylist()
    return [{k: v for k, v in row.items() if k not in ("image_id", "uri")} for row in rows]


def test_the_same_photographs_give_the_same_scores_in_every_form(
    tmp_path: Path, tiny: DeepGaze
) -> None:
    images = jpegs(11)
    for seed in range(5):
        buffer = io.BytesIO()
        make_photo(seed, 60, 90).save(buffer, "PNG" if seed % 2 else "WEBP")
        images[f"b/{seed}.{'png' if seed % 2 else 'webp'}"] = buffer.getvalue()
    images["c/broken.jpg"] = b"no picture"
    images["c/empty.jpg"] = b""
    found = {}
    for form, path in write_forms(tmp_path, images).items():
        run = make_run(tmp_path / "runs" / form, path, shard_size=5)
        tally = score_run(run, tiny)
        assert (tally.ok, tally.errors) == (16, {"decode_error": 2}), form
        assert list(problems(run)) == []
        found[form] = rows_of(run)
    assert len(found["folder"]) == 18
    assert all(rows == found["folder"] for rows in found.values())


def test_a_run_over_containers_goes_on_to_the_same_bytes(tmp_path: Path, tiny: DeepGaze) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, kind in enumerate(KINDS):
        write_container(photos / f"{number}.{kind}", jpegs(9, str(number)))
    whole, part = (make_run(tmp_path / name, photos, shard_size=4) for name in ("whole", "part"))
    score_run(whole, tiny)
    for turn in range(3):
        for shard in range(turn, 12, 3):
            (part.scores / f"shard-{shard:06d}.parquet").remove()
            (part.densities / f"shard-{shard:06d}.parquet").remove()
        score_run(part, tiny)
    assert files(part) == files(whole)


@pytest.mark.slow
@pytest.mark.corpora
@pytest.mark.parametrize("form", KINDS)
def test_hostile_images_have_the_same_rows_in_containers(
    tmp_path: Path, tiny: DeepGaze, shared: Path, form: str
) -> None:
    images = {
        path.name: path.read_bytes()
        for path in sorted((shared / "hostile").iterdir())
        if path.name != "LICENSE"
    }
    images["zzz.jpg"] = jpegs(1)["a/0000.jpg"]
    write_folder(tmp_path / "loose", images)
    write_container(tmp_path / f"x.{form}", images)
    runs = [make_run(tmp_path / "run-loose", tmp_path / "loose", shard_size=16),
            make_run(tmp_path / "run", tmp_path / f"x.{form}", shard_size=16)]  # fmt: skip
    for run in runs:
        score_run(run, tiny)
        assert list(problems(run)) == []
    loose, within = map(rows_of, runs)
    assert len(loose) == 92
    assert {row["status"] for row in loose} == {"ok", "failed"}
    assert within == loose
