"""Train a readout on features."""

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from cluster.layout import WorkersConfig
from gazecore.errors import InputError
from gazecore.model.record import reached
from gazecore.training.recipes import Recipe, SplitConfig, TrainingConfig
from jobs.command import LOADING, err, keeping, progress_bar, run_command, show_rows

if TYPE_CHECKING:
    from cluster.training_progress import TrainingProgress
    from gazecore.model.bundle import ModelBundle
    from gazecore.training.examples import TrainingSet
    from gazecore.training.history import History
    from gazecore.training.outputs import Outputs


@dataclass(frozen=True)
class TrainOptions:
    """Train a mixture of readouts by maximum likelihood, and write it as a model bundle.

    With --folds, every image is scored by members that have not seen it: out_of_fold.parquet beside
    the bundle has the scores, out_of_fold/ the densities, for `gazecore evaluate --run`. Otherwise
    a part of the images is held out and judges the result. Progress, curves and checkpoints are in
    MODEL.training beside the bundle; the same command again continues. Give every bundle a folder
    of its own. The paper's own readout, which reaches less: --training.activation relu --members 1
    """

    cache: Positional[
        Annotated[tuple[str, ...], arg(metavar="CACHE...", help_behavior_hint="(required)")]
    ]
    """Feature caches that `gazecore features` made, trained on together. Local or fsspec URIs."""
    out: str
    """The bundle to write, MODEL.safetensors. Local or any fsspec URI."""
    name: str = "corpus"
    """What the bundle calls the corpus."""
    split: OmitArgPrefixes[SplitConfig] = field(default_factory=SplitConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    init: str | None = None
    """Fine-tune: a bundle (a path, `default`) whose members the new ones start from, in turn. They
    keep its shape."""
    pretrain: str | None = None
    """Train on this cache first: --members readouts, from which the others start in turn. The first
    of its --parts is held out."""
    pretrain_name: str = "corpus"
    """What the bundle calls the corpus of --pretrain."""
    pretraining: TrainingConfig = field(default_factory=TrainingConfig)
    """How the first readouts are trained."""
    spread: OmitArgPrefixes[WorkersConfig] = field(default_factory=WorkersConfig)

    def __post_init__(self) -> None:
        if not self.cache:
            raise InputError("there is nothing to train on: name a feature cache")
        if self.init is not None and self.pretrain is not None:
            raise InputError("members start either from --init or from --pretrain")
        if self.pretrain is not None:
            for name in ("widths", "activation"):
                one, other = getattr(self.training, name), getattr(self.pretraining, name)
                if None not in (one, other) and one != other:
                    raise InputError(
                        f"readouts keep their shape: --training.{name} and --pretraining.{name} "
                        "must be the same; give one of them"
                    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    command = shlex.join(["gazecore", "train", *arguments])
    run_command("train", TrainOptions, lambda options: train(options, command), argv)


def train(options: TrainOptions, command: str) -> int:
    """Open, train, judge, write; the bundle names the command that made it."""
    with err.status(LOADING):
        from cluster.logs import configure_logging
        from cluster.training_driver import RayTraining
        from gazecore.evaluation.held_out import score_held_out
        from gazecore.model.bundle import load_bundle
        from gazecore.training.examples import require
        from gazecore.training.fit import (
            fit_bundle,
            require_enough,
            require_unseen,
            seen_before,
        )
        from gazecore.training.folds import cross_validate
        from gazecore.training.history import History
        from gazecore.training.outputs import Outputs, require_readable

    configure_logging(options.out)
    start = load_bundle(options.init) if options.init else None
    options = settled(options, start)
    outputs, split = Outputs(options.out), options.split
    outputs.refuse_foreign()
    history = History(outputs.training)
    recipe = Recipe(options.name, split, options.training)
    data = _open(options.cache)
    require_enough(data, split)
    if not split.folds:
        require_readable(data, split)
    if start:
        for cache in data.caches:
            require(cache, start.backbone, start.display_size, str(options.init))
        if split.folds:
            require_unseen(data, start.training, str(options.init))
    identity = {
        **dataclasses.asdict(options),
        "corpus": data.fingerprint,
        "started_from": start.fingerprint if start else None,
    }
    del identity["out"], identity["spread"]  # which decide nothing but where and when
    with keeping(lambda: _kept(options, outputs)), RayTraining(options.spread) as ray:
        if options.pretrain:
            other = _open([options.pretrain])
            require(other.caches[0], data.backbone, data.display_size, data.caches[0].uri)
            first = Recipe(
                options.pretrain_name,
                dataclasses.replace(split, folds=None),
                options.pretraining,
            )
            require_enough(other, first.split)
            if split.folds:
                both = {"corpora_sha256": other.digests, "held_out_images": []}
                require_unseen(data, both, options.pretrain)
            identity["pretraining_corpus"] = other.fingerprint
            with _progress("pretraining", other, first, history) as report:
                where = ray.members((options.pretrain,), outputs.training / "pretraining", identity)
                start = fit_bundle(other, first, report, None, where)
            outputs.pretrained.publish(start.to_bytes())
        with _progress("training", data, recipe, history) as report:
            where = ray.members(options.cache, outputs.training / "members", identity)
            if split.folds:
                bundle, folds = cross_validate(data, recipe, report, start, where)
            else:
                bundle, folds = fit_bundle(data, recipe, report, start, where), []
    training = {**bundle.training, "command": command}
    bundle = dataclasses.replace(bundle, training=training)
    if folds:
        with err.status("judging"):
            bundle = outputs.write_cross_validated(bundle, data, folds)
    else:
        with progress_bar("judging", len(training["held_out_images"])) as on_image:
            bundle = outputs.write_held_out(
                bundle,
                lambda model, images: dataclasses.asdict(
                    score_held_out(model, images, data.corpus, on_image)
                ),
            )
    seen = seen_before(data, training["held_out_images"], training.get("started_from", {}))
    if seen:
        err.print(f"caution: {len(seen)} of the held-out images trained what members started from")
    show_rows(
        [(f"left out: {image}", why) for image, why in data.failed.items()]
        + reached(bundle.metrics)
        + outputs.rows(bool(folds))
    )
    return 0


def _kept(options: TrainOptions, outputs: "Outputs") -> str:
    if not options.spread.workers:
        return "nothing is kept, as --workers 0 keeps no checkpoints"
    return f"checkpoints are kept in {outputs.training.uri}, the same command continues"


def settled(options: TrainOptions, start: "ModelBundle | None") -> TrainOptions:
    """The options, with what the bundle to start from decides, or one stage of training for both.

    Raises:
        InputError: a readout of another shape is asked for.
    """
    first, training = options.pretraining, options.training
    if start:
        config = start.readout.config
        training = training.of_shape((config.widths, config.activation))
    elif options.pretrain is not None:
        training = dataclasses.replace(
            training,
            widths=training.widths or first.widths,
            activation=training.activation or first.activation,
        )
        first = first.of_shape(training.shape)
    return dataclasses.replace(
        options,
        training=training.of_shape(training.shape),
        pretraining=first.of_shape(first.shape),
    )


def _open(caches: Sequence[str]) -> "TrainingSet":
    from gazecore.training.examples import open_caches

    with err.status("opening the features"):
        return open_caches(caches)


def _progress(
    stage: str, data: "TrainingSet", recipe: Recipe, history: "History"
) -> "TrainingProgress":
    from cluster.training_progress import TrainingProgress

    split = recipe.split
    count, parts = split.members * (split.folds or 1), split.folds or split.parts
    images = len(data.images) * (parts - 2) // parts  # one part stops, one judges
    return TrainingProgress(stage, count, images, recipe.training.epochs, err, history)


if __name__ == "__main__":
    main()
