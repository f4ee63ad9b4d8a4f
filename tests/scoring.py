"""The scoring stage around a model that is loaded already."""

from dataclasses import dataclass, field
from typing import Any

from gazecore.images.formats import Limits
from gazecore.model.deepgaze import DeepGaze
from gazecore.results.run import Run, RunSettings
from gazecore.scoring import ScoringStage
from gazecore.shards import local
from gazecore.shards.pipeline import Pipeline
from gazecore.shards.stage import ReadingConfig, Stage
from gazecore.shards.tally import Tally
from gazecore.storage import Location


@dataclass(frozen=True)
class Loaded:
    """A `StageConfig` of a stage that is there."""

    where: str
    stage: Stage[Any]
    reading: ReadingConfig = field(default_factory=ReadingConfig)

    def build(self, threads: int | None = None, gpu: bool | None = None) -> Stage[Any]:
        return self.stage


def score_run(run: Run, model: DeepGaze, reading: ReadingConfig = ReadingConfig()) -> Tally:
    """Score what is missing of a run, in this process."""
    return local.run(run, Loaded(run.location.uri, ScoringStage(model, run), reading))


class Scorer:
    """A model with its pipeline and no run: `score` makes the rows of a shard."""

    def __init__(
        self, model: DeepGaze, reading: ReadingConfig = ReadingConfig(), density_factor: int = 4
    ) -> None:
        settings = RunSettings("", "", "1024", 1, density_factor, Limits())
        self.pipeline = Pipeline(ScoringStage(model, Run(Location("memory://no-run"), settings)),
                                 reading)  # fmt: skip
        self.score, self.clock = self.pipeline.process, self.pipeline.clock
        self.close = self.pipeline.close
