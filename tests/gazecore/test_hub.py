"""Datasets on Hugging Face's hub, by `hf://`: listed, read and scored from where they are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gazecore.results.reader import open_results
from tests.containers import jpegs, write_parquet
from tests.hub import Hub, hub
from tests.jobs.conftest import ROOT

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")


def run(server: Hub, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command whose hub is this one: huggingface_hub asks for its address when it is loaded."""
    environment = os.environ | {
        "HF_ENDPOINT": server.url, "HF_HOME": str(home / "hf"), "PYTHONPATH": str(ROOT),
        "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "jobs.score", *arguments, "--actors", "0"]
    return subprocess.run(command, env=environment, text=True, capture_output=True, check=False)


def test_a_dataset_is_scored_where_it_is_and_its_changes_are_noticed(
    tmp_path: Path, tiny_file: str
) -> None:
    images, rows, out = jpegs(3, "data/a"), jpegs(4), tmp_path / "run"
    table = tmp_path / "table.parquet"
    write_parquet(table, rows, hf=True)
    name = "data/train-00000-of-00001.parquet"
    with hub({**images, name: table.read_bytes(), "README.md": b"# Cats"}) as server:
        options = ["--out", str(out), "--model", tiny_file, "--keep", "note"]
        ended = run(server, tmp_path, "hf://datasets/a/b", *options)
        assert ended.returncode == 0, ended.stderr
        # A few parts of a table, not a request for each of its images.
        assert sum(name in asked for asked in server.asked) <= 4
        scores = {row["image_id"]: row for row in open_results(str(out)).scores.to_pylist()}
        assert scores.keys() == {*images, *(f"{name}#{row}" for row in range(4))}
        assert {row["status"] for row in scores.values()} == {"ok"}
        assert scores[f"{name}#2"]["note"] == "a/0002.jpg"

        server.files["data/a/0001.jpg"] = server.files["data/a/0002.jpg"]
        again = run(server, tmp_path, "hf://datasets/a/b", *options)
        assert "1 changed image" in again.stdout, again.stdout


def test_what_is_not_there_is_one_line(tmp_path: Path, tiny_file: str) -> None:
    photos = tmp_path / "list.txt"
    photos.write_text("hf://datasets/a/b/1.jpg\nhf://datasets/a/b/none.jpg\n")
    with hub({"1.jpg": jpegs(1)["a/0000.jpg"]}) as server:
        for source, code in (("hf://datasets/a/none", 2), ("hf://datasets/a/b/none", 2)):
            ended = run(server, tmp_path, source, "--out", str(tmp_path / "none"))
            assert (ended.returncode, ended.stderr.count("\n")) == (code, 1), ended.stderr
            assert source in ended.stderr
        out = tmp_path / "run"
        ended = run(server, tmp_path, str(photos), "--out", str(out), "--model", tiny_file)
        assert ended.returncode == 0, ended.stderr
        found = open_results(str(out)).scores.to_pylist()
        assert [(row["status"], row["error"]) for row in found] == [
            ("ok", None), ("failed", "not_found"),
        ]  # fmt: skip
