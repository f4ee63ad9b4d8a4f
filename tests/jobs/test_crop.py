"""`gazecore crop`: what it prints and leaves, and how mistakes end."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from gazecore.crops.measure import CROPS
from tests.jobs.conftest import Command, refused_in_one_line, words
from tests.jobs.test_export import scored  # noqa: F401

pytestmark = pytest.mark.usefixtures("scored")


def test_a_table_of_crops_and_the_pieces(gazecore_here: Command, tmp_path: Path) -> None:
    command = ("crop", "run", "--aspect", "16:9", "--aspect", "1:1", "--out", "new/crops.parquet")
    done = gazecore_here(*command)
    assert (done.returncode, done.stderr) == (0, "")
    shown = words(done.stdout)
    assert "images 10" in shown
    table = pq.read_table(tmp_path / "new" / "crops.parquet")
    assert table.schema.equals(CROPS)
    assert table["aspect"].to_pylist() == ["16:9", "1:1"] * 10
    square = [r for r in table.to_pylist() if r["aspect"] == "1:1"]
    kept, central = (sum(r[n] for r in square) / 10 for n in ("share", "center_share"))
    assert f"1:1 keeps {kept:.1%} of the fixations, a central crop {central:.1%}" in shown
    done = gazecore_here(*command, "--files", "pieces", "--least-scale", "0.5", "--margin", "0.1")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"files 20 in {tmp_path}/pieces" in words(done.stdout)
    for row in pq.read_table(tmp_path / "new" / "crops.parquet").to_pylist():
        with Image.open(tmp_path / "pieces" / row["file"]) as piece:
            assert piece.size == (row["width"], row["height"])
    assert gazecore_here("verify", "run").returncode == 0


def test_an_image_that_is_gone_ends_with_1(gazecore_here: Command, tmp_path: Path) -> None:
    (tmp_path / "photos" / "a" / "photo-1.jpg").unlink()
    done = gazecore_here(
        "crop", "run", "--aspect", "1:1", "--out", "crops.parquet", "--files", "pieces"
    )
    assert done.returncode == 1
    assert "not cut 1 file; their rows say why" in words(done.stdout)
    assert "files 9 in" in words(done.stdout)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere", "--aspect", "1:1"), "is not a run directory"),
        (("run", "--aspect", "wide"), "'wide' is no ratio of width to height, such as 16:9"),
        (("run", "--aspect", "1:1", "--aspect", "1:1"), "each once"),
        (("run", "--aspect", "1:1", "--margin", "0.5"), "the margin"),
        (("run", "--aspect", "1:1", "--least-scale", "2"), "the least scale"),
        (("run", "--aspect", "1:1", "--out", "photos/b/photo-0.jpg"), "gazecore did not make it"),
        (("run", "--aspect", "1:1", "--out", "run/x.parquet"), "lies in the run"),
        (("run", "--aspect", "1:1", "--files", "run/x"), "lies in the run"),
    ],
)
def test_mistakes_end_in_one_line(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    out = () if "--out" in arguments else ("--out", "crops.parquet")
    refused_in_one_line(tmp_path, "crop", *arguments, *out, message=message)


def test_onto_s3(gazecore_here: Command, s3_client: Any, tmp_path: Path) -> None:
    s3_client.create_bucket(Bucket="crops")
    before = set(tmp_path.rglob("*"))
    for _ in range(2):  # what it made, it knows there too
        done = gazecore_here(
            "crop", "run", "--aspect", "1:1", "--out", "s3://crops/t.parquet",
            "--files", "s3://crops/pieces",
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
    assert set(tmp_path.rglob("*")) == before
    keys = [item["Key"] for item in s3_client.list_objects_v2(Bucket="crops")["Contents"]]
    assert len(keys) == 11
    assert "pieces/a/photo-1-1x1.jpg" in keys
