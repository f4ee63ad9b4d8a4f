import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractBufferedFile

from gazecore.corpus.schema import Corpus
from gazecore.errors import CorpusError, InputError, RunMismatch
from gazecore.features.cache import CacheDirectory, CacheSettings, FeatureCache, begin_cache
from gazecore.features.extract import FeaturesStage
from gazecore.images.decode import to_network
from gazecore.model.tiny import TINY_SPEC, TinyBackbone
from gazecore.shards.pipeline import Pipeline
from gazecore.shards.plan import shards
from gazecore.shards.stage import ReadingConfig
from gazecore.storage import Location
from gazecore.training.examples import TrainingSet, require
from tests.features import make_cache
from tests.gazecore.test_training import IMAGE_COUNT, make_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def cache(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    return make_cache(corpus, TinyBackbone(), str(tmp_path_factory.mktemp("features")))


@pytest.fixture(scope="module")
def deep(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    """Of a pyramid of three levels."""
    backbone = TinyBackbone(pyramid=(1.0, 0.5, 0.25))
    return make_cache(corpus, backbone, str(tmp_path_factory.mktemp("deep")))


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("which", ["cache", "deep"])
def test_a_cache_holds_the_backbones_features(
    corpus: Corpus, which: str, request: pytest.FixtureRequest
) -> None:
    cache: FeatureCache = request.getfixturevalue(which)
    assert cache.image_ids == corpus.image_ids
    assert cache.corpus().fixations.equals(corpus.fixations)
    for index, row in enumerate(corpus.images.to_pylist()):
        image = to_network(Path(row["uri"]).read_bytes(), "1024")
        levels = TinyBackbone(pyramid=cache.backbone.pyramid).features(image.pixels[None])
        found = cache[index]
        for stored, expected in zip(found.features, levels, strict=True):
            np.testing.assert_array_equal(stored, expected[0].half().numpy())
        assert (found.image_id, found.height, found.width) == (
            row["image_id"], row["height"], row["width"],
        )  # fmt: skip


def test_one_read_of_object_storage_brings_one_image(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = dataclasses.replace(TINY_SPEC, name="vgg19-oxford", taps=("a", "b", "c", "d", "e"))
    directory, _ = begin_cache(
        Location("memory://one-read"), corpus, CacheSettings(spec, "1024", shard_size=6)
    )
    shape, rng = (2560, 4, 16), np.random.default_rng(0)
    for shard in shards(directory):
        rows = shard.images.select(["image_id", "uri"]).to_pylist()
        size = {"height": 96, "width": 128}
        outcomes = [{**row, "status": "ok", **size, "thumbnail": bytes(1024)} for row in rows]
        results = [
            {"image_id": row["image_id"], **size, "grid_height": 4, "grid_width": 16,
             "features": rng.normal(size=shape).astype("<f2").tobytes()}
            for row in rows
        ]  # fmt: skip
        FeaturesStage(TinyBackbone(), directory).commit(shard.number, outcomes, results)
    read: list[int] = []

    class Remote(AbstractBufferedFile):
        def _fetch_range(self, start: int, end: int) -> bytes:
            read.append(end - start)
            return bytes(self.fs.cat_file(self.path, start, end))

    def open_remote(fs: MemoryFileSystem, path: str, mode: str = "rb", **options: Any) -> Any:
        return Remote(fs, path, mode, options.get("block_size") or "default")

    cache = FeatureCache("memory://one-read")
    monkeypatch.setattr(MemoryFileSystem, "open", open_remote)
    for index in (3, 5, 4, 0):
        cache[index]
    image = 2 * int(np.prod(shape))
    assert len(read) == 1 + 4  # the footer, and an image each
    assert max(read[1:]) < image + 2**17
    assert sum(read) < 6 * image


def test_batches_of_a_gpu_change_nothing(corpus: Corpus, cache: FeatureCache) -> None:
    stage = FeaturesStage(
        TinyBackbone(images_at_once=4), CacheDirectory(Location("memory://no"), 1)
    )
    images = corpus.images
    for name in ("size", "version"):
        images = images.append_column(name, [[None] * IMAGE_COUNT])
    _, rows = Pipeline(stage, ReadingConfig()).process(images)
    assert [row["image_id"] for row in rows] == cache.image_ids
    for index, row in enumerate(rows):
        assert row["features"] == cache[index].features[0].tobytes()


def test_a_cache_of_something_else_is_refused(
    corpus: Corpus, cache: FeatureCache, tmp_path: Path
) -> None:
    location = Location(cache.uri)
    fewer = dataclasses.replace(corpus, images=corpus.images.slice(0, 3))
    settings = CacheSettings(TINY_SPEC, "1024", shard_size=4)
    with pytest.raises(RunMismatch, match=r"images\.count: it has 18, now 3"):
        begin_cache(location, fewer, settings)
    with pytest.raises(RunMismatch, match="display_size: it has 1024, now native"):
        begin_cache(location, corpus, dataclasses.replace(settings, display_size="native"))
    with pytest.raises(CorpusError, match="no images"):
        begin_cache(Location(str(tmp_path)), dataclasses.replace(corpus, images=corpus.images[:0]),
                    settings)  # fmt: skip
    with pytest.raises(InputError, match="shard_size"):
        CacheSettings(TINY_SPEC, "1024", 0)
    (tmp_path / "letter.txt").write_text("not a cache")
    with pytest.raises(RunMismatch, match="not empty"):
        begin_cache(Location(str(tmp_path)), corpus, settings)
    require(cache, TINY_SPEC, "1024", "a bundle")
    with pytest.raises(CorpusError, match="a bundle is made for features of tiny"):
        require(cache, TINY_SPEC, "native", "a bundle")
    with pytest.raises(CorpusError, match="not a feature cache"):
        FeatureCache(str(tmp_path))


def test_a_cache_continues_where_it_was_interrupted(
    corpus: Corpus, cache: FeatureCache, tmp_path: Path
) -> None:
    settings = CacheSettings(TINY_SPEC, "1024", shard_size=4)
    directory, plan = begin_cache(Location(str(tmp_path)), corpus, settings)
    assert (plan.images, plan.shards) == (18, 5)
    stage = FeaturesStage(TinyBackbone(), directory)
    for shard in list(shards(directory))[1:3]:
        stage.commit(shard.number, *Pipeline(stage, ReadingConfig()).process(shard.images))
    with pytest.raises(CorpusError, match="not complete"):
        FeatureCache(str(tmp_path))
    before = files(tmp_path)
    make_cache(corpus, TinyBackbone(), str(tmp_path))
    assert files(tmp_path) == files(Path(cache.uri))
    assert before.items() <= files(tmp_path).items()


def test_images_that_cannot_be_read_are_rows_and_left_out(corpus: Corpus, tmp_path: Path) -> None:
    images = corpus.images.to_pylist()
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    images[3]["uri"] = str(tmp_path / "broken.png")
    images[7]["uri"] = str(tmp_path / "gone.png")
    broken = dataclasses.replace(corpus, images=corpus.images.from_pylist(images))
    cache = make_cache(broken, TinyBackbone(), str(tmp_path / "cache"))
    assert len(cache) == 16
    assert set(cache.failed) == {"03.png", "07.png"}
    data = TrainingSet([cache])
    assert [data.features(i).image_id for i in data.images] == cache.image_ids
    assert data.folds(4, 0).shape == (16,)
    outcomes = pq.read_table(f"{cache.uri}/images").to_pylist()
    assert sorted(row["error"] for row in outcomes if row["status"] == "failed") == [
        "decode_error", "not_found",
    ]  # fmt: skip


def test_fixations_that_changed_replace_those_in_the_cache(corpus: Corpus, tmp_path: Path) -> None:
    make_cache(corpus, TinyBackbone(), str(tmp_path))
    fewer = dataclasses.replace(corpus, fixations=corpus.fixations.slice(0, 40))
    cache = make_cache(fewer, TinyBackbone(), str(tmp_path))
    assert TrainingSet([cache]).fixations == [30, 10] + [0] * 16


def test_what_does_not_fit_together_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    cache = make_cache(corpus, TinyBackbone(), str(tmp_path / "one"))
    with pytest.raises(InputError, match=r"have an image '00\.png'"):
        TrainingSet([cache, cache])
    with pytest.raises(InputError, match="name a feature cache"):
        TrainingSet([])
    nobody = dataclasses.replace(corpus, fixations=corpus.fixations.slice(0, 0))
    with pytest.raises(InputError, match=r"no image of .* has fixations"):
        TrainingSet([make_cache(nobody, TinyBackbone(), str(tmp_path / "two"))])
    images = corpus.images.to_pylist()
    images[5]["width"] += 1
    wrong = dataclasses.replace(corpus, images=corpus.images.from_pylist(images))
    with pytest.raises(CorpusError, match=r"05.png is an image of 128x96 px.*129x96"):
        TrainingSet([make_cache(wrong, TinyBackbone(), str(tmp_path / "three"))])


def test_two_caches_are_one_training_set(corpus: Corpus, tmp_path: Path) -> None:
    def part(name: str, start: int, count: int) -> FeatureCache:
        ids = set(corpus.image_ids[start : start + count])
        rows = [row for row in corpus.fixations.to_pylist() if row["image_id"] in ids]
        some = dataclasses.replace(
            corpus,
            images=corpus.images.slice(start, count),
            fixations=corpus.fixations.from_pylist(rows, corpus.fixations.schema),
        )
        return make_cache(some, TinyBackbone(), str(tmp_path / name))

    whole = TrainingSet([make_cache(corpus, TinyBackbone(), str(tmp_path / "whole"))])
    parts = [part("one", 0, 7), part("two", 7, 11)]
    both = TrainingSet(parts)
    assert both.image_ids == whole.image_ids
    assert both.fixations == whole.fixations
    # What is held out of a corpus is so in company, too.
    alone = [TrainingSet([cache]).folds(3, 0) for cache in parts]
    np.testing.assert_array_equal(both.folds(3, 0), np.concatenate(alone))
    for one, other in zip(both.read([range(18)]), whole.read([range(18)]), strict=True):
        for a, b in zip(one, other, strict=True):
            assert all(map(torch.equal, a.features, b.features))
            assert torch.equal(a.cells, b.cells)
    prior, expected = (data.centerbias(data.images).log_density for data in (both, whole))
    np.testing.assert_array_equal(prior, expected)


def test_a_damaged_header_is_one_line(cache: FeatureCache, tmp_path: Path) -> None:
    header = json.loads((Path(cache.uri) / "cache.json").read_text())
    mirrored = {**header, "mirrored": True}  # as gazecore 0.1 could make them
    for damage in ("{", "[]", json.dumps({**header, "backbone": {}}), json.dumps(mirrored)):
        (tmp_path / "cache.json").write_text(damage)
        with pytest.raises(CorpusError, match="not a feature cache"):
            FeatureCache(str(tmp_path))
