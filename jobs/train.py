"""Train a readout on cached features."""

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

from rich.progress import track
from tyro.conf import Positional, arg

from gazecore.corpus.schema import load_corpus
from gazecore.features.cache import FeatureCache
from gazecore.model.bundle import parse_bundle
from gazecore.model.deepgaze import DeepGaze
from gazecore.scoring.evaluate import evaluate
from gazecore.storage import Location
from gazecore.training.fit import SplitConfig, fit_bundle
from gazecore.training.loop import Epoch, TrainingConfig
from jobs.command import err, out, run_command


@dataclass(frozen=True)
class TrainOptions:
    """Train a mixture of readouts on cached features.

    It is judged on images that took no part, and written as a model bundle. Takes some minutes for
    each member and a few hundred images.
    """

    cache: Positional[Annotated[str, arg(metavar="CACHE")]]
    """A feature cache that `gazecore features` made."""
    corpus: str
    """The corpus it was made of, with the fixations."""
    out: str
    """The bundle to write, MODEL.safetensors."""
    name: str = "corpus"
    """What the bundle calls the corpus."""
    split: SplitConfig = field(default_factory=SplitConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    command = shlex.join(["gazecore", "train", *arguments])
    run_command("train", TrainOptions, lambda options: train(options, command), argv)


def train(options: TrainOptions, command: str) -> int:
    """Load, train, judge, write; the bundle names the command that made it."""

    def show(member: int, epoch: Epoch) -> None:
        err.print(
            f"member {member}/{options.split.members}  "
            f"epoch {epoch.number}/{options.training.epochs}  loss {epoch.loss:.4f} nat  "
            f"information gain {epoch.information_gain:.4f} bit, best {epoch.best:.4f}"
        )

    corpus = load_corpus(options.corpus)
    bundle = fit_bundle(
        FeatureCache(options.cache), corpus, options.name, options.split, options.training, show
    )
    # Judged from the file's own bytes, through the pixels, as every user will run it.
    model = DeepGaze.load(parse_bundle(bundle.to_bytes(), options.out))
    held_out = list(bundle.training["held_out_images"])
    steps = iter(track(held_out, "held-out images", console=err))
    reached = evaluate(model, corpus, held_out, on_image=lambda: next(steps, None))
    final = dataclasses.replace(
        bundle,
        training={**bundle.training, "command": command},
        metrics={**bundle.metrics, "held_out": dataclasses.asdict(reached)},
    )
    Location(options.out).publish(final.to_bytes())
    out.print(
        f"{options.out}: information gain {reached.information_gain:.3f} bit per fixation over the "
        f"centre bias, AUC {reached.auc:.4f}, on {reached.images} held-out images",
        soft_wrap=True,
    )
    return 0


if __name__ == "__main__":
    main()
