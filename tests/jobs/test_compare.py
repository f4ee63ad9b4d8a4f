"""`gazecore compare`: what it prints and leaves, and how mistakes end."""

import json
from pathlib import Path
from typing import Any

import pytest

from gazecore.model.deepgaze import DeepGaze
from gazecore.storage import Location
from tests.gazecore.test_evaluation import make_corpus
from tests.gazecore.test_export import score
from tests.jobs.conftest import Command, refused_in_one_line, words


@pytest.fixture(autouse=True)
def _runs(tmp_path: Path, tiny: DeepGaze) -> None:
    """A corpus, a run of its images, and another of two of them."""
    photos = tmp_path / "photos"
    photos.mkdir()
    corpus = make_corpus(photos)
    corpus.save(Location(str(tmp_path / "corpus")))
    score(photos, tmp_path / "a", tiny)
    names = "\n".join(f"photos/{i},{i}" for i in corpus.image_ids[:2])
    (tmp_path / "two.csv").write_text(f"uri,image_id\n{names}\n")
    score(str(tmp_path / "two.csv"), tmp_path / "b", tiny)


def test_a_run_against_itself(gazecore_here: Command, tmp_path: Path) -> None:
    done = gazecore_here("compare", "a", "a", "--out", "out")
    assert (done.returncode, done.stderr) == (0, "")
    shown = words(done.stdout)
    assert "Jensen-Shannon, bit 0.0000 [0.0000, 0.0000], 0.000 to 0.000" in shown
    assert "CC 1.0000" in shown
    assert f"page {tmp_path}/out/report.html" in shown
    assert gazecore_here("verify", "a").returncode == 0


@pytest.mark.filterwarnings("ignore")
def test_with_fixations(gazecore_here: Command, tmp_path: Path) -> None:
    done = gazecore_here(
        "compare", "a", "b", "--out", "out", "--corpus", "corpus", "--sigma", "4",
        "--metrics", "auc", "nss",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    shown = words(done.stdout)
    assert "pairs 2" in shown
    assert "images of the first run alone" in shown
    assert "auc, B - A 0.0000 [0.0000, 0.0000]" in shown
    assert "judged 2 images" in shown
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert list(summary["metrics"]) == ["auc", "nss"]


def test_onto_s3(gazecore_here: Command, s3_client: Any, tmp_path: Path) -> None:
    s3_client.create_bucket(Bucket="compared")
    before = set(tmp_path.rglob("*"))
    for _ in range(2):  # what it wrote, it replaces there too
        done = gazecore_here("compare", "a", "b", "--out", "s3://compared/out")
        assert (done.returncode, done.stderr) == (0, "")
    assert set(tmp_path.rglob("*")) == before
    keys = [item["Key"] for item in s3_client.list_objects_v2(Bucket="compared")["Contents"]]
    assert keys == [f"out/{name}" for name in ("images.parquet", "report.html", "summary.json")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a", "nowhere"), "is not a run directory"),
        (("a", "b", "--out", "photos"), "which is of no comparison"),
        (("a", "b", "--out", "a/x"), "lies in"),
        (("a", "b", "--match", "nowhere.csv"), "nowhere.csv cannot be read"),
        (("a", "b", "--match", "two.csv"), "no single column a, b"),
        (("a", "b", "--match", "two.csv", "--corpus", "corpus"), "--match means others"),
        (("a", "b", "--corpus", "nowhere"), "is not a corpus"),
        (("a", "b", "--sigma", "4"), "mean nothing without --corpus"),
    ],
)
def test_mistakes_end_in_one_line(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    out = () if "--out" in arguments else ("--out", "out")
    refused_in_one_line(tmp_path, "compare", *arguments, *out, message=message)
