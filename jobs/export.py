"""Results and corpora as files that other programs read."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from gazecore.errors import InputError
from gazecore.wording import counted, printable
from jobs.command import run_command
from jobs.console import err, out, progress_bar

if TYPE_CHECKING:
    from gazecore.results.status import Status
    from gazecore.storage import Location


_ONLY = {
    "map": ("png", "huggingface", "fiftyone"),
    "without_images": ("huggingface",),
    "file": ("overlay", "heatmap"),
    "size": ("overlay", "heatmap"),
    "bare": ("overlay", "heatmap"),
    "transparent": ("overlay", "heatmap"),  # where the first says more
}
"""The formats to which an option means something, where that is not all of them."""

_MADE = {"overlay": "pictures", "heatmap": "pictures", "fiftyone": "samples", "huggingface": "rows"}
"""What is made of each image, where it is no density."""


@dataclass(frozen=True)
class ExportOptions:
    """Write a run's densities, or a corpus, for other programs.

    SOURCE is a run:
    --format pysaliency makes OUT one HDF5 file with a full-size log density for each image, for
    pysaliency's HDF5Model and the MIT/Tuebingen benchmark;
    --format png makes OUT a folder with a grey saliency map of the image's size for each image;
    --format npz makes OUT a folder with a full-size log density for each image, for NumPy;
    --format huggingface makes OUT a folder that `datasets.load_dataset` opens, with the images,
    which are read again, grey saliency maps and the statistics;
    --format fiftyone makes OUT a folder that FiftyOne opens as a FiftyOneDataset, likewise; local
    images stay where they are;
    --format overlay and heatmap make OUT a folder with a picture to look at of each image, which
    is read again.
    The same command again replaces what it wrote.

    SOURCE is a corpus: --format pysaliency makes OUT a folder with stimuli.hdf5 and fixations.hdf5.
    """

    source: Positional[Annotated[str, arg(metavar="SOURCE")]]
    """The run or the corpus, local or any fsspec URI."""
    format: Literal["pysaliency", "png", "npz", "huggingface", "fiftyone", "overlay", "heatmap"]
    """HDF5 for pysaliency, grey maps, arrays, data sets, or pictures to look at:
    the image with contours and peaks, or with colours."""
    out: str
    """The file or folder to write, local or any fsspec URI; for a corpus, a local folder."""
    map: Literal["density", "ranks"] = "density"
    """What grey is in a saliency map. `density`: proportional to it, 255 at its maximum, as eyes
    and most metrics expect, but much of the image is 0. `ranks`: histogram-equalised, so that 8
    bits keep the order of the pixels, which is all that AUC sees."""
    file: Literal["png", "webp", "jpeg"] = "png"
    """Of overlays and heat maps: what files they are."""
    size: int = 1024
    """Of overlays and heat maps: pixels of the longer side at most, without the legend."""
    bare: bool = False
    """Leave out the legend below each picture, of overlays and heat maps."""
    transparent: bool = False
    """Of heat maps: colours alone, without the image, to be laid over it."""
    without_images: bool = False
    """Of the format huggingface: do not read the images again; they are left out."""
    overwrite: bool = False
    """Replace files that are there and that gazecore did not make."""
    partial: bool = False
    """Export a run that is not finished: the images that are scored so far."""

    def __post_init__(self) -> None:
        for field in fields(self):
            means_nothing = self.format not in _ONLY.get(field.name, (self.format,))
            if means_nothing and getattr(self, field.name) != field.default:
                name = field.name.replace("_", "-")
                raise InputError(f"--{name} means nothing to the format {self.format}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command("export", ExportOptions, export, argv)


def export(options: ExportOptions) -> int:
    """Export whichever SOURCE is."""
    from gazecore.storage import Location

    source, target = Location(options.source), Location(options.out)
    if (source / "run.json").exists():
        return export_run(source, target, options)
    if (source / "images.parquet").exists():
        return export_corpus(target, options)
    raise InputError(
        f"{source.uri} is neither a run (it has no run.json) nor a corpus (no images.parquet)"
    )


def export_run(source: "Location", target: "Location", options: ExportOptions) -> int:
    """Write a run in the format, and report; images that cannot be read any more are named."""
    from gazecore.results.reader import Results
    from gazecore.results.run import open_run

    results, format = Results(open_run(source)), options.format
    asked: Any = {
        "overwrite": options.overwrite, "partial": options.partial, "steps": progress_bar,
    }  # fmt: skip
    if format == "overlay" or format == "heatmap":
        from gazecore.view.bulk import PictureOptions, export_pictures

        drawn = PictureOptions(options.file, options.size, not options.bare, options.transparent)
        written = export_pictures(results, target, format, drawn, **asked)
    elif format == "fiftyone":
        from gazecore.results.fiftyone import export_samples

        written = export_samples(results, target, options.map, **asked)
    elif format == "huggingface":
        from gazecore.results.huggingface import export_dataset

        images = not options.without_images
        written = export_dataset(results, target, options.map, images=images, **asked)
    else:
        from gazecore.results.export import export_run

        written = export_run(results, target, format, options.map, **asked)
    for image_id, why in written.unread.items():
        err.print(f"{printable(image_id)}: {why}", soft_wrap=True)
    out.print(f"{counted(written.made, _MADE.get(format, 'densities'))} in {target.uri}",
              soft_wrap=True)  # fmt: skip
    say_left_out(written.status)
    return 1 if written.unread else 0


def say_left_out(found: "Status") -> None:
    """Which images of a run have no density."""
    if found.failed:
        out.print(f"left out: {counted(found.failed, 'images')} that failed, without a density")
    if found.gone:
        out.print(f"left out: {counted(found.gone, 'images')} no longer in the input")
    if found.missing:
        out.print(f"left out: {counted(found.missing, 'images')} not scored yet")


def export_corpus(target: "Location", options: ExportOptions) -> int:
    """Write pysaliency's pair of files, and report."""
    from gazecore.corpus.pysaliency_hdf5 import export_corpus
    from gazecore.corpus.schema import load_corpus

    if options.format != "pysaliency" or options.partial:
        raise InputError("a corpus is exported with --format pysaliency, and as a whole")
    corpus = load_corpus(options.source)
    export_corpus(corpus, target, overwrite=options.overwrite)
    out.print(
        f"{counted(corpus.images.num_rows, 'images')}, "
        f"{counted(corpus.fixations.num_rows, 'fixations')} in {target.uri}",
        soft_wrap=True,
    )
    return 0


if __name__ == "__main__":
    main()
