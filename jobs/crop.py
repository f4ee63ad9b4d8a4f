"""Where to crop images so that most of the fixations are kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, UseAppendAction, arg

from gazecore.wording import counted
from jobs.command import run_command
from jobs.console import progress_bar, show_rows
from jobs.tables import show_answer
from jobs.tasks import on_cluster

_COLUMNS = ["image_id", "aspect", "x", "y", "share", "center_share"]


@dataclass(frozen=True)
class CropOptions:
    """Find for each image of a run the box of a ratio that keeps most of the predicted fixations.

    Leaves a row for each image and ratio in OUT: the box, the share that it keeps beside that of a
    central box of the same size, and a focal point in 0 to 1 as content systems store it.
    """

    run: Positional[Annotated[str, arg(metavar="RUN")]]
    """The run directory, local or any fsspec URI."""
    aspect: UseAppendAction[tuple[str, ...]]
    """A ratio of width to height, such as 16:9; may be given several times."""
    out: str
    """The Parquet file to write, local or any fsspec URI."""
    files: str | None = None
    """A folder for the pieces: upright, in the images' own formats, beach-16x9.jpg of beach.jpg."""
    least_scale: float = 1.0
    """By default a box is the largest of its ratio. With 0.5, it is the smallest that keeps enough,
    and no smaller than half of the largest one's sides."""
    keep: float = 0.95
    """What is enough for a smaller box: this part of what the largest keeps."""
    margin: float = 0.0
    """Fixations nearer to a cut side than this part of it do not speak for a box, below 0.5."""
    address: str | None = None
    """A Ray cluster that shares the work, HOST:PORT or `auto`. By default the one that this runs in
    (`ray job submit`), else this process alone."""
    overwrite: bool = False
    """Replace files that gazecore did not make; never an image of the run."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command("crop", CropOptions, crop, argv)


def crop(options: CropOptions) -> int:
    """Find, write and report."""
    import pyarrow as pa

    from gazecore.crops.measure import CROPS, crop_run
    from gazecore.density.crops import CropConfig
    from gazecore.errors import InputError
    from gazecore.results.run import open_run
    from gazecore.storage import Location

    try:
        config = CropConfig(options.least_scale, options.keep, options.margin)
    except ValueError as error:
        raise InputError(str(error)) from error
    with on_cluster(options.address) as tasks:
        found = crop_run(
            open_run(Location(options.run)), options.aspect, Location(options.out), config,
            Location(options.files) if options.files else None,
            overwrite=options.overwrite, steps=progress_bar, tasks=tasks,
        )  # fmt: skip
    show_answer(pa.Table.from_pylist(found.first, CROPS).select(_COLUMNS))
    rows = [("images", f"{found.images:,}")]
    if found.status.missing:
        rows.append(("left out", f"{counted(found.status.missing, 'images')} not scored yet"))
    for aspect, kept in found.kept.items():
        central = found.central[aspect]
        rows.append((aspect, f"keeps {kept:.1%} of the fixations, a central crop {central:.1%}"))
    rows.append(("table", found.out.uri))
    if options.files:
        rows.append(("files", f"{found.files:,} in {Location(options.files).uri}"))
    if found.failed:
        rows.append(("not cut", f"{counted(found.failed, 'files')}; their rows say why"))
    show_rows(rows)
    return 1 if found.failed else 0


if __name__ == "__main__":
    main()
