import contextlib
import copy
import json
import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

import gazecore.results.reader
from gazecore.corpus.schema import FIXATIONS, IMAGES, Corpus
from gazecore.density.resample import to_size
from gazecore.errors import InputError, RunFailed, RunMismatch
from gazecore.features.cache import FeatureCache
from gazecore.metrics.likelihood import information_gain
from gazecore.model.bundle import ModelBundle, load_bundle
from gazecore.model.centerbias import on_grid
from gazecore.model.readout import Readout, ReadoutConfig, first_layer, mix
from gazecore.model.tiny import TinyBackbone
from gazecore.results.run import ModelNote, open_run
from gazecore.results.verify import problems
from gazecore.storage import Location
from gazecore.threads import side_by_side
from gazecore.training import course as courses
from gazecore.training.examples import TrainingSet, channel_statistics, make_example
from gazecore.training.fit import fit_bundle, require_enough
from gazecore.training.folds import (
    OUT_OF_FOLD,
    averages,
    cross_validate,
    judge_folds,
    make_folds,
)
from gazecore.training.members import (
    Member,
    Report,
    judge_images,
    mixture,
    new_readout,
    run,
    single,
)
from gazecore.training.objective import judge, log_likelihood
from gazecore.training.optimise import Epoch, Peers, Trainer
from gazecore.training.out_of_fold import write_out_of_fold
from gazecore.training.recipes import (
    CALIBRATING,
    FINE_TUNING,
    Course,
    Recipe,
    SplitConfig,
    TrainingConfig,
    TrainingSettings,
)
from tests.features import make_cache
from tests.reference import plain_readout

IMAGE_COUNT = 18


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"))


def make_corpus(folder: Path, prefix: str = "") -> Corpus:
    """Grey pictures of two shapes with a red square, which people look at nine times out of ten."""
    rng = np.random.default_rng(0)
    images, fixations = [], []
    for number in range(IMAGE_COUNT):
        width, height = (128, 96) if number % 2 else (96, 128)
        pixels = np.full((height, width, 3), rng.integers(80, 180), dtype=np.uint8)
        left, top = rng.integers(0, width - 24), rng.integers(0, height - 24)
        pixels[top : top + 24, left : left + 24] = (230, 20, 20)
        name = f"{prefix}{number:02d}.png"
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
    assert len(make_cache(corpus, TinyBackbone(), folder)) == IMAGE_COUNT
    return folder


@pytest.fixture(scope="module")
def cache(cache_folder: str) -> FeatureCache:
    return FeatureCache(cache_folder)


@pytest.fixture(scope="module")
def data(cache: FeatureCache) -> TrainingSet:
    return TrainingSet([cache])


@pytest.fixture
def pool() -> Iterator[Executor]:
    with side_by_side() as pool:
        yield pool


def uniform() -> torch.Tensor:
    return torch.full((128, 128), -2 * float(np.log(128)))


def make_trainer(
    data: TrainingSet, config: TrainingConfig, pool: Executor, peers: Peers | None = None
) -> Trainer:
    """On the first 13 images; the other 5 are held out."""
    levels = len(data.backbone.pyramid)
    readout = new_readout(*channel_statistics(data, range(13)), config, levels)
    return Trainer(readout, list(range(13)), uniform(), config, pool, peers or Peers())


def train(data: TrainingSet, config: TrainingConfig, pool: Executor) -> list[Epoch]:
    epochs: list[Epoch] = []
    run(make_trainer(data, config, pool), data, list(range(13, 18)), epochs.append)
    return epochs


def ignore(member: int, news: Epoch | int) -> None:
    pass


def weights(readout: Readout) -> torch.Tensor:
    return torch.cat([value.flatten() for value in readout.state_dict().values()])


def test_training_finds_what_people_look_at(data: TrainingSet, pool: Executor) -> None:
    config = TrainingConfig(epochs=8, learning_rate=3e-2, batch_size=4)
    epochs = train(data, config, pool)
    # 90 % of the fixations on 24 x 24 of 128 x 96 pixels: at most 3.4 bit over uniform.
    assert 1.5 < epochs[-1].information_gain < 3.4
    assert epochs[-1].loss < epochs[0].loss


def test_the_same_seed_trains_the_same(data: TrainingSet, pool: Executor) -> None:
    config = TrainingConfig(epochs=1)
    first = train(data, config, pool)
    with ThreadPoolExecutor(5) as larger:
        assert train(data, config, larger) == first
    assert train(data, replace(config, seed=1), pool) != first


def test_a_step_equals_the_plain_one(data: TrainingSet, pool: Executor) -> None:
    config = TrainingConfig(batch_size=5, dropout=0)
    trainer = make_trainer(data, config, pool)
    plain = new_readout(*channel_statistics(data, range(13)), config)
    optimiser = torch.optim.AdamW(
        [
            {"params": list(plain.weights), "weight_decay": config.weight_decay},
            {"params": [*plain.biases, plain.log_blur, plain.centerbias_weight],
             "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
    )  # fmt: skip
    share = trainer.shares()[0]
    (examples,) = data.read([share.images])
    found = trainer.step(examples, share.total)
    loss = torch.zeros(())
    for example in examples:
        density = plain_readout(plain, example.levels(), on_grid(uniform(), *example.grid))
        loss = loss - log_likelihood(density[0, 0], example) / 5
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    assert found == pytest.approx(loss.item(), rel=1e-6)
    for ours, theirs in zip(trainer.readout.parameters(), plain.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        # Sums over the grid in another order: rounding is that of the largest.
        atol = max(1e-5, 1e-4 * float(theirs.grad.abs().max()))
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=atol)


def test_the_last_state_is_kept_whatever_the_held_out_images_say(
    data: TrainingSet, pool: Executor
) -> None:
    config = TrainingConfig(epochs=2, learning_rate=1e-2)
    found = run(make_trainer(data, config, pool), data, [13], lambda epoch: None)
    other = run(make_trainer(data, config, pool), data, [16, 17], lambda epoch: None)
    assert torch.equal(weights(found), weights(other))


def test_each_step_goes_without_other_channels(data: TrainingSet, pool: Executor) -> None:
    """Dropped channels get no gradient, the others count for more; nothing of it stays."""
    trainer = make_trainer(data, TrainingConfig(dropout=0.5), pool)
    deviation = trainer.readout.feature_std.clone()
    dropped = []
    for share in trainer.shares():
        (examples,) = data.read([share.images])
        trainer.step(examples, share.total)
        gradient = trainer.readout.weights[0].grad
        assert gradient is not None
        dropped.append(gradient.abs().sum(dim=(0, 1)) == 0)
        assert torch.equal(trainer.readout.feature_std, deviation)
    assert len(dropped) == 2
    assert not torch.equal(*dropped)
    assert all(0 < int(which.sum()) < 8 for which in dropped)
    # In expectation over the channels that are left, the first layer finds what it found.
    example = data.example(0)
    plain = new_readout(*channel_statistics(data, range(13)), TrainingConfig())
    whole = first_layer(example.levels(), *plain.folded(), 1)
    trainer = make_trainer(data, TrainingConfig(dropout=0.25, epochs=4000), pool)
    sums = torch.zeros_like(whole)
    for trainer.epoch in range(2000):
        with trainer._dropped_out():
            sums += first_layer(example.levels(), *trainer.readout.folded(), 1).detach()
    difference = (sums / 2000 - whole).abs().max() / whole.std()
    assert difference < 0.2


@pytest.mark.parametrize("stops", [[1], [4], [3, 5, 8], [9]])
def test_training_that_stops_anywhere_goes_on_to_the_same_weights(
    data: TrainingSet, pool: Executor, tmp_path: Path, stops: list[int]
) -> None:
    config = TrainingConfig(epochs=3, learning_rate=1e-2, batch_size=4)
    whole: list[Epoch] = []
    expected = run(make_trainer(data, config, pool), data, [14, 15], whole.append)

    class Stop(Exception):
        pass

    epochs: list[Epoch] = []
    trainer, steps = make_trainer(data, config, pool), 0

    def on_step(images: int) -> None:
        nonlocal steps
        steps += 1
        if steps in stops:
            torch.save(trainer.state(), tmp_path / "state")
            raise Stop

    for _ in stops:
        with pytest.raises(Stop):
            run(trainer, data, [14, 15], epochs.append, on_step)
        trainer = make_trainer(data, config, pool)
        trainer.restore(torch.load(tmp_path / "state", weights_only=True))
    found = run(trainer, data, [14, 15], epochs.append, on_step)
    assert epochs == whole
    assert torch.equal(weights(found), weights(expected))


@pytest.mark.parametrize("ranks", [2, 3])
def test_any_number_of_ranks_trains_the_same(data: TrainingSet, pool: Executor, ranks: int) -> None:
    # 13 images in batches of 4: the last batch has one, so that some ranks have none.
    config = TrainingConfig(epochs=2, learning_rate=1e-2, batch_size=4)
    alone: list[Epoch] = []
    run(make_trainer(data, config, pool), data, [13, 14, 15], alone.append)
    barrier = threading.Barrier(ranks)
    inbox: list[list[torch.Tensor]] = [[] for _ in range(ranks)]

    def make(rank: int) -> Trainer:
        def all_reduce(tensors: list[torch.Tensor]) -> None:
            inbox[rank] = [tensor.clone() for tensor in tensors]
            barrier.wait()
            for number, tensor in enumerate(tensors):
                tensor.copy_(torch.stack([box[number] for box in inbox]).sum(dim=0))
            barrier.wait()

        return make_trainer(data, config, pool, Peers(rank, ranks, all_reduce))

    def together(trainer: Trainer) -> tuple[list[Epoch], torch.Tensor]:
        epochs: list[Epoch] = []
        return epochs, weights(run(trainer, data, [13, 14, 15], epochs.append))

    with ThreadPoolExecutor(ranks) as threads:
        found = list(threads.map(together, [make(rank) for rank in range(ranks)]))
    for epochs, state in found:
        assert torch.equal(state, found[0][1])
        for one, other in zip(epochs, alone, strict=True):
            assert one.loss == pytest.approx(other.loss, abs=1e-5)
            assert one.information_gain == pytest.approx(other.information_gain, abs=1e-4)


def test_losses_that_are_not_finite_end_the_training(data: TrainingSet, pool: Executor) -> None:
    with pytest.raises(RunFailed, match="lower the learning rate"):
        train(data, TrainingConfig(epochs=3, learning_rate=1e30), pool)
    trainer = make_trainer(data, TrainingConfig(), pool)
    share = trainer.shares()[0]
    trainer.step(next(data.read([share.images])), share.total)
    with pytest.raises(RunFailed, match="held-out information gain became nan"):
        trainer.end_epoch([0.5, float("nan")])
    with pytest.raises(InputError, match="no image to judge"):
        run(trainer, data, [], lambda number, epoch: None)
    with pytest.raises(InputError, match="no image to train"):
        Trainer(trainer.readout, [], uniform(), TrainingConfig(), pool)
    for wrong in ({"epochs": 0}, {"learning_rate": -1.0}, {"weight_decay": -1.0}, {"dropout": 1}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            TrainingConfig(**wrong)  # type: ignore[arg-type]


def test_threads_are_as_before_once_images_have_gone_side_by_side() -> None:
    before = torch.get_num_threads()
    with side_by_side() as pool:
        assert pool.submit(torch.get_num_threads).result() == 1
    assert torch.get_num_threads() == before


def test_fixations_weigh_equally_within_an_image(cache: FeatureCache) -> None:
    example = make_example(cache[1], np.array([[0.5, 0.5], [100.0, 90.0], [100.2, 90.2]]))
    assert example.grid == (192, 256)
    assert [level.dtype for level in example.features] == [torch.float16]
    log_density = torch.randn(192, 256)
    expected = (log_density[1, 1] + 2 * log_density[180, 200]) / 3
    torch.testing.assert_close(log_likelihood(log_density, example), expected)
    upright = make_example(cache[0], np.array([[95.9, 127.9]]))
    assert upright.grid == (256, 192)
    assert upright.cells.tolist() == [256 * 192 - 1]


def test_groups_are_read_in_order_and_may_be_empty(data: TrainingSet) -> None:
    groups = [[3, 1], [], [5]]
    read = list(data.read(groups))
    assert [len(examples) for examples in read] == [2, 0, 1]
    assert np.array_equal(read[0][0].features[0][0], data.features(3).features[0])


def test_channel_statistics_are_numpys(data: TrainingSet, cache: FeatureCache) -> None:
    mean, deviation = channel_statistics(data, [0, 1, 2])
    values = np.concatenate(
        [cache[i].features[0].reshape(8, -1).astype(np.float64) for i in range(3)], axis=1
    )
    np.testing.assert_allclose(mean, values.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(deviation, values.std(axis=1), rtol=1e-4)


def test_a_mixture_holds_its_members() -> None:
    torch.manual_seed(0)
    readouts = [Readout(ReadoutConfig(8)) for _ in range(3)]
    features, prior = [torch.randn(1, 8, 2, 2)], torch.zeros(16, 16)
    joined = mixture(readouts)(features, prior)
    for number, readout in enumerate(readouts):
        torch.testing.assert_close(joined[:, number], readout(features, prior)[:, 0])
    assert mix(joined).exp().sum() == pytest.approx(1, abs=1e-5)


def test_a_member_of_a_mixture_stands_alone() -> None:
    torch.manual_seed(0)
    joined = Readout(ReadoutConfig(8, members=3)).requires_grad_(False)
    features, prior = [torch.randn(1, 8, 2, 2)], torch.zeros(16, 16)
    for number in (0, 2, 4):
        alone = single(joined, number)(features, prior)[:, 0]
        torch.testing.assert_close(alone, joined(features, prior)[:, number % 3])


QUICK = TrainingConfig(epochs=4, learning_rate=2e-2, dropout=0)


def recipe(training: TrainingConfig = QUICK, **split: int) -> Recipe:
    return Recipe("squares", SplitConfig(**split), training)


def test_a_fitted_bundle_says_what_it_was_made_of(data: TrainingSet) -> None:
    bundle = fit_bundle(data, recipe(parts=4, members=2), ignore)
    held_out = bundle.training.held_out_images
    part = data.folds(4, 0)
    assert held_out == [data.image_ids[i] for i in np.flatnonzero(part == 0)]
    assert bundle.training.images == IMAGE_COUNT - len(held_out)
    assert bundle.training.corpora_sha256 == [data.corpus.digest]
    assert bundle.readout.config.members == 2
    assert bundle.metrics["grid_information_gain"] > 0.5
    with pytest.raises(InputError, match="--parts must be at least 2"):
        SplitConfig(parts=1)
    with pytest.raises(InputError, match="must be positive"):
        SplitConfig(members=0)
    with pytest.raises(InputError, match="too few for 40 parts"):
        fit_bundle(data, recipe(parts=40), ignore)


def test_members_start_from_what_they_are_given(data: TrainingSet) -> None:
    first = fit_bundle(data, recipe(parts=4, members=2), ignore)
    slow = TrainingConfig(epochs=1, learning_rate=1e-9)
    bundle, _ = cross_validate(data, recipe(slow, folds=3, members=1), ignore, first)
    for number in range(3):
        torch.testing.assert_close(
            weights(single(bundle.readout, number)), weights(single(first.readout, number)),
            rtol=0, atol=1e-6,
        )  # fmt: skip
    assert torch.equal(bundle.readout.feature_mean, first.readout.feature_mean)
    assert bundle.training.started_from == first.training
    with pytest.raises(InputError, match=r"training\.activation"):
        fit_bundle(data, recipe(TrainingConfig(activation="relu")), ignore, first)


def test_the_papers_own_readout_can_be_trained(data: TrainingSet) -> None:
    config = TrainingConfig(epochs=1, widths=(16, 32, 2, 1), activation="relu")
    bundle = fit_bundle(data, recipe(config, parts=4, members=1), ignore)
    assert bundle.readout.config == ReadoutConfig(8, (16, 32, 2, 1), "relu", 1)


def test_folds_keep_training_and_testing_apart(data: TrainingSet) -> None:
    folds = make_folds(data, 4, seed=0)
    assert sorted(i for fold in folds for i in fold.test) == data.images
    for fold in folds:
        assert sorted([*fold.train, *fold.test]) == data.images
        prior = data.centerbias(fold.train)
        np.testing.assert_array_equal(fold.centerbias.log_density, prior.log_density)
    with pytest.raises(InputError, match="at least 3 folds"):
        SplitConfig(folds=2)
    with pytest.raises(InputError, match="too few"):
        make_folds(data, 40, seed=0)
    with pytest.raises(InputError, match="too few for 40 folds"):
        require_enough(data, SplitConfig(folds=40))


def test_out_of_fold_scores_are_those_of_members_that_have_not_seen_the_image(
    data: TrainingSet, pool: Executor, tmp_path: Path
) -> None:
    config = TrainingConfig(epochs=3, learning_rate=2e-2, batch_size=4, dropout=0)
    bundle, fitted = cross_validate(data, recipe(config, folds=3, members=2), ignore)
    table = judge_folds(data, fitted)
    assert table.schema == OUT_OF_FOLD
    rows = {row["image_id"]: row for row in table.to_pylist()}
    assert sorted(rows) == sorted(data.image_ids)
    assert bundle.readout.config.members == 6
    assert all(row["fixations"] == 30 for row in rows.values())
    for number, fold in enumerate(make_folds(data, 3, seed=0)):
        pair = mixture([single(bundle.readout, 2 * number + k) for k in range(2)])
        prior = torch.from_numpy(fold.centerbias.log_density)
        for i in fold.test:
            row = rows[data.image_ids[i]]
            assert row["fold"] == fold.number
            ((gain, baseline),) = judge_images(pair, data, [i], prior, pool)
            assert (row["information_gain"], row["centerbias_log_likelihood"]) == (gain, baseline)
    mean = np.mean([row["information_gain"] for row in rows.values()])
    assert averages(table)["out_of_fold_information_gain"] == pytest.approx(mean, abs=1e-4)
    assert mean > 0.5

    # The densities themselves are a run as any other, whose likelihoods are those of the table.
    location = Location(str(tmp_path / "run"))
    note = ModelNote("m.safetensors", "corpus")
    run = write_out_of_fold(location, data, fitted, bundle.fingerprint, note)
    assert list(problems(run)) == []
    assert open_run(location).model == note
    results = gazecore.results.reader.open_results(run.location.uri)
    points = data.corpus.points()
    for fold in (one.fold for one in fitted):
        image_id = data.image_ids[fold.test[0]]
        found = results.density(image_id)
        prior = on_grid(torch.from_numpy(fold.centerbias.log_density), 192, 256)
        baseline = to_size(prior.numpy(), *found.shape)
        gain = information_gain(found, baseline, points[image_id]).mean()
        assert gain == pytest.approx(rows[image_id]["information_gain"], abs=0.1)
    before = sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("shard-*"))
    write_out_of_fold(location, data, fitted, bundle.fingerprint, note)
    assert sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("shard-*")) == before
    with pytest.raises(RunMismatch, match="model"):
        write_out_of_fold(location, data, fitted, "another", note)


def test_a_uniform_density_gains_nothing(cache: FeatureCache) -> None:
    readout = Readout(ReadoutConfig(8)).requires_grad_(False)
    readout.weights[0].zero_()
    example = make_example(cache[1], np.array([[3.0, 4.0]]))
    flat = torch.full((192, 256), -float(np.log(192 * 256)))
    assert judge(readout, example, flat) == pytest.approx((0, 0), abs=1e-5)


def test_a_course_goes_on_with_its_own_settings_alone(data: TrainingSet, tmp_path: Path) -> None:
    settings = TrainingSettings(epochs=1, widths=(4, 1))
    course = Course((data.caches[0].uri,), str(tmp_path / "m.safetensors"), training=settings)
    bars: list[str] = []

    def steps(title: str, total: int) -> AbstractContextManager[Callable[[], None]]:
        return contextlib.nullcontext(lambda: bars.append(title))

    trained = courses.train(course, "a command", steps=steps)
    written, record = load_bundle(course.out).training, trained.bundle.training
    assert written.to_json() == json.loads(json.dumps(record.to_json()))
    assert record.command == "a command"
    assert trained.seen == []
    assert bars == ["opening the features"] + ["judging"] * len(record.held_out_images)
    again = courses.train(course)
    assert again.bundle.metrics == trained.bundle.metrics
    with pytest.raises(RunMismatch, match=r"other settings.*epochs"):
        courses.train(replace(course, training=replace(settings, epochs=2)))


def test_a_calibration_adapts_what_screens_differ_in_alone(
    data: TrainingSet, tmp_path: Path
) -> None:
    """A mixture that was spoilt in its gain, its blur and its centre bias comes back by a
    calibration; the layers that see the image are left as they are."""
    out = str(tmp_path / "m.safetensors")
    caches = (data.caches[0].uri,)
    settings = TrainingSettings(epochs=6, learning_rate=2e-2, weight_decay=0.1, dropout=0)
    good = courses.train(
        Course(caches, out, split=SplitConfig(members=2), training=settings)
    ).bundle
    spoilt = replace(good, centerbias=torch.full((4, 4), -math.log(16.0)))
    readout = copy.deepcopy(spoilt.readout)
    readout.weights[-1] *= 0.2
    readout.log_blur += 1
    readout.centerbias_weight += 0.5
    spoilt = replace(spoilt, readout=readout)
    (tmp_path / "spoilt.safetensors").write_bytes(spoilt.to_bytes())
    init = str(tmp_path / "spoilt.safetensors")
    adapt = Course(
        caches, str(tmp_path / "a" / "m.safetensors"), init=init, only="calibration",
        training=TrainingSettings(epochs=30),  # there are only two steps in each
    )  # fmt: skip
    adapted = courses.train(adapt).bundle
    held_out = [data.image_ids.index(name) for name in good.training.held_out_images]

    def over_uniform(bundle: ModelBundle) -> float:
        with side_by_side() as pool:
            found = judge_images(bundle.readout, data, held_out, bundle.centerbias, pool)
        return float(np.mean([gain + baseline for gain, baseline in found]))

    assert over_uniform(spoilt) < over_uniform(good) - 0.3
    assert over_uniform(adapted) > over_uniform(good) - 0.1
    assert adapted.training.settings["only"] == "calibration"
    assert adapted.readout.config == good.readout.config
    before, after = spoilt.readout.state_dict(), adapted.readout.state_dict()
    changed = {name for name in before if not torch.equal(before[name].half(), after[name].half())}
    assert changed == {"weights.3", "log_blur", "centerbias_weight"}


@pytest.mark.parametrize("wrong", [{}, {"init": "default", "split": SplitConfig(folds=3)}])
def test_a_calibration_needs_a_bundle_and_no_folds(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="--init, without --folds"):
        Course(("cache",), "m.safetensors", only="calibration", **wrong)


def test_each_corpus_has_its_own_centre_in_training(cache: FeatureCache, tmp_path: Path) -> None:
    """Two corpora whose viewers look to different sides: a readout that sees nothing has nothing
    to gain over either's own centre bias, and much over the other's."""
    caches = []
    for side in (0, 1):
        folder = tmp_path / str(side)
        folder.mkdir()
        corpus = make_corpus(folder, prefix=f"{side}-")
        rng = np.random.default_rng(side)
        aside = pa.array(rng.uniform(40 * side, 40 * side + 40, corpus.fixations.num_rows))
        at = corpus.fixations.schema.get_field_index("x")
        fixations = corpus.fixations.set_column(at, corpus.fixations.schema.field(at), aside)
        some = replace(corpus, fixations=fixations)
        caches.append(make_cache(some, TinyBackbone(), str(tmp_path / f"cache-{side}")))
    both = TrainingSet(caches)
    biases = both.centerbiases(both.images)
    readout = Readout(ReadoutConfig(8)).requires_grad_(False)
    readout.weights[-1].zero_()
    with side_by_side() as pool:
        own = judge_images(readout, both, both.images, biases, pool)
        swapped = judge_images(readout, both, both.images, biases.flip(0), pool)
    assert max(abs(gain) for gain, _ in own) < 1e-5
    bits = [np.mean([base for _, base in found]) for found in (own, swapped)]
    assert bits[0] > bits[1] + 1
    for number, alone in enumerate(caches):
        single_set = TrainingSet([alone])
        expected = single_set.centerbias(single_set.images).log_density
        np.testing.assert_array_equal(biases[number], expected)


def test_what_is_left_out_is_as_fits_where_readouts_start() -> None:
    course = Course(("a",), "m.safetensors", training=TrainingSettings(epochs=5))
    assert course.recipe.training == TrainingConfig(epochs=5)
    tuned = replace(course, init="default")
    assert tuned.recipe.training == replace(FINE_TUNING, epochs=5)
    adapted = replace(tuned, only="calibration", training=TrainingSettings(epochs=6, seed=2))
    # Also where it is what another training would have by itself.
    assert adapted.recipe.training == replace(CALIBRATING, epochs=6, seed=2)
    first = replace(course, pretrain=("b",), training=TrainingSettings(epochs=5, widths=(4, 1)))
    assert first.recipe.training == replace(FINE_TUNING, epochs=5, widths=(4, 1))
    assert first.first_recipe.training == TrainingConfig(widths=(4, 1))


def test_what_was_learned_first_is_rehearsed(cache: FeatureCache, tmp_path: Path) -> None:
    """Images of the pretraining train beside the others, over their own centre bias, but for those
    held out then and those that look like one that is judged; none of them is judged."""
    folder = tmp_path / "other"
    folder.mkdir()
    other = make_corpus(folder, prefix="other-")  # pictures as those of the cache
    rng = np.random.default_rng(5)
    for number in range(1, IMAGE_COUNT):  # and now all but the first are others
        width, height = (128, 96) if number % 2 else (96, 128)
        noise = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((width, height)).save(folder / f"other-{number:02d}.png")
    beside = make_cache(other, TinyBackbone(), str(tmp_path / "cache"))
    first = fit_bundle(TrainingSet([beside]), recipe(parts=4, members=1), ignore)
    held_out = first.training.held_out_images
    data = TrainingSet([cache, beside], beside=1)
    assert {data.image_ids[i] for i in data.images} == set(cache.image_ids)
    seen: list[list[int]] = []

    def record(data: TrainingSet, members: list[Member], report: Report) -> list[Readout]:
        seen.extend(member.train for member in members)
        assert all(not set(member.held_out) & set(data.beside) for member in members)
        assert all(member.centerbias.shape[0] == 2 for member in members)
        return [member.start for member in members]

    bundle, folds = cross_validate(data, recipe(folds=3, members=1), ignore, first, record)
    assert sorted(i for fold in folds for i in fold.fold.test) == data.images
    expected = set(beside.image_ids) - set(held_out) - {"other-00.png"}
    for train, fold in zip(seen, folds, strict=True):
        assert {data.image_ids[i] for i in train if i in data.beside} == expected
        assert [i for i in train if i in data.images] == fold.fold.train
    alone = TrainingSet([cache])
    own = alone.centerbias(alone.images).log_density
    np.testing.assert_array_equal(bundle.centerbias, own)
    assert bundle.training.held_out(data.digests[1], beside.image_ids) == sorted(held_out)
    assert bundle.training.held_out(data.digests[1], ["another.png"]) == []
    assert bundle.training.seen(data.digests[0], cache.image_ids) == sorted(cache.image_ids)
