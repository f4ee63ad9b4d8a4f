"""`gazecore report`: from a run that was scored to a page, and how mistakes end."""

from pathlib import Path

import pytest

from tests.jobs.conftest import Command, refused_in_one_line, words
from tests.pages import page_run


def test_a_scored_folder_has_a_page(
    gazecore_here: Command, photos: Path, tmp_path: Path, tiny_file: str
) -> None:
    scored = gazecore_here("score", "photos", "--out", "run", "--model", tiny_file)
    assert scored.returncode == 0, scored.stderr
    (photos / "b" / "photo-0.jpg").unlink()
    for _ in range(2):  # a page of its own is replaced
        done = gazecore_here("report", "run", "--out", "page")
        assert done.returncode == 0, done.stderr
    assert "images 10 on the page" in words(done.stdout)
    assert "1 image was not read: the density alone is shown" in words(done.stdout)
    assert f"page {tmp_path}/page/report.html" in words(done.stdout)
    page = (tmp_path / "page" / "report.html").read_text()
    assert "<code>gazecore report run --out page</code>" in page
    assert "Where the time went" in page
    assert gazecore_here("verify", "run").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--out", "out"], "is not a run directory"),
        (["run", "--out", "run/page"], "lies in the run"),
        (["run", "--out", "out", "--images", "0"], "1 to 50,000 images"),
    ],
)
def test_mistakes(tmp_path: Path, arguments: list[str], message: str) -> None:
    page_run(tmp_path / "run", ["a", "b"])
    refused_in_one_line(tmp_path, "report", *arguments, message=message)
