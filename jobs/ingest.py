"""Import recorded fixations as a corpus."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from gazecore.corpus.osie import read_osie
from gazecore.storage import Location
from jobs.command import out, run_command


@dataclass(frozen=True)
class IngestOptions:
    """Import a dataset of recorded fixations, in its own layout, as a corpus."""

    kind: Positional[Annotated[Literal["osie"], arg(metavar="KIND")]]
    """The dataset's layout. `osie`: `stimuli/*.jpg` and `fixations.mat`."""
    source: Positional[Annotated[str, arg(metavar="SOURCE")]]
    """Folder or URI of the dataset."""
    out: str
    """Where the corpus goes: `images.parquet` and `fixations.parquet`."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command("ingest", IngestOptions, ingest, argv)


def ingest(options: IngestOptions) -> int:
    """Read, write and report."""
    corpus = read_osie(options.source)
    corpus.save(Location(options.out))
    subjects = len(corpus.fixations["subject"].unique())
    out.print(
        f"{corpus.images.num_rows:,} images, {subjects} subjects, "
        f"{corpus.fixations.num_rows:,} fixations"
    )
    for reason, count in corpus.dropped.items():
        out.print(f"left out: {count:,} {reason}")
    return 0


if __name__ == "__main__":
    main()
