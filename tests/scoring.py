"""Runs for tests, and the scoring stage around a model that is loaded already."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gazecore.density.summary import summarise
from gazecore.images.formats import Limits
from gazecore.images.listing import list_images
from gazecore.model.deepgaze import DeepGaze
from gazecore.results.run import Run, RunSettings, begin_run
from gazecore.scoring import ScoringStage, score_rows
from gazecore.shards import local
from gazecore.shards.pipeline import Pipeline
from gazecore.shards.planning import update_plan
from gazecore.shards.stage import ReadingConfig, Row, Stage
from gazecore.shards.tally import Tally
from gazecore.storage import Location


def make_run(folder: Path, photos: Path, shard_size: int = 3) -> Run:
    settings = RunSettings(str(photos), "tiny", "1024", shard_size, 4, Limits())
    run = begin_run(Location(str(folder)), settings)
    update_plan(run, list_images(str(photos)))
    return run


def files(run: Run) -> dict[str, bytes]:
    root = Path(run.location.path)
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


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


def rows_of(row: dict[str, Any], log_density: np.ndarray, factor: int) -> tuple[Row, Row]:
    """Rows of an image of 72 x 48 pixels whose density is made up, over a uniform centre bias."""
    density = torch.from_numpy(log_density)
    uniform = torch.full(density.shape, -math.log(density.numel()))
    return score_rows(
        row, (48, 72), summarise(density[None], density[None, None], uniform, factor), 0
    )
