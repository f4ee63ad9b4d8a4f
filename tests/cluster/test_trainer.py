"""Ray Train: any number of workers ends in the same weights, and so does a disturbed training."""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch

from cluster.layout import WorkersConfig
from cluster.training_driver import train_members
from cluster.training_worker import _sum_over_ranks
from gazecore.errors import InputError
from gazecore.features.cache import FeatureCache
from gazecore.model.backbone import TinyBackbone
from gazecore.model.centerbias import on_grid
from gazecore.model.readout import Readout
from gazecore.storage import Location
from gazecore.threads import side_by_side
from gazecore.training.examples import TrainingSet, channel_statistics, open_caches
from gazecore.training.members import Member, Report, new_readout, train_here
from gazecore.training.optimise import Epoch, Peers
from gazecore.training.recipes import TrainingConfig
from tests.features import make_cache
from tests.gazecore.test_training import make_corpus, uniform
from tests.processes import training_workers

pytestmark = pytest.mark.usefixtures("ray_cluster")

CONFIG = TrainingConfig(epochs=3, batch_size=4, learning_rate=0.01)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus and its feature cache."""
    folder = tmp_path_factory.mktemp("training")
    (folder / "images").mkdir()
    corpus = make_corpus(folder / "images")
    make_cache(corpus, TinyBackbone(), str(folder / "cache"))
    return folder


def caches(folder: Path) -> list[str]:
    return [str(folder / "cache")]


@pytest.fixture(scope="module")
def data(folder: Path) -> TrainingSet:
    return open_caches(caches(folder))


def members(data: TrainingSet, count: int, config: TrainingConfig = CONFIG) -> list[Member]:
    statistics = channel_statistics(data, range(13))
    configs = [replace(config, seed=number) for number in range(1, count + 1)]
    return [
        Member(c.seed, new_readout(*statistics, c), [*range(13)], [*range(13, 18)], uniform(), c)
        for c in configs
    ]


def train(
    data: TrainingSet,
    folder: Path,
    name: str,
    jobs: list[Member],
    workers: WorkersConfig,
    report: Report = lambda number, news: None,
) -> list[Readout]:
    return train_members(
        data, jobs, report, caches=caches(folder),
        storage=Location(str(folder / name)), config=workers,
    )  # fmt: skip


def only_epochs(epochs: list[tuple[int, Epoch]]) -> Report:
    def report(number: int, news: Epoch | int) -> None:
        if isinstance(news, Epoch):
            epochs.append((number, news))

    return report


def densities(readout: Readout, data: TrainingSet) -> torch.Tensor:
    """What a readout predicts for two images.

    Not its weights: the last layer's bias moves no density, so its gradient is nothing but rounding
    errors, which Adam makes as large as any gradient.
    """
    prior = on_grid(uniform(), 48, 64)
    features = [data.example(i).levels() for i in (1, 3)]
    return readout([torch.cat(level) for level in zip(*features, strict=True)], prior)


@pytest.fixture(scope="module")
def undisturbed(data: TrainingSet) -> tuple[list[torch.Tensor], list[tuple[int, Epoch]]]:
    """Densities and epochs of two members that this process trained alone."""
    epochs: list[tuple[int, Epoch]] = []
    found = train_here(data, members(data, 2), only_epochs(epochs))
    return [densities(readout, data) for readout in found], epochs


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_any_number_of_workers_ends_in_the_same_densities(
    data: TrainingSet,
    folder: Path,
    undisturbed: tuple[list[torch.Tensor], list[tuple[int, Epoch]]],
    workers: int,
) -> None:
    if workers > ray.cluster_resources()["CPU"]:
        pytest.skip(f"{workers} workers need as many cores")
    epochs: list[tuple[int, Epoch]] = []
    spread = WorkersConfig(workers=workers, checkpoint_steps=2)
    jobs = members(data, 2 if workers == 1 else 1)  # two alone, to have them side by side
    found = train(data, folder, f"workers-{workers}", jobs, spread, only_epochs(epochs))
    assert len(found) == len(jobs)
    densities_alone, epochs_alone = undisturbed
    for one, other in zip(found, densities_alone, strict=False):
        torch.testing.assert_close(densities(one, data), other, rtol=0, atol=1e-3)
    epochs.sort(key=lambda e: (e[0], e[1].number))
    assert [(n, e.number) for n, e in epochs] == [(j.number, k) for j in jobs for k in (1, 2, 3)]
    for (_, one), (_, other) in zip(epochs, epochs_alone, strict=False):
        assert one.loss == pytest.approx(other.loss, abs=1e-5)
        assert one.information_gain == pytest.approx(other.information_gain, abs=1e-4)


def step_by_step(rank: int, folder: str, found: Any) -> None:
    """One of three processes, which train alone, by two and by three: the loss and the densities
    after each of its steps."""
    data = TrainingSet([FeatureCache(f"{folder}/cache")])
    for ranks in range(rank + 1, 4):
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/meet-{ranks}", rank=rank, world_size=ranks
        )
        (member,) = members(data, 1)
        steps = []
        with side_by_side() as pool:
            trainer = member.trainer(pool, Peers(rank, ranks, _sum_over_ranks))
            for _ in range(2):
                shares = trainer.shares()
                read = data.read(share.images for share in shares)
                for share, examples in zip(shares, read, strict=True):
                    loss = trainer.step(examples, share.total)
                    with torch.no_grad():
                        density = densities(trainer.readout, data).numpy()
                    steps.append((len(examples), loss, density))
                trainer.end_epoch([0.0])
        torch.distributed.destroy_process_group()
        found.put((ranks, rank, steps))


def test_each_step_is_the_same_in_one_two_and_three_processes(tmp_path: Path) -> None:
    # Numbers of fixations differ between images: 3 to 30.
    corpus = make_corpus(tmp_path)
    rows = [
        row for row in corpus.fixations.to_pylist() if row["index"] % 10 <= int(row["image_id"][1])
    ]
    some = replace(corpus, fixations=corpus.fixations.from_pylist(rows, corpus.fixations.schema))
    make_cache(some, TinyBackbone(), str(tmp_path / "cache"))
    counts = set(TrainingSet([FeatureCache(str(tmp_path / "cache"))]).fixations)
    assert min(counts) < max(counts) / 5
    context = torch.multiprocessing.get_context("spawn")
    found = context.Queue()
    processes = [
        context.Process(target=step_by_step, args=(rank, str(tmp_path), found)) for rank in range(3)
    ]
    for process in processes:
        process.start()
    results = {}
    for _ in range(6):  # one, two and three processes
        ranks, rank, steps = found.get(timeout=240)
        results[ranks, rank] = steps
    for process in processes:
        process.join()
        assert process.exitcode == 0
    alone = results[1, 0]
    assert [own for own, _, _ in alone] == 2 * [4, 4, 4, 1]  # 13 images, batches of 4
    assert [own for own, _, _ in results[3, 2]] == 2 * [1, 1, 1, 0]  # none of the last batch
    for (ranks, _), steps in results.items():
        assert len(steps) == len(alone)
        for (_, loss, density), (_, loss_alone, density_alone) in zip(steps, alone, strict=True):
            assert loss == pytest.approx(loss_alone, abs=1e-5), ranks
            np.testing.assert_allclose(density, density_alone, rtol=0, atol=1e-3)


@pytest.mark.slow
def test_two_trainings_share_a_cluster(
    data: TrainingSet,
    folder: Path,
    undisturbed: tuple[list[torch.Tensor], list[tuple[int, Epoch]]],
) -> None:
    # Two of three cores each: one of them waits for the other.
    spread = WorkersConfig(cpus_per_worker=2)
    with ThreadPoolExecutor(2) as drivers:
        both = [
            drivers.submit(train, data, folder, name, members(data, 1), spread)
            for name in ("these", "those")
        ]
    for training in both:
        (found,) = training.result()
        torch.testing.assert_close(densities(found, data), undisturbed[0][0], rtol=0, atol=1e-5)


def written(folder: Path) -> dict[str, int]:
    """Every file below, and when it was written."""
    return {str(p): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_a_finished_training_is_taken_as_it_is(
    data: TrainingSet,
    folder: Path,
    undisturbed: tuple[list[torch.Tensor], list[tuple[int, Epoch]]],
) -> None:
    name = "workers-1"
    before = written(folder / name)
    assert before
    found = train(data, folder, name, members(data, 2), WorkersConfig())
    assert written(folder / name) == before
    torch.testing.assert_close(densities(found[1], data), undisturbed[0][1], rtol=0, atol=1e-5)
    # A driver that died before it kept a member finds it in its checkpoint; one that died over the
    # file that names the checkpoint begins it anew.
    for number in (1, 2):
        (folder / name / f"member-{number}.safetensors").unlink()
    (folder / name / "member-2" / "checkpoint_manager_snapshot.json").write_text('{"ray')
    found = train(data, folder, name, members(data, 2), WorkersConfig())
    for one, other in zip(found, undisturbed[0], strict=True):
        torch.testing.assert_close(densities(one, data), other, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_killed_workers_change_nothing(data: TrainingSet, folder: Path) -> None:
    workers = 2
    long = replace(CONFIG, epochs=8)
    (alone,) = train_here(data, members(data, 1, long), lambda number, news: None)
    seen = threading.Event()
    killed: list[int] = []

    def kill() -> None:
        for _ in range(2):
            if not seen.wait(120):
                return
            seen.clear()
            for pid in training_workers(os.getpid())[:1]:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    killer = threading.Thread(target=kill)
    killer.start()

    def report(number: int, news: Epoch | int) -> None:
        if isinstance(news, Epoch) and news.number in (2, 5):
            seen.set()

    spread = WorkersConfig(workers=workers, checkpoint_steps=3)
    found = train(data, folder, f"killed-{workers}", members(data, 1, long), spread, report)
    killer.join()
    assert len(killed) == 2
    atol = 1e-5 if workers == 1 else 1e-3  # sums in another order
    torch.testing.assert_close(densities(found[0], data), densities(alone, data), rtol=0, atol=atol)


def test_what_cannot_be_spread_is_said(data: TrainingSet, folder: Path) -> None:
    with pytest.raises(InputError, match="no room for 10,000 workers"):
        train(data, folder, "huge", members(data, 1), WorkersConfig(workers=10_000))
    with pytest.raises(InputError, match="workers must not be negative"):
        WorkersConfig(workers=-1)
    with pytest.raises(InputError, match="checkpoint_steps must be positive"):
        WorkersConfig(checkpoint_steps=0)
