"""The actor that holds a network and works on shards."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa
import ray

from gazecore.features.cache import CacheDirectory
from gazecore.features.extract import FeatureExtractor, commit_features
from gazecore.model.backbone import BackboneSpec, load_backbone
from gazecore.model.bundle import parse_bundle
from gazecore.model.deepgaze import DeepGaze
from gazecore.results.plan import Shard
from gazecore.results.run import open_run
from gazecore.results.write import commit_shard
from gazecore.scoring.pipeline import ReadingConfig, Row
from gazecore.scoring.scorer import Scorer, ScorerConfig
from gazecore.storage import Location

SHARDS_AT_ONCE = 2
"""Shards in work in one actor: while one is computed, the other is read or written."""


@dataclass(frozen=True)
class Work:
    """What an actor does.

    Attributes:
        process: `Pipeline.process`, images to outcomes and results.
        commit: publishes a shard's outcomes and results.
    """

    process: Callable[..., tuple[list[Row], list[Row]]]
    commit: Callable[[int, list[Row], list[Row]], None]


class Job(Protocol):
    """What an actor builds its work from; it is sent to every actor."""

    def start(self) -> Work:
        """Load the network."""
        ...


@dataclass(frozen=True)
class ScoringJob:
    """Images become densities in a run directory.

    Attributes:
        run: URI of the run directory.
        bundle: the model bundle's bytes, so that every node has the same one.
        backbone_source: where the backbone's weights come from, or None for its own package.
        threads: CPU threads.
        gpu: compute on the GPU that Ray assigned.
        scorer: how images are scored.
    """

    run: str
    bundle: bytes
    backbone_source: str | None
    threads: int
    gpu: bool
    scorer: ScorerConfig

    def start(self) -> Work:
        """Load the model."""
        model = DeepGaze.load(
            parse_bundle(self.bundle, "the model bundle"),
            device="cuda" if self.gpu else "cpu",
            backbone_source=self.backbone_source,
            threads=self.threads,
            compiled=self.gpu,
        )
        run = open_run(Location(self.run))
        return Work(Scorer(model, self.scorer).score, functools.partial(commit_shard, run))


@dataclass(frozen=True)
class FeatureJob:
    """Images become features in a cache.

    Attributes:
        cache: URI of the cache's directory.
        shard_size: images per shard.
        backbone: which features.
        backbone_source, threads, gpu: as in `ScoringJob`.
        reading: how images are read.
        mirrored: see `FeatureExtractor`.
    """

    cache: str
    shard_size: int
    backbone: BackboneSpec
    backbone_source: str | None
    threads: int
    gpu: bool
    reading: ReadingConfig
    mirrored: bool

    def start(self) -> Work:
        """Load the backbone."""
        backbone = load_backbone(
            self.backbone,
            device="cuda" if self.gpu else "cpu",
            source=self.backbone_source,
            threads=self.threads,
            compiled=self.gpu,
        )
        extract = FeatureExtractor(backbone, self.reading, self.mirrored).extract
        cache = CacheDirectory(Location(self.cache), self.shard_size)
        return Work(extract, functools.partial(commit_features, cache))


class ShardActor:
    """Loads the network once, then processes shards and commits them."""

    def __init__(self, job: Job) -> None:
        self._work = job.start()
        self._unfinished: dict[int, list[int]] = {}

    def ready(self) -> None:
        """Return once the network is loaded."""

    def process(
        self, shard: Shard, crashed: frozenset[str], last_try: bool
    ) -> dict[str | None, int]:
        """Process and commit a shard; returns how many images ended with each error (None: ok)."""
        counts = self._unfinished[shard.number] = [0, 0]

        def on_image(ok: bool) -> None:
            counts[0 if ok else 1] += 1

        try:
            outcomes, results = self._work.process(
                shard.images, crashed=crashed, last_try=last_try, on_image=on_image
            )
            self._work.commit(shard.number, outcomes, results)
        finally:
            del self._unfinished[shard.number]
        errors: dict[str | None, int] = {}
        for row in outcomes:
            errors[row.get("error")] = errors.get(row.get("error"), 0) + 1
        return errors

    def survive(self, images: pa.Table) -> dict[str | None, int]:
        """Process images and forget the result: does this process live through it?"""
        self._work.process(images)
        return {}

    def progress(self) -> dict[int, tuple[int, int]]:
        """Images (ok, failed) so far of each shard that is not committed yet."""
        return {shard: (ok, failed) for shard, (ok, failed) in list(self._unfinished.items())}


def start_actor(job: ray.ObjectRef, gpus: float, cpus: int) -> "ray.actor.ActorHandle":
    """Start an actor where there is room. It is not restarted by Ray: its owner replaces it."""
    remote = ray.remote(
        num_gpus=gpus,
        num_cpus=cpus,
        scheduling_strategy="SPREAD",
        max_restarts=0,
        max_task_retries=0,
        max_concurrency=SHARDS_AT_ONCE + 1,  # and one thread that answers `progress`
    )
    return remote(ShardActor).remote(job)
