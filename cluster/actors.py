"""The actor that holds a model and scores shards."""

from dataclasses import dataclass

import pyarrow as pa
import ray

from gazecore.model.bundle import parse_bundle
from gazecore.model.deepgaze import DeepGaze
from gazecore.results.plan import Shard
from gazecore.results.run import open_run
from gazecore.results.write import commit_shard
from gazecore.scoring.scorer import Scorer, ScorerConfig
from gazecore.storage import Location

SHARDS_AT_ONCE = 2
"""Shards in work in one actor: while one is computed, the other is read or written."""


@dataclass(frozen=True)
class ActorConfig:
    """What an actor builds itself from.

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


class ScoringActor:
    """Loads the model once, then scores shards and commits them to the run directory."""

    def __init__(self, config: ActorConfig) -> None:
        model = DeepGaze.load(
            parse_bundle(config.bundle, "the model bundle"),
            device="cuda" if config.gpu else "cpu",
            backbone_source=config.backbone_source,
            threads=config.threads,
            compiled=config.gpu,
        )
        self._scorer = Scorer(model, config.scorer)
        self._run = open_run(Location(config.run))
        self._unfinished: dict[int, list[int]] = {}

    def ready(self) -> None:
        """Return once the model is loaded."""

    def score(self, shard: Shard, crashed: frozenset[str], last_try: bool) -> dict[str | None, int]:
        """Score and commit a shard; returns how many images ended with each error (None: ok)."""
        counts = self._unfinished[shard.number] = [0, 0]

        def on_image(ok: bool) -> None:
            counts[0 if ok else 1] += 1

        try:
            scores, densities = self._scorer.score(
                shard.images, crashed=crashed, last_try=last_try, on_image=on_image
            )
            commit_shard(self._run, shard.number, scores, densities)
        finally:
            del self._unfinished[shard.number]
        errors: dict[str | None, int] = {}
        for row in scores:
            errors[row.get("error")] = errors.get(row.get("error"), 0) + 1
        return errors

    def survive(self, images: pa.Table) -> dict[str | None, int]:
        """Score images and forget the result: does this process live through it?"""
        self._scorer.score(images)
        return {}

    def progress(self) -> dict[int, tuple[int, int]]:
        """Images (ok, failed) so far of each shard that is not committed yet."""
        return {shard: (ok, failed) for shard, (ok, failed) in list(self._unfinished.items())}


def start_actor(config: ray.ObjectRef, gpus: float, cpus: int) -> "ray.actor.ActorHandle":
    """Start an actor where there is room. It is not restarted by Ray: its owner replaces it."""
    remote = ray.remote(
        num_gpus=gpus,
        num_cpus=cpus,
        scheduling_strategy="SPREAD",
        max_restarts=0,
        max_task_retries=0,
        max_concurrency=SHARDS_AT_ONCE + 1,  # and one thread that answers `progress`
    )
    return remote(ScoringActor).remote(config)
