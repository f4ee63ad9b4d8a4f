"""Train a readout on cached features."""

import contextlib
import dataclasses
import functools
import io
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import pyarrow.parquet as pq
from tyro.conf import OmitArgPrefixes, Positional, arg

from cluster.session import connected
from cluster.trainer import WorkersConfig, train_members
from gazecore.corpus.schema import load_corpus
from gazecore.errors import InputError
from gazecore.features.cache import FeatureCache
from gazecore.model.bundle import ModelBundle, load_bundle, parse_bundle
from gazecore.model.deepgaze import DeepGaze
from gazecore.model.readout import Readout
from gazecore.scoring.evaluate import evaluate
from gazecore.storage import Location
from gazecore.training.examples import TrainingSet
from gazecore.training.fit import SplitConfig, fit_bundle, pretrain
from gazecore.training.folds import cross_validate
from gazecore.training.loop import TrainMembers, train_here
from gazecore.training.trainer import Epoch, TrainingConfig
from jobs.command import err, out, progress_bar, run_command


@dataclass(frozen=True)
class TrainOptions:
    """Train a mixture of readouts on cached features.

    It is judged on images that took no part, and written as a model bundle. Takes a minute or two
    for each member and a few hundred images. The paper's own readout, which reaches less:
    --training.activation relu --split.members 1
    """

    cache: Positional[Annotated[str, arg(metavar="CACHE")]]
    """A feature cache that `gazecore features` made."""
    corpus: str
    """The corpus it was made of, with the fixations."""
    out: str
    """The bundle to write, MODEL.safetensors; with --split.cross-validate also the scores of all
    images, MODEL.out-of-fold.parquet."""
    name: str = "corpus"
    """What the bundle calls the corpus."""
    split: SplitConfig = field(default_factory=SplitConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    init: str | None = None
    """Fine-tune: a bundle (or `default`) whose members the new ones start from."""
    pretrain_cache: str | None = None
    """Train one readout on this cache first, from which all members start."""
    pretrain_corpus: str | None = None
    """The corpus of --pretrain-cache."""
    pretraining: TrainingConfig = field(default_factory=TrainingConfig)
    """How that readout is trained."""
    spread: OmitArgPrefixes[WorkersConfig] = field(default_factory=WorkersConfig)

    def __post_init__(self) -> None:
        if (self.pretrain_cache is None) != (self.pretrain_corpus is None):
            raise InputError("--pretrain-cache and --pretrain-corpus need each other")
        if self.init is not None and self.pretrain_cache is not None:
            raise InputError("members start either from --init or from pretraining")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    command = shlex.join(["gazecore", "train", *arguments])
    run_command("train", TrainOptions, lambda options: train(options, command), argv)


def train(options: TrainOptions, command: str) -> int:
    """Load, train, judge, write; the bundle names the command that made it."""

    def show(member: int, epoch: Epoch) -> None:
        members = options.split.folds if options.split.cross_validate else options.split.members
        show_epoch(f"member {member}/{members}", options.training, epoch)

    data = TrainingSet(FeatureCache(options.cache), load_corpus(options.corpus))
    with contextlib.ExitStack() as stack:
        if options.spread.workers:
            stack.enter_context(connected(options.spread.address, spare_cpus=1))
        first = start(options, data.cache)
        how = (options.name, options.split, options.training, show, first)
        where = trained_where(options, options.corpus, "members")
        table = None
        if options.split.cross_validate:
            bundle, table = cross_validate(data, *how, where)
        else:
            bundle = fit_bundle(data, *how, where)
    if table:
        scores = os.path.splitext(options.out)[0] + ".out-of-fold.parquet"
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        Location(scores).publish(buffer.getvalue())
        summary = (
            f"{bundle.metrics['out_of_fold_information_gain']:.3f} bit per fixation over the "
            f"centre bias, on the grid, on {table.num_rows} images by members that have not seen "
            f"them: {scores}"
        )
    else:
        bundle, summary = judged(bundle, options)
    final = dataclasses.replace(bundle, training={**bundle.training, "command": command})
    Location(options.out).publish(final.to_bytes())
    out.print(f"{options.out}: information gain {summary}", soft_wrap=True)
    return 0


def start(options: TrainOptions, cache: FeatureCache) -> Readout | None:
    """What the members start from, if not at random."""
    if options.init is not None:
        bundle = load_bundle(options.init)
        cache.require(bundle.backbone, bundle.display_size, options.init)
        return bundle.readout
    if options.pretrain_cache is None or options.pretrain_corpus is None:
        return None
    first = FeatureCache(options.pretrain_cache)
    cache.require(first.backbone, first.display_size, options.pretrain_cache)
    return pretrain(
        TrainingSet(first, load_corpus(options.pretrain_corpus)),
        options.split,
        options.pretraining,
        lambda _, epoch: show_epoch("pretraining", options.pretraining, epoch),
        trained_where(options, options.pretrain_corpus, "pretraining"),
    )


def trained_where(options: TrainOptions, corpus: str, stage: str) -> TrainMembers:
    """What trains members: Ray's workers, with checkpoints beside the bundle, or this process."""
    if not options.spread.workers:
        return train_here
    settings = dataclasses.asdict(options)
    del settings["spread"]  # which decides nothing but the time
    return functools.partial(
        train_members,
        corpus=Location(corpus).uri,
        storage=Location(f"{os.path.splitext(options.out)[0]}.training") / stage,
        identity=settings,
        config=options.spread,
    )


def judged(bundle: ModelBundle, options: TrainOptions) -> tuple[ModelBundle, str]:
    """The bundle with what it reaches on its held-out images, and that in words."""
    # Judged from the file's own bytes, through the pixels, as every user will run it.
    model = DeepGaze.load(parse_bundle(bundle.to_bytes(), options.out))
    held_out = list(bundle.training["held_out_images"])
    corpus = load_corpus(options.corpus)
    with progress_bar("held-out images", len(held_out)) as on_image:
        reached = evaluate(model, corpus, held_out, on_image)
    metrics = {**bundle.metrics, "held_out": dataclasses.asdict(reached)}
    return dataclasses.replace(bundle, metrics=metrics), (
        f"{reached.information_gain:.3f} bit per fixation over the centre bias, "
        f"AUC {reached.auc:.4f}, on {reached.images} held-out images"
    )


def show_epoch(who: str, training: TrainingConfig, epoch: Epoch) -> None:
    """One line on stderr."""
    err.print(
        f"{who}  epoch {epoch.number}/{training.epochs}  loss {epoch.loss:.4f} nat  "
        f"information gain {epoch.information_gain:.4f} bit, best {epoch.best:.4f}"
    )


if __name__ == "__main__":
    main()
