"""Every block of docs/python.md, run in order as one session."""

import re
from pathlib import Path

import numpy as np
import pytest

import gazecore
from gazecore.corpus.schema import Corpus
from gazecore.storage import Location
from tests.conftest import make_photo
from tests.gazecore.test_training import make_corpus
from tests.scoring import files

PAGE = Path(__file__).resolve().parents[1] / "docs" / "python.md"
README = PAGE.parents[1] / "README.md"


def blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)


@pytest.fixture
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_file: str) -> None:
    monkeypatch.chdir(tmp_path)
    make_photo(1, 640, 400).save("beach.jpg")
    (tmp_path / "photos").mkdir()
    for name in ("a", "b"):
        make_photo(2, 120, 90).save(f"photos/{name}.jpg")
    (tmp_path / "stimuli").mkdir()
    corpus = make_corpus(tmp_path / "stimuli")
    few = Corpus(
        corpus.images.slice(0, 4),
        corpus.fixations.filter([i < "04" for i in corpus.fixations["image_id"].to_pylist()]),
    )
    few.save(Location(str(tmp_path / "corpus")))


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.usefixtures("_here")
def test_every_block_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    session: dict[str, object] = {}
    assert len(blocks(PAGE)) > 6
    for block in blocks(PAGE):
        exec(compile(block, str(PAGE), "exec"), session)
    assert "(image * 255).round()" in capsys.readouterr().out
    assert Path("seen.png").stat().st_size > 1000
    # What the page says of single lines, which say nothing by themselves.
    assert isinstance(session["run"], gazecore.Results)
    assert session["run"].scores.num_rows == 2
    assert files(gazecore.open_run("run-on-ray").run) == files(session["run"].run)
    assert session["found"].images.num_rows == 4
    [(image_id, name, share, _)] = session["answer"]
    assert (image_id, name) == ("a.jpg", "sign")
    part = np.exp(session["run"].density("a.jpg"))[10:40, 10:50]
    assert share == pytest.approx(float(part.sum()), abs=1e-6)
    assert session["density"].log_density.shape == (400, 640)


@pytest.mark.usefixtures("_here")
def test_the_readmes_lines_run() -> None:
    session: dict[str, object] = {}
    gazecore.score("beach.jpg", "photos-run")
    for block in blocks(README):
        exec(compile(block, str(README), "exec"), session)
    assert isinstance(session["density"], gazecore.Density)
    assert session["log_density"].shape == (400, 640)  # type: ignore[attr-defined]
