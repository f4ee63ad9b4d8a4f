import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from gazecore.corpus.schema import FIXATIONS, IMAGES, Corpus
from gazecore.errors import CorpusError, InputError, RunFailed
from gazecore.features.cache import FeatureCache, write_cache
from gazecore.model.backbone import TinyBackbone
from gazecore.model.readout import Readout, ReadoutConfig, mix
from gazecore.storage import Location
from gazecore.training.fit import SplitConfig, fit_bundle, split_images
from gazecore.training.loop import (
    Epoch,
    TrainingConfig,
    channel_statistics,
    mixture,
    train_readout,
)
from gazecore.training.objective import log_likelihoods, make_batches

IMAGE_COUNT = 18


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Grey pictures of two shapes with a red square, which people look at nine times out of ten."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    images, fixations = [], []
    for number in range(IMAGE_COUNT):
        width, height = (128, 96) if number % 2 else (96, 128)
        pixels = np.full((height, width, 3), rng.integers(80, 180), dtype=np.uint8)
        left, top = rng.integers(0, width - 24), rng.integers(0, height - 24)
        pixels[top : top + 24, left : left + 24] = (230, 20, 20)
        name = f"{number:02d}.png"
        Image.fromarray(pixels).save(folder / name)
        images.append(
            {"image_id": name, "uri": str(folder / name), "height": height, "width": width}
        )
        inside = rng.uniform((left, top), (left + 24, top + 24), (27, 2))
        anywhere = rng.uniform((0, 0), (width, height), (3, 2))
        fixations += [
            {"image_id": name, "subject": "1", "index": i, "x": x, "y": y, "t": None,
             "duration": None}
            for i, (x, y) in enumerate(np.concatenate([inside, anywhere]).tolist())
        ]  # fmt: skip
    return Corpus(
        pa.Table.from_pylist(images, schema=IMAGES), pa.Table.from_pylist(fixations, FIXATIONS)
    )


@pytest.fixture(scope="module")
def cache_folder(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("features"))
    assert list(write_cache(corpus, TinyBackbone(), "1024", Location(folder)))[-1] == IMAGE_COUNT
    return folder


@pytest.fixture(scope="module")
def cache(cache_folder: str) -> FeatureCache:
    return FeatureCache(cache_folder)


def uniform() -> torch.Tensor:
    return torch.full((128, 128), -2 * float(np.log(128)))


def train(cache: FeatureCache, corpus: Corpus, config: TrainingConfig) -> list[Epoch]:
    epochs: list[Epoch] = []
    train_readout(
        cache, corpus.points(), list(range(13)), list(range(13, 18)), uniform(),
        channel_statistics(cache, list(range(13))), config, epochs.append,
    )  # fmt: skip
    return epochs


def test_training_finds_what_people_look_at(cache: FeatureCache, corpus: Corpus) -> None:
    epochs = train(cache, corpus, TrainingConfig(epochs=8, learning_rate=3e-2, batch_size=4))
    # 90 % of the fixations on 24 x 24 of 128 x 96 pixels: at most 3.4 bit over uniform.
    assert 1.5 < epochs[-1].best < 3.4
    assert epochs[-1].loss < epochs[0].loss
    assert epochs[-1].best == max(e.information_gain for e in epochs)


def test_the_same_seed_trains_the_same(cache: FeatureCache, corpus: Corpus) -> None:
    config = TrainingConfig(epochs=1)
    assert train(cache, corpus, config) == train(cache, corpus, config)
    assert train(cache, corpus, config) != train(cache, corpus, replace(config, seed=1))


def test_the_best_state_is_kept_not_the_last(
    cache: FeatureCache, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = []

    def gains(readout: Readout, *_: object) -> float:
        states.append({k: v.clone() for k, v in readout.state_dict().items()})
        return [0.1, 0.9, 0.5][len(states) - 1]

    monkeypatch.setattr("gazecore.training.loop.held_out_gain", gains)
    readout = train_readout(
        cache, corpus.points(), list(range(6)), [7], uniform(),
        channel_statistics(cache, [0, 1]), TrainingConfig(epochs=3), lambda epoch: None,
    )  # fmt: skip
    for key, value in readout.state_dict().items():
        assert torch.equal(value, states[1][key])
    assert any(not torch.equal(v, states[2][k]) for k, v in readout.state_dict().items())


def test_losses_that_are_not_finite_end_the_training(cache: FeatureCache, corpus: Corpus) -> None:
    with pytest.raises(RunFailed, match="lower the learning rate"):
        train(cache, corpus, TrainingConfig(epochs=3, learning_rate=1e30))
    with pytest.raises(InputError, match="too few"):
        train_readout(cache, corpus.points(), [], [1], uniform(), (torch.zeros(8), torch.ones(8)),
                      TrainingConfig(), lambda epoch: None)  # fmt: skip
    for wrong in ({"epochs": 0}, {"learning_rate": -1.0}, {"weight_decay": -1.0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            TrainingConfig(**wrong)  # type: ignore[arg-type]


def test_images_weigh_equally_whatever_their_fixations(cache: FeatureCache) -> None:
    images = [cache[1], cache[3]]
    few = np.array([[0.5, 0.5]])
    many = np.array([[100.0, 90.0]] * 50)
    (batch,) = make_batches(images, [few, many])
    assert batch.grid == (192, 256)
    log_density = torch.randn(2, 192, 256)
    found = log_likelihoods(log_density, batch)
    assert found[0] == log_density[0, 1, 1]
    assert found[1] == pytest.approx(float(log_density[1, 180, 200]), rel=1e-5)


def test_images_of_different_shapes_go_into_batches_of_their_own(cache: FeatureCache) -> None:
    batches = make_batches([cache[i] for i in range(4)], [np.array([[1.0, 1.0]])] * 4)
    assert [len(batch.counts) for batch in batches] == [2, 2]
    assert batches[0].features.shape[2:] == (32, 24)


def test_channel_statistics_are_numpys(cache: FeatureCache) -> None:
    mean, deviation = channel_statistics(cache, [0, 1, 2])
    values = np.concatenate(
        [cache[i].features.reshape(8, -1).astype(np.float64) for i in range(3)], axis=1
    )
    np.testing.assert_allclose(mean, values.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(deviation, values.std(axis=1), rtol=1e-4)


def test_a_mixture_holds_its_members() -> None:
    torch.manual_seed(0)
    readouts = [Readout(ReadoutConfig(8)) for _ in range(3)]
    features, prior = torch.randn(1, 8, 2, 2), torch.zeros(16, 16)
    joined = mixture(readouts)(features, prior)
    for number, readout in enumerate(readouts):
        torch.testing.assert_close(joined[:, number], readout(features, prior)[:, 0])
    assert mix(joined).exp().sum() == pytest.approx(1, abs=1e-5)


def test_a_fitted_bundle_says_what_it_was_made_of(cache: FeatureCache, corpus: Corpus) -> None:
    split = SplitConfig(folds=4, members=2)
    bundle = fit_bundle(
        cache, corpus, "squares", split, TrainingConfig(epochs=4, learning_rate=2e-2),
        lambda member, epoch: None,
    )  # fmt: skip
    held_out = bundle.training["held_out_images"]
    fold = split_images(cache, split)
    assert held_out == [cache.image_ids[i] for i in np.flatnonzero(fold == 0)]
    assert bundle.training["images"] == IMAGE_COUNT - len(held_out)
    assert bundle.readout.config.members == 2
    assert bundle.metrics["grid_information_gain"] > 0.5
    with pytest.raises(InputError, match="members need"):
        SplitConfig(folds=4, members=3)


def test_a_cache_of_something_else_is_refused(
    cache_folder: str, corpus: Corpus, tmp_path: Path
) -> None:
    fewer = replace(corpus, images=corpus.images.slice(0, 3))
    with pytest.raises(CorpusError, match="other images"):
        list(write_cache(fewer, TinyBackbone(), "1024", Location(cache_folder)))
    with pytest.raises(CorpusError, match="other images"):
        list(write_cache(corpus, TinyBackbone(), "native", Location(cache_folder)))
    with pytest.raises(CorpusError, match="not a feature cache"):
        FeatureCache(str(tmp_path))
    (tmp_path / "cache.json").write_bytes((Path(cache_folder) / "cache.json").read_bytes())
    with pytest.raises(CorpusError, match="not complete"):
        FeatureCache(str(tmp_path))
    assert json.loads((tmp_path / "cache.json").read_bytes())["display_size"] == "1024"


def test_a_cache_continues_where_it_was_interrupted(
    cache_folder: str, corpus: Corpus, tmp_path: Path
) -> None:
    steps = write_cache(corpus, TinyBackbone(), "1024", Location(str(tmp_path)))
    assert next(steps) == 16
    steps.close()
    first = (tmp_path / "features-00000.parquet").stat().st_mtime_ns
    assert list(write_cache(corpus, TinyBackbone(), "1024", Location(str(tmp_path)))) == [16, 18]
    assert (tmp_path / "features-00000.parquet").stat().st_mtime_ns == first
    for name in ("features-00000.parquet", "features-00001.parquet"):
        assert (tmp_path / name).read_bytes() == (Path(cache_folder) / name).read_bytes()


def test_an_image_that_cannot_be_read_is_named(corpus: Corpus, tmp_path: Path) -> None:
    rows = corpus.images.to_pylist()
    rows[1]["uri"] = str(tmp_path / "gone.png")
    broken = replace(corpus, images=pa.Table.from_pylist(rows, schema=IMAGES))
    with pytest.raises(CorpusError, match=r"01\.png .*gone\.png"):
        list(write_cache(broken, TinyBackbone(), "1024", Location(str(tmp_path / "out"))))
