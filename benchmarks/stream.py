"""Streaming a cache that does not fit in memory: does the worker's memory stay flat?

A cache of noise, in more files than stay open, is read over and over in random order until so many
gigabytes have gone through training steps. The readout is small, so that reading counts.

    python -m benchmarks.stream [--gigabytes 200]
"""

import argparse
import itertools
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from benchmarks.environment import report
from gazecore.corpus.schema import FIXATIONS, IMAGES, Corpus
from gazecore.features.cache import CacheSettings, FeatureCache, begin_cache
from gazecore.features.extract import FeaturesStage
from gazecore.model.spec import BackboneSpec
from gazecore.model.tiny import TinyBackbone
from gazecore.shards.plan import shards
from gazecore.storage import Location
from gazecore.threads import side_by_side
from gazecore.training.examples import TrainingSet
from gazecore.training.members import new_readout
from gazecore.training.optimise import Trainer
from gazecore.training.recipes import TrainingConfig

IMAGES_STORED = 160
SHAPE = (2560, 24, 32)
MAX_GROWTH = 64e6


def resident() -> int:
    """Bytes of this process in memory, without pages of mapped files: those go as others come."""
    text = Path("/proc/self/status").read_text()
    return int(text.split("RssAnon:")[1].split()[0]) * 1024


def make_cache(folder: str) -> FeatureCache:
    """Noise of the real features' shape, one image a file."""
    spec = BackboneSpec("vgg19-oxford", ("a", "b", "c", "d", "e"), 1, (0, 0, 0), (1, 1, 1), "none")
    ids = [f"{number:04d}" for number in range(IMAGES_STORED)]
    rng = np.random.default_rng(0)
    images = pa.table([ids, ids, [600] * len(ids), [800] * len(ids)], schema=IMAGES)
    count = 100 * len(ids)
    columns = [np.repeat(ids, 100), ["1"] * count, list(range(100)) * len(ids)]
    points = [rng.uniform(0, 800, count), rng.uniform(0, 600, count)]
    nothing = pa.nulls(count, pa.float64())
    fixations = pa.table([*columns, *points, nothing, nothing], schema=FIXATIONS)
    settings = CacheSettings(spec, "1024", shard_size=1)
    directory, _ = begin_cache(Location(folder), Corpus(images, fixations), settings)
    size, stage = {"height": 600, "width": 800}, FeaturesStage(TinyBackbone(), directory)
    for shard in shards(directory):
        name = ids[shard.number]
        noise = rng.normal(size=SHAPE).astype("<f2").tobytes()
        thumbnail = rng.uniform(0, 255, 256).astype("<f4").tobytes()
        stage.commit(
            shard.number,
            [{"image_id": name, "uri": name, "status": "ok", **size, "thumbnail": thumbnail}],
            [{"image_id": name, **size, "grid_height": 24, "grid_width": 32, "features": noise}],
        )
    return FeatureCache(folder)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=200)
    arguments = parser.parse_args()
    size = 2 * int(np.prod(SHAPE))
    steps = int(arguments.gigabytes * 1e9 / size / 8)
    with tempfile.TemporaryDirectory() as folder, side_by_side() as pool:
        data = TrainingSet([make_cache(folder)])
        config = TrainingConfig(epochs=1000, widths=(2, 1), activation="relu")
        readout = new_readout(torch.zeros(SHAPE[0]), torch.ones(SHAPE[0]), config)
        prior = torch.full((128, 128), -2 * float(np.log(128)))
        trainer = Trainer(readout, data.images, prior, config, pool)
        memory, started, taken = [], time.perf_counter(), itertools.count()
        while next(taken) * len(trainer.shares()) < steps:
            shares = trainer.shares()
            for share, examples in zip(shares, data.read(s.images for s in shares), strict=True):
                trainer.step(examples, share.total)
            trainer.end_epoch([0.0])
            memory.append(resident())
        seconds = time.perf_counter() - started
    tenth = max(1, len(memory) // 10)
    growth = max(memory[tenth:]) - max(memory[:tenth])
    epochs = len(memory)
    report(
        "stream",
        gigabytes=round(epochs * IMAGES_STORED * size / 1e9, 1),
        steps=trainer.steps,
        images_per_second=epochs * IMAGES_STORED / seconds,
        megabytes={"first tenth": max(memory[:tenth]) / 1e6, "later": max(memory[tenth:]) / 1e6},
        gate={"growth": growth, "limit": MAX_GROWTH, "passed": growth < MAX_GROWTH},
    )
    sys.exit(0 if growth < MAX_GROWTH else 1)


if __name__ == "__main__":
    main()
