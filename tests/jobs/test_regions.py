"""`gazecore regions`: what it prints and leaves, on disk and on S3, and how mistakes end."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from gazecore.regions.measure import REGIONS
from tests.jobs.conftest import Command, refused_in_one_line, words
from tests.jobs.test_export import scored  # noqa: F401

pytestmark = pytest.mark.usefixtures("scored")

BOXES = """image_id,name,x,y,width,height
b/photo-0.jpg,face,10,10,30,20
a/photo-1.jpg,face,0,0,30,30
a/photo-1.jpg,sign,40,0,-1,30
a/broken.png,face,0,0,30,30
"""


@pytest.fixture(autouse=True)
def _boxes(tmp_path: Path) -> None:
    (tmp_path / "boxes.csv").write_text(BOXES)


def test_a_table_of_regions(gazecore_here: Command, tmp_path: Path) -> None:
    command = ("regions", "run", "--regions", "boxes.csv", "--out", "new/regions.parquet")
    done = gazecore_here(*command)
    assert (done.returncode, done.stderr) == (0, "")
    shown = words(done.stdout)
    assert "measured 2 regions on 2 images" in shown
    assert "not measured 2 regions; their rows say why" in shown
    assert f"table {tmp_path}/new/regions.parquet" in shown
    assert "correlation" not in shown
    table = pq.read_table(tmp_path / "new" / "regions.parquet")
    assert table.schema.equals(REGIONS)
    assert sorted(zip(table["name"].to_pylist(), table["status"].to_pylist(), strict=True)) == [
        ("face", "failed"), ("face", "ok"), ("face", "ok"), ("sign", "failed"),
    ]  # fmt: skip
    assert f"{table['share'][0].as_py():.6g}" in done.stdout
    before = (tmp_path / "new" / "regions.parquet").read_bytes()
    assert gazecore_here(*command).returncode == 0
    assert (tmp_path / "new" / "regions.parquet").read_bytes() == before
    assert gazecore_here("verify", "run").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere", "--regions", "boxes.csv"), "is not a run directory"),
        (("run", "--regions", "nowhere.csv"), "No such file"),
        (("run", "--regions", "nowhere"), "there is no file of regions"),
        (("run", "--regions", "photos/a/photo-1.jpg"), "is no file of regions"),
        (("run", "--regions", "boxes.csv", "--fixations", "0"), "at least 1"),
        (("run", "--regions", "boxes.csv", "--corpus", "nowhere"), "is not a corpus"),
        (("run", "--regions", "boxes.csv", "--out", "boxes.csv"), "gazecore did not make it"),
        (("run", "--regions", "boxes.csv", "--out", "run/x.parquet"), "lies in the run"),
    ],
)
def test_mistakes_end_in_one_line(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    out = () if "--out" in arguments else ("--out", "regions.parquet")
    refused_in_one_line(tmp_path, "regions", *arguments, *out, message=message)
    assert (tmp_path / "boxes.csv").read_text() == BOXES


def test_onto_s3(gazecore_here: Command, s3_client: Any, tmp_path: Path) -> None:
    s3_client.create_bucket(Bucket="regions")
    s3_client.put_object(Bucket="regions", Key="boxes.csv", Body=BOXES.encode())
    before = set(tmp_path.rglob("*"))
    for _ in range(2):
        done = gazecore_here(
            "regions", "run", "--regions", "s3://regions/boxes.csv", "--out", "s3://regions/r.parquet"
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
    assert set(tmp_path.rglob("*")) == before
    s3_client.download_file("regions", "r.parquet", str(tmp_path / "r.parquet"))
    assert pq.read_table(tmp_path / "r.parquet").num_rows == 4
