"""Train a readout on features."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from cluster.layout import WorkersConfig
from gazecore.model.record import reached
from gazecore.training.recipes import Course, SplitConfig
from jobs.command import keeping, run_command, typed
from jobs.console import LOADING, err, progress_bar, show_rows


@dataclass(frozen=True)
class TrainOptions(Course):
    """Train a mixture of readouts by maximum likelihood, and write it as a model bundle.

    With --folds, every image is scored by members that have not seen it: out_of_fold.parquet beside
    the bundle has the scores, out_of_fold/ the densities, for `gazecore evaluate --run`. Otherwise
    a part of the images is held out and judges the result. Progress, curves and checkpoints are in
    MODEL.training beside the bundle; the same command again continues. Give every bundle a folder
    of its own.
    """

    cache: Positional[
        Annotated[tuple[str, ...], arg(metavar="CACHE...", help_behavior_hint="(required)")]
    ]
    """Feature caches that `gazecore features` made, trained on together. Local or fsspec URIs."""
    pretrain: Annotated[tuple[str, ...], arg(help_behavior_hint="(optional)")] = ()
    """Train --members readouts on these caches first, from which the others start in turn, and go
    on with them beside the others, so that nothing is forgotten. The first of the --parts of each
    is held out."""
    split: OmitArgPrefixes[SplitConfig] = field(default_factory=SplitConfig)
    spread: OmitArgPrefixes[WorkersConfig] = field(default_factory=WorkersConfig)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    command = typed("train", argv)
    run_command("train", TrainOptions, lambda options: train(options, command), argv)


def train(options: TrainOptions, command: str) -> int:
    """Train and print; the bundle names the command that made it."""
    with err.status(LOADING):
        from cluster.logs import configure_logging
        from cluster.training_driver import RayTraining
        from cluster.training_progress import TrainingProgress
        from gazecore.training import course
        from gazecore.training.history import History
        from gazecore.training.outputs import Outputs

    configure_logging(options.out)
    checkpoints = Outputs(options.out).training

    def kept() -> str:
        if not options.spread.workers:
            return "nothing is kept, as --workers 0 keeps no checkpoints"
        return f"checkpoints are kept in {checkpoints.uri}, the same command continues"

    def progress(stage: str, members: int, images: int, epochs: int) -> TrainingProgress:
        return TrainingProgress(stage, members, images, epochs, err, History(checkpoints))

    with keeping(kept), RayTraining(options.spread) as ray:
        trained = course.train(options, command, ray.members, progress, progress_bar)
    if seen := trained.seen:
        err.print(f"caution: {len(seen)} of the held-out images trained what members started from")
    show_rows(
        [(f"left out: {image}", why) for image, why in trained.failed.items()]
        + reached(trained.bundle.metrics)
        + trained.outputs.rows(bool(options.split.folds))
    )
    return 0


if __name__ == "__main__":
    main()
