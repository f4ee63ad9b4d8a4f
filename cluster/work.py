"""What actors do: the jobs that load a network, and build their work on it.

Apart from `cluster.actors`, so that a process which is an actor imports torch only for such a job.
"""

import functools
from dataclasses import dataclass

from cluster.actors import Work
from gazecore.features.cache import CacheDirectory
from gazecore.features.extract import FeatureExtractor, commit_features
from gazecore.model.backbone import SentWeights, load_backbone
from gazecore.model.bundle import parse_bundle
from gazecore.model.deepgaze import DeepGaze
from gazecore.model.spec import BackboneSpec
from gazecore.results.run import Run, RunSettings
from gazecore.results.write import commit_shard, mend_shard
from gazecore.scoring.pipeline import ReadingConfig
from gazecore.scoring.scorer import Scorer, ScorerConfig
from gazecore.storage import Location


@dataclass(frozen=True)
class ScoringJob:
    """Images become densities in a run directory.

    Attributes:
        run: URI of the run directory.
        settings: what its run.json says, so that no actor depends on reading it.
        bundle: the model bundle's bytes, so that every node has the same one.
        weights: the backbone's weights; None for those that its package on each node holds.
        threads: CPU threads.
        gpu: compute on the GPU that Ray assigned.
        scorer: how images are scored.
    """

    run: str
    settings: RunSettings
    bundle: bytes
    weights: SentWeights | None
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
            backbone_source=self.weights,
            threads=self.threads,
            compiled=self.gpu,
        )
        run = Run(Location(self.run), self.settings)
        scorer = Scorer(model, self.scorer)
        commit, mend = (functools.partial(act, run) for act in (commit_shard, mend_shard))
        return Work(scorer.score, commit, scorer.clock, mend)


@dataclass(frozen=True)
class FeatureJob:
    """Images become features in a cache.

    Attributes:
        cache: URI of the cache's directory.
        shard_size: images per shard.
        backbone: which features.
        weights, threads, gpu: as in `ScoringJob`.
        reading: how images are read.
        mirrored: see `FeatureExtractor`.
    """

    cache: str
    shard_size: int
    backbone: BackboneSpec
    weights: SentWeights | None
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
            source=self.weights,
            threads=self.threads,
            compiled=self.gpu,
        )
        extractor = FeatureExtractor(backbone, self.reading, self.mirrored)
        cache = CacheDirectory(Location(self.cache), self.shard_size)
        commit = functools.partial(commit_features, cache)
        return Work(extractor.extract, commit, extractor.clock)
