"""What gazecore made is replaced by the same command; what it did not is never written over."""

import json
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gazecore.corpus.schema import FIXATIONS, IMAGES
from gazecore.errors import InputError
from gazecore.evaluation.outputs import is_evaluation
from gazecore.model.bundle import is_bundle, read_bundle
from gazecore.ownership import is_our_hdf5, is_our_picture, is_table_of, refuse_foreign
from gazecore.results.export import picture_names, write_maps, write_model
from gazecore.storage import Location
from gazecore.training.outputs import Outputs
from gazecore.view.overlay import draw_overlay
from tests.conftest import make_photo

FLAT = np.full((30, 40), -np.log(1200), dtype=np.float32)


def at(path: Path) -> Location:
    return Location(str(path))


def test_pictures_are_known_by_who_drew_them(tmp_path: Path) -> None:
    make_photo(1, 40, 30).save(tmp_path / "photo.png")
    draw_overlay(make_photo(1, 40, 30), FLAT, tmp_path / "overlay.png")
    write_maps([("a", FLAT)], {"a": "map.png"}, at(tmp_path), "density")
    (tmp_path / "empty.png").write_bytes(b"")
    assert [name for name in ("photo", "overlay", "map", "empty")
            if is_our_picture(at(tmp_path / f"{name}.png"))] == ["overlay", "map"]  # fmt: skip


def test_hdf5_files_are_known_by_who_wrote_them(tmp_path: Path) -> None:
    write_model([("a", FLAT)], {"a": "a"}, at(tmp_path / "ours.hdf5"))
    with h5py.File(tmp_path / "theirs.hdf5", "w") as file:
        file["x"] = 1
    (tmp_path / "text.hdf5").write_text("notes")
    assert is_our_hdf5(at(tmp_path / "ours.hdf5"))
    assert not is_our_hdf5(at(tmp_path / "theirs.hdf5"))
    assert not is_our_hdf5(at(tmp_path / "text.hdf5"))


def test_tables_are_known_by_their_columns(tmp_path: Path) -> None:
    pq.write_table(IMAGES.empty_table(), tmp_path / "images.parquet")
    assert is_table_of(IMAGES)(at(tmp_path / "images.parquet"))
    assert not is_table_of(FIXATIONS)(at(tmp_path / "images.parquet"))
    (tmp_path / "text.parquet").write_text("notes")
    assert not is_table_of(IMAGES)(at(tmp_path / "text.parquet"))


def test_bundles_are_known_by_their_header(tmp_path: Path) -> None:
    (tmp_path / "ours").write_bytes(read_bundle("default"))
    assert is_bundle(at(tmp_path / "ours"))
    for content in (b"", b"notes", b"\xff" * 100, (2).to_bytes(8, "little") + b"{}",
                    (100_000).to_bytes(8, "little") + b"[" * 100_000):  # fmt: skip
        (tmp_path / "theirs").write_bytes(content)
        assert not is_bundle(at(tmp_path / "theirs"))


def test_an_evaluation_is_known_by_what_is_in_it(tmp_path: Path) -> None:
    assert not is_evaluation(at(tmp_path))
    (tmp_path / "run").mkdir()
    assert not is_evaluation(at(tmp_path))
    (tmp_path / "summary.json").write_text("[1]")
    assert not is_evaluation(at(tmp_path))
    (tmp_path / "summary.json").write_text(json.dumps({"gazecore_version": "1"}))
    assert is_evaluation(at(tmp_path))
    (tmp_path / "summary.json").unlink()
    pq.write_table(pa.table({"image_id": ["a"], "uri": ["b"]}), tmp_path / "input.parquet")
    assert not is_evaluation(at(tmp_path))  # `run` is somebody's
    (tmp_path / "run").rmdir()
    assert is_evaluation(at(tmp_path))


def test_a_foreign_file_is_refused_and_replaced_only_when_told(tmp_path: Path) -> None:
    make_photo(1, 40, 30).save(tmp_path / "photo.png")
    there, free = at(tmp_path / "photo.png"), at(tmp_path / "free.png")
    refuse_foreign([free], is_our_picture)
    with pytest.raises(InputError, match="did not make it"):
        refuse_foreign([free, there], is_our_picture)
    refuse_foreign([there], is_our_picture, overwrite=True)


def test_training_writes_over_no_other_file(tmp_path: Path) -> None:
    outputs = Outputs(str(tmp_path / "model.safetensors"))
    outputs.refuse_foreign()
    (tmp_path / "out_of_fold.parquet").write_text("notes")
    with pytest.raises(InputError, match=r"out_of_fold\.parquet"):
        outputs.refuse_foreign()
    (tmp_path / "out_of_fold.parquet").unlink()
    (tmp_path / "model.safetensors").write_text("somebody's weights")
    with pytest.raises(InputError, match=r"model\.safetensors"):
        outputs.refuse_foreign()


def test_names_that_no_file_can_have_are_shortened_and_stay_apart(tmp_path: Path) -> None:
    ids = [f"{'ä' * 300}{i}.jpg" for i in range(3)] + [f"{'f' * 255}/a.jpg", "short.jpg"]
    names = picture_names(ids)
    assert len(set(names.values())) == 5
    assert names["short.jpg"] == "short.png"
    assert write_maps(((i, FLAT) for i in ids), names, at(tmp_path), "density") == 5
    for name in names.values():
        with Image.open(tmp_path / name) as picture:
            assert picture.size == (40, 30)
