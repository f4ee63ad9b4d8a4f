"""`gazecore features` and `gazecore train`: what they leave, and how they go on."""

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
import torch
from PIL import Image

from gazecore.features.cache import FeatureCache
from gazecore.model.bundle import load_bundle
from gazecore.model.centerbias import on_grid
from gazecore.model.tiny import TinyBackbone
from gazecore.storage import Location
from gazecore.training.examples import make_example
from jobs.train import main
from tests.features import make_cache
from tests.gazecore.test_training import IMAGE_COUNT, make_corpus
from tests.jobs.conftest import ROOT, Command, run_gazecore, words
from tests.processes import descendants, kill_tree


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of red squares, one of which cannot be read, and its features."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "images").mkdir()
    make_corpus(folder / "images").save(Location(str(folder / "corpus")))
    (folder / "images" / "17.png").write_bytes(b"\x89PNG")
    command = ("features", "corpus", "--out", "cache", "--backbone", "tiny", "--shard-size", "5",
               "--pyramid", "1")  # fmt: skip
    first = run_gazecore(folder, *command)
    assert first.returncode == 0, first.stderr
    assert "computed 17 failed 1 decode_error" in words(first.stdout)
    again = run_gazecore(folder, *command)
    assert "done before 18, of which 1 failed computed 0" in words(again.stdout)
    other = run_gazecore(folder, *command, "--display-size", "native")
    assert other.returncode == 2
    assert "display_size: it has 1024, now native" in other.stderr
    return folder


@pytest.fixture
def cache(made: Path, tmp_path: Path) -> str:
    """What was made, in the test's folder."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return "cache"


def density(path: Path, cache: Path) -> torch.Tensor:
    """What a bundle predicts for an image of the cache."""
    bundle = load_bundle(str(path))
    levels = make_example(FeatureCache(str(cache))[1], np.empty((0, 2))).levels()
    return bundle.readout(levels, on_grid(bundle.centerbias, 192, 256))


@pytest.mark.slow
def test_training_from_features_to_judged_densities(
    gazecore_command: Command, cache: str, tmp_path: Path
) -> None:
    quick = ("train", cache, "--training.epochs", "2", "--members", "1")
    here = (*quick, "--workers", "0")
    crossed = gazecore_command(*here, "--out", "crossed/m.safetensors", "--folds", "3")
    assert crossed.returncode == 0, crossed.stderr
    assert "training member 3/3 epoch 2/2" in words(crossed.stderr)
    assert "left out: 17.png" in crossed.stdout
    folder = tmp_path / "crossed"
    run = json.loads((folder / "out_of_fold" / "run.json").read_text())
    digest = hashlib.sha256((folder / "m.safetensors").read_bytes()).hexdigest()
    assert run["model"] == f"out of fold: {digest}"
    scores = pq.read_table(folder / "out_of_fold.parquet")
    assert scores.num_rows == 17
    assert sorted(set(scores["fold"].to_pylist())) == [0, 1, 2]
    progress = pq.read_table(folder / "m.training" / "progress.parquet").to_pylist()
    assert [(row["member"], row["epoch"]) for row in progress] == [
        (member, epoch) for member in (1, 2, 3) for epoch in (1, 2)
    ]
    with Image.open(folder / "m.training" / "curves.png") as curves:
        assert curves.size[0] > 500
    named = words(gazecore_command("status", "crossed/out_of_fold").stdout)
    assert f"m.safetensors (out of fold: {digest}), trained on corpus" in named
    shown = words(gazecore_command("models", "crossed/m.safetensors").stdout)
    assert "training: command gazecore train cache" in shown

    # The densities of members that have not seen the image are judged as any run's.
    judged = gazecore_command(
        "evaluate", "corpus", "--run", "crossed/out_of_fold", "--out", "judged", "--sigma", "8",
        "--metrics", "information_gain",
    )  # fmt: skip
    assert judged.returncode == 0, judged.stderr
    assert "caution" not in judged.stdout
    summary = json.loads((tmp_path / "judged" / "summary.json").read_text())
    assert summary["images"] == 17

    tuned = gazecore_command(
        *here, "--out", "tuned/m.safetensors", "--init", "crossed/m.safetensors", "--parts", "5"
    )
    assert tuned.returncode == 0, tuned.stderr
    assert "held out: auc" in tuned.stdout
    assert "bit per fixation" in tuned.stdout
    assert "{" not in tuned.stdout
    # All images trained what it starts from.
    assert "caution: 4 of the held-out images" in words(tuned.stderr)
    seen = gazecore_command(
        *here, "--out", "seen/m.safetensors", "--init", "crossed/m.safetensors", "--folds", "3"
    )
    assert seen.returncode == 2
    assert "crossed/m.safetensors was trained on 17 of these images" in words(seen.stderr)
    other = make_corpus(tmp_path, prefix="other-")
    make_cache(other, TinyBackbone(), str(tmp_path / "other"))
    other.save(Location(str(tmp_path / "other-corpus")))
    pretrained = gazecore_command(
        *here, "--out", "two/m.safetensors", "--pretrain", "other", "--parts", "5", "--folds", "3",
    )  # fmt: skip
    assert pretrained.returncode == 0, pretrained.stderr
    assert "pretraining member 1/1 epoch 6/6" in words(pretrained.stderr)
    bundle = load_bundle(str(tmp_path / "two" / "m.safetensors"))
    first = load_bundle(str(tmp_path / "two" / "m.training" / "pretrained.safetensors"))
    assert bundle.training.started_from == first.training
    held_out = gazecore_command(
        "evaluate", "other-corpus", "--model", "two/m.training/pretrained.safetensors", "--images",
        "held-out", "--out", "held", "--sigma", "8", "--metrics", "information_gain",
    )  # fmt: skip
    assert held_out.returncode == 0, held_out.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--init", "default"], "features of vgg19-oxford"),
        (["--init", "m", "--pretrain", "cache"], "either"),
        (["--folds", "40"], "too few for 40 folds"),
        (["--folds", "2"], "at least 3 folds"),
        (["--parts", "1"], "--parts must be at least 2"),
        (["--pretrain", "corpus"], "is not a feature cache"),
        (["--training.epochs", "0"], "training.epochs must be positive"),
        (["--pretrain", "cache", "--folds", "3"], "two of the caches have an image"),
        (["--pretrain", "other", "--folds", "3", "--parts", "19"], "too few for 19 parts"),
        (["--init", "tiny.safetensors", "--training.widths", "8", "1"], "the shape 16 32 2 1 with"),
        (["--init", "tiny.safetensors", "--training.activation", "relu"], "leave out"),
    ],
)
def test_mistakes_are_said_before_ray_starts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny_bytes: bytes,
    arguments: list[str],
    named: str,
) -> None:
    make_cache(make_corpus(tmp_path), TinyBackbone(), str(tmp_path / "cache"))
    make_cache(make_corpus(tmp_path, prefix="o"), TinyBackbone(), str(tmp_path / "other"))
    (tmp_path / "tiny.safetensors").write_bytes(tiny_bytes)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["cache", "--out", "third/m.safetensors", *arguments])
    assert ended.value.code == 2
    text = capsys.readouterr().err
    assert named in words(text)
    assert len(text.strip().splitlines()) == 1
    assert not ray.is_initialized()
    assert not (tmp_path / "third").exists()


def test_what_members_start_from_decides_their_shape(
    gazecore_here: Command, tmp_path: Path
) -> None:
    make_cache(make_corpus(tmp_path), TinyBackbone(), str(tmp_path / "cache"))
    make_cache(make_corpus(tmp_path, prefix="o"), TinyBackbone(), str(tmp_path / "other"))
    quick = ("--members", "1", "--training.epochs", "1", "--workers", "0")
    first = gazecore_here(
        "train", "cache", "--out", "one/m.safetensors", *quick, "--pretrain", "other",
        "--training.widths", "4", "1", "--training.activation", "relu",
    )  # fmt: skip
    assert first.returncode == 0, first.stderr
    start = load_bundle(str(tmp_path / "one" / "m.safetensors"))
    assert (start.readout.config.widths, start.readout.config.activation) == ((4, 1), "relu")
    tuned = gazecore_here(
        "train", "cache", "--out", "tuned/m.safetensors", *quick, "--init", "one/m.safetensors"
    )
    assert tuned.returncode == 0, tuned.stderr
    bundle = load_bundle(str(tmp_path / "tuned" / "m.safetensors"))
    assert bundle.readout.config == start.readout.config
    assert bundle.backbone == start.backbone
    assert (bundle.training.settings or {})["widths"] == [4, 1]
    marker = json.loads(
        (tmp_path / "tuned" / "m.training" / "members" / "training.json").read_text()
    )
    assert marker["training"]["widths"] == [4, 1]  # by which another start is refused


def test_held_out_images_that_are_gone_are_missed_before_the_training(
    gazecore_here: Command, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    make_cache(make_corpus(tmp_path / "images"), TinyBackbone(), str(tmp_path / "cache"))
    (tmp_path / "images").rename(tmp_path / "moved")
    quick = ("train", "cache", "--members", "1", "--training.epochs", "1", "--workers", "0")
    missed = gazecore_here(*quick, "--out", "one/m.safetensors")
    assert missed.returncode == 2
    assert "cannot be read" in missed.stderr
    assert not (tmp_path / "one").exists()
    crossed = gazecore_here(*quick, "--out", "two/m.safetensors", "--folds", "3")
    assert crossed.returncode == 0, crossed.stderr


def test_a_training_does_not_go_on_with_other_fixations(
    gazecore_here: Command, tmp_path: Path
) -> None:
    corpus = make_corpus(tmp_path)
    make_cache(corpus, TinyBackbone(), str(tmp_path / "cache"))
    quick = ("train", "cache", "--out", "one/m.safetensors", "--members", "1",
             "--training.epochs", "1", "--workers", "0")  # fmt: skip
    assert gazecore_here(*quick).returncode == 0
    assert gazecore_here(*quick, "--out", str(tmp_path / "one/m.safetensors")).returncode == 0
    fewer = dataclasses.replace(corpus, fixations=corpus.fixations.slice(1))
    make_cache(fewer, TinyBackbone(), str(tmp_path / "cache"))
    refused = gazecore_here(*quick)
    assert refused.returncode == 2
    assert "begun with other settings (corpus: it has" in refused.stderr


def test_a_loss_that_is_not_finite_ends_the_command_at_once(
    gazecore_command: Command, cache: str, tmp_path: Path
) -> None:
    failed = gazecore_command(
        "train", cache, "--out", "one/m.safetensors", "--members", "1", "--workers", "2",
        "--cpus-per-worker", "1", "--training.learning-rate", "1e30",
    )  # fmt: skip
    assert failed.returncode == 1
    lines = failed.stderr.strip().splitlines()
    assert lines[-1].startswith("gazecore train: member 1: the loss became")
    assert "lower the learning rate" in lines[-1]
    assert not (tmp_path / "one" / "m.safetensors").exists()


@pytest.mark.slow
def test_a_driver_that_is_killed_in_the_middle_of_an_epoch_goes_on(
    gazecore_command: Command, cache: str, tmp_path: Path
) -> None:
    long = ("train", cache, "--parts", "4", "--members", "1", "--training.epochs", "5",
            "--training.batch-size", "1")  # fmt: skip
    alone = gazecore_command(*long, "--out", "alone/m.safetensors", "--workers", "0")
    assert alone.returncode == 0, alone.stderr

    command = [
        *long,
        "--out",
        str(tmp_path / "killed" / "m.safetensors"),
        "--checkpoint-steps",
        "1",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs", *command], cwd=tmp_path, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    training = tmp_path / "killed" / "m.training"
    try:
        deadline = time.monotonic() + 120
        while not (training / "progress.parquet").exists() and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(1)
    finally:
        for pid in [*descendants(process.pid), process.pid]:
            kill_tree(pid)
        process.wait(timeout=30)
    states = [torch.load(path, weights_only=True) for path in training.rglob("state.pt")]
    assert any(state["position"] > 0 for state in states), "killed between two epochs"
    assert not (tmp_path / "killed" / "m.safetensors").exists()
    done = pq.read_table(training / "progress.parquet").num_rows
    assert done < 5

    went_on = gazecore_command(*command)
    assert went_on.returncode == 0, went_on.stderr
    assert "epoch 1/5" not in went_on.stderr
    torch.testing.assert_close(
        density(tmp_path / "killed" / "m.safetensors", tmp_path / "cache"),
        density(tmp_path / "alone" / "m.safetensors", tmp_path / "cache"), rtol=0, atol=1e-5,
    )  # fmt: skip
    rows = pq.read_table(training / "progress.parquet").to_pylist()
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert IMAGE_COUNT - 1 > rows[0]["images"] > 0
