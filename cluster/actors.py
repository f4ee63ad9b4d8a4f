"""The actor that holds a network and works on shards."""

import functools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa
import ray
import structlog

from cluster.logs import configure_logging
from cluster.metrics import Figures
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
from gazecore.scoring.stages import StageClock, StageTimes
from gazecore.storage import Location

SHARDS_AT_ONCE = 2
"""Shards in work in one actor: while one is computed, the other is read or written."""

log = structlog.get_logger()


@dataclass(frozen=True)
class Work:
    """What an actor does.

    Attributes:
        process: `Pipeline.process`, images to outcomes and results.
        commit: publishes a shard's outcomes and results.
        clock: where the time of `process` goes.
    """

    process: Callable[..., tuple[list[Row], list[Row]]]
    commit: Callable[[int, list[Row], list[Row]], None]
    clock: StageClock


@dataclass(frozen=True)
class Done:
    """What an actor says of a call that ended well.

    Attributes:
        images: how many ended with each error (None: ok).
        times: of this actor, since it said so last.
    """

    images: dict[str | None, int] = field(default_factory=dict)
    times: StageTimes = field(default_factory=StageTimes)


class Job(Protocol):
    """What an actor builds its work from; it is sent to every actor."""

    @property
    def where(self) -> str:
        """URI of the run directory or feature cache."""
        ...

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

    @property
    def where(self) -> str:
        """See `Job.where`."""
        return self.run

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
        scorer = Scorer(model, self.scorer)
        return Work(scorer.score, functools.partial(commit_shard, run), scorer.clock)


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

    @property
    def where(self) -> str:
        """See `Job.where`."""
        return self.cache

    def start(self) -> Work:
        """Load the backbone."""
        backbone = load_backbone(
            self.backbone,
            device="cuda" if self.gpu else "cpu",
            source=self.backbone_source,
            threads=self.threads,
            compiled=self.gpu,
        )
        extractor = FeatureExtractor(backbone, self.reading, self.mirrored)
        cache = CacheDirectory(Location(self.cache), self.shard_size)
        commit = functools.partial(commit_features, cache)
        return Work(extractor.extract, commit, extractor.clock)


class ShardActor:
    """Loads the network once, then processes shards and commits them."""

    def __init__(self, job: Job) -> None:
        configure_logging(job.where)
        self._work = job.start()
        self._work.clock.set_lanes(write=SHARDS_AT_ONCE)
        self._unfinished: dict[int, list[int]] = {}
        self._figures = Figures(job.where)
        self._telling = threading.Lock()
        self._told = {"driver": StageTimes(), "prometheus": StageTimes()}

    def ready(self) -> None:
        """Return once the network is loaded."""

    def process(self, shard: Shard, crashed: frozenset[str], last_try: bool) -> Done:
        """Process and commit a shard."""
        counts = self._unfinished[shard.number] = [0, 0]

        def on_image(ok: bool) -> None:
            counts[0 if ok else 1] += 1
            self._figures.add("gazecore_images", 1, status="ok" if ok else "failed")

        try:
            with structlog.contextvars.bound_contextvars(shard=shard.number):
                outcomes = self._process(shard, crashed, last_try, on_image)
        finally:
            del self._unfinished[shard.number]
            self._export()
        errors: dict[str | None, int] = {}
        for row in outcomes:
            errors[row.get("error")] = errors.get(row.get("error"), 0) + 1
        for error, count in errors.items():
            if error is not None:
                self._figures.add("gazecore_failed_images", count, error=error)
        self._figures.add("gazecore_shards", 1)
        return Done(errors, self._since_told("driver"))

    def _process(
        self,
        shard: Shard,
        crashed: frozenset[str],
        last_try: bool,
        on_image: Callable[[bool], None],
    ) -> list[Row]:
        started, clock = time.monotonic(), self._work.clock
        with clock.shard():
            outcomes, results = self._work.process(
                shard.images, crashed=crashed, last_try=last_try, on_image=on_image
            )
            with clock.stage("write"):
                self._work.commit(shard.number, outcomes, results)
        seconds = round(time.monotonic() - started, 3)
        failed = len(outcomes) - len(results)
        log.info("shard_done", ok=len(results), failed=failed, seconds=seconds)
        return outcomes

    def survive(self, images: pa.Table) -> Done:
        """Process images and forget the result: does this process live through it?"""
        self._work.process(images)
        return Done()

    def progress(self) -> dict[int, tuple[int, int]]:
        """Images (ok, failed) so far of each shard that is not committed yet."""
        self._export()
        return {shard: (ok, failed) for shard, (ok, failed) in list(self._unfinished.items())}

    def _export(self) -> None:
        """Bring Prometheus' figures up to date."""
        self._figures.add_times(self._since_told("prometheus"))
        self._figures.set("gazecore_images_ready", max(0, self._work.clock.ready))
        self._figures.set("gazecore_shards_in_work", len(self._unfinished))

    def _since_told(self, whom: str) -> StageTimes:
        """The times since this was asked last for the same listener."""
        with self._telling:
            now, before = self._work.clock.times(), self._told[whom]
            self._told[whom] = now
        return now - before


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
