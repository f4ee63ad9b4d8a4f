"""`gazecore evaluate`: from pixels and from a run, its files, its page, and how mistakes end."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from gazecore.corpus.schema import load_corpus
from gazecore.metrics.names import METRICS
from gazecore.storage import Location
from jobs import tables
from tests.gazecore.test_evaluation import make_corpus
from tests.jobs.conftest import Command, words


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    folder = tmp_path / "photos"
    folder.mkdir()
    made = make_corpus(folder)
    made.save(Location(str(tmp_path / "corpus")))
    return str(tmp_path / "corpus")


def test_a_model_is_scored_judged_and_continued(
    gazecore_command: Command, tmp_path: Path, corpus: str, tiny_file: str
) -> None:
    arguments = ("evaluate", corpus, "--model", tiny_file, "--out", "out", "--sigma", "4")
    first = gazecore_command(*arguments, "--limit", "3")
    assert first.returncode == 0, first.stderr
    assert "explained information gain" in first.stdout
    whole = gazecore_command(*arguments)
    assert whole.returncode == 0, whole.stderr
    assert "left out 1 image without fixations" in words(whole.stdout)
    assert "left out 2 images beyond --limit" in words(first.stdout)
    assert "done before 3" in words(whole.stdout)
    assert "scored 2" in words(whole.stdout)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert list(summary["metrics"]) == list(METRICS)
    for predictors in summary["metrics"].values():
        assert list(predictors) == ["model", "centerbias", "gold_standard"]
        assert all(set(v) == {"mean", "low", "high"} for v in predictors.values())
    assert set(summary["explained_information_gain"]) == {"mean", "low", "high"}
    assert summary["images"] == 5
    assert summary["model"]["name"] == tiny_file
    images = pq.read_table(tmp_path / "out" / "images.parquet")
    assert images["image_id"].to_pylist() == load_corpus(corpus).image_ids[:5]
    assert "data:image/jpeg" in (tmp_path / "out" / "report.html").read_text()

    # The run that it left gives the same numbers.
    again = gazecore_command(
        "evaluate", corpus, "--run", "out/run", "--out", "again", "--sigma", "4",
        "--metrics", "nss", "cc",
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    other = json.loads((tmp_path / "again" / "summary.json").read_text())
    assert other["model"]["training"] is None
    named = gazecore_command(
        "evaluate", corpus, "--run", "out/run", "--model", "default", "--out", "other"
    )
    assert named.returncode == 2
    assert "was not scored with default" in named.stderr
    unused = gazecore_command("evaluate", corpus, "--run", "out/run", "--actors", "2", "--out", "o")
    assert unused.returncode == 2
    assert "mean nothing with --run" in unused.stderr
    assert other["metrics"] == {name: summary["metrics"][name] for name in ("nss", "cc")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run", "nowhere"], "is not a run directory"),
        (["--model", "nowhere"], "cannot read model bundle nowhere"),
        (["--images", "nowhere"], "cannot read the list nowhere"),
        (["--limit", "0"], "--limit must be positive"),
        (["--sigma", "-1"], "sigma must be positive"),
        (["--metrics", "speed"], "speed"),
        (["--out", "corpus"], "--out corpus lies in"),
        (["--out", "corpus/judged"], "lies in"),
        (["--out", "photos"], "which is of no evaluation"),
    ],
)
def test_mistakes(gazecore_here: Command, corpus: str, arguments: list[str], message: str) -> None:
    out = [] if "--out" in arguments else ["--out", "out"]
    found = gazecore_here("evaluate", corpus, *out, *arguments)
    assert found.returncode == 2
    assert message in words(found.stdout + found.stderr)
    assert "Traceback" not in found.stderr


def test_a_narrow_terminal_cuts_no_figure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables.out, "width", 60)
    value = {"mean": -0.0594, "low": -10.1234, "high": 2.5678}
    predictors = dict.fromkeys(("model", "centerbias", "gold_standard"), value)
    summary = {
        "metrics": {"information_gain": predictors}, "left_out": {}, "seen_in_training": 0,
        "explained_information_gain": None,
    }  # fmt: skip
    tables.show_averages(summary, "page")
    assert capsys.readouterr().out.count("-0.059 [-10.123, 2.568]") == 3
