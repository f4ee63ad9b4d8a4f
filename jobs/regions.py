"""How much of the fixations falls on parts of images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from gazecore.wording import counted
from jobs.command import run_command
from jobs.console import progress_bar, show_rows
from jobs.tables import show_answer
from jobs.tasks import on_cluster

_COLUMNS = ["image_id", "name", "share", "ratio", "rank", "recorded_share"]


@dataclass(frozen=True)
class RegionsOptions:
    """Measure how much of the fixations falls on parts of a run's images.

    Leaves a row for each region in OUT: its share of the predicted fixations and of the area, the
    ratio of both, its rank in the image, the peak inside, and the chance that a viewer looks there.
    A region is the pixels whose middle lies inside; what leaves the image does not count.
    """

    run: Positional[Annotated[str, arg(metavar="RUN")]]
    """The run directory, local or any fsspec URI."""
    regions: str
    """Boxes in a table (.parquet, .csv or .tsv with image_id, x, y, width, height, and perhaps
    name), COCO's annotations (.json), or a folder of PNG masks named like the images."""
    out: str
    """The Parquet file to write, local or any fsspec URI."""
    corpus: str | None = None
    """A corpus with fixations on the same images: what people did is measured beside."""
    fixations: int = 10
    """The column `chance` is that at least one of so many fixations falls in the region."""
    address: str | None = None
    """A Ray cluster that shares the work, HOST:PORT or `auto`. By default the one that this runs in
    (`ray job submit`), else this process alone."""
    overwrite: bool = False
    """Replace a file that gazecore did not make."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command("regions", RegionsOptions, measure, argv)


def measure(options: RegionsOptions) -> int:
    """Measure, write and report."""
    import pyarrow as pa

    from gazecore.corpus.schema import load_corpus
    from gazecore.regions.files import open_regions
    from gazecore.regions.measure import REGIONS, measure_run
    from gazecore.results.run import open_run
    from gazecore.storage import Location

    run, out = open_run(Location(options.run)), Location(options.out)
    regions = open_regions(Location(options.regions))
    corpus = load_corpus(options.corpus) if options.corpus else None
    with on_cluster(options.address) as tasks:
        found = measure_run(
            run, regions, out, corpus, options.fixations,
            overwrite=options.overwrite, steps=progress_bar, tasks=tasks,
        )  # fmt: skip
    columns = _COLUMNS if corpus else _COLUMNS[:-1]
    show_answer(pa.Table.from_pylist(found.first, REGIONS).select(columns))
    where = f"{counted(found.regions, 'regions')} on {counted(found.images, 'images')}"
    rows = [("measured", where)]
    if found.unmeasured:
        rows.append(("not measured", f"{counted(found.unmeasured, 'regions')}; their rows say why"))
    if found.status.missing:
        rows.append(("left out", f"{counted(found.status.missing, 'images')} not scored yet"))
    if found.correlation is not None:
        of = counted(found.compared, "regions")
        rows.append(("correlation", f"{found.correlation:.3f} of predicted and recorded, {of}"))
    show_rows([*rows, ("table", out.uri)])
    return 0


if __name__ == "__main__":
    main()
