"""Results and corpora as files that other programs read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from rich.progress import MofNCompleteColumn, Progress
from tyro.conf import Positional, arg

from gazecore.errors import InputError
from gazecore.wording import counted
from jobs.command import err, out, run_command

if TYPE_CHECKING:
    from gazecore.storage import Location


@dataclass(frozen=True)
class ExportOptions:
    """Write a run's densities, or a corpus, for other programs.

    SOURCE is a run:
    --format pysaliency makes OUT one HDF5 file with a full-size log density for each image, for
    pysaliency's HDF5Model and the MIT/Tuebingen benchmark;
    --format png makes OUT a folder with a grey saliency map of the image's size for each image.
    The same command again replaces what it wrote.

    SOURCE is a corpus: --format pysaliency makes OUT a folder with stimuli.hdf5 and fixations.hdf5.
    """

    source: Positional[Annotated[str, arg(metavar="SOURCE")]]
    """The run or the corpus, local or any fsspec URI."""
    format: Literal["pysaliency", "png"]
    """HDF5 for pysaliency, or pictures."""
    out: str
    """The file or folder to write, local or any fsspec URI; for a corpus, a local folder."""
    map: Literal["density", "ranks"] = "density"
    """What grey is in a PNG. `density`: proportional to it, 255 at its maximum, as eyes and most
    metrics expect, but much of the image is 0. `ranks`: histogram-equalised, so that 8 bits keep
    the order of the pixels, which is all that AUC sees."""
    overwrite: bool = False
    """Replace files that are there and that gazecore did not make."""
    partial: bool = False
    """Export a run that is not finished: the images that are scored so far."""

    def __post_init__(self) -> None:
        if self.map != "density" and self.format != "png":
            raise InputError(f"--map means nothing to the format {self.format}")


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
    """Write the model file or the maps, and report."""
    from gazecore.hdf5 import import_h5py
    from gazecore.ownership import is_our_hdf5, is_our_picture, refuse_foreign
    from gazecore.results.export import dataset_names, picture_names, write_maps, write_model
    from gazecore.results.reader import Results
    from gazecore.results.run import open_run
    from gazecore.results.status import run_status

    run = open_run(source)
    if f"{target.uri}/".startswith(f"{source.uri}/"):
        raise InputError("--out lies in the run, which holds its own files only: name another")
    if options.format == "pysaliency":
        import_h5py()  # that it is missing is said before anything is read
        if target.fs.isdir(target.path):
            raise InputError(f"{target.uri} is a folder: --out names the HDF5 file to write")
    counts = run_status(run)
    if counts.missing and not options.partial:
        raise InputError(
            f"{counts.missing:,} of {counted(counts.images, 'images')} not scored yet: `gazecore "
            "score` continues the run, --partial exports the others"
        )
    if not counts.ok:
        raise InputError(f"{source.uri} has no densities: no image is scored")
    results = Results(run)
    name = dataset_names if options.format == "pysaliency" else picture_names
    names = name(results.plan()["image_id"].to_pylist())
    ours = is_our_hdf5 if options.format == "pysaliency" else is_our_picture
    targets = [target] if options.format == "pysaliency" else [target / n for n in names.values()]
    with err.status("looking for files of others"):
        refuse_foreign(targets, ours, options.overwrite)
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=err) as progress:
        densities = progress.track(results.densities(), total=counts.ok, description="densities")
        if options.format == "pysaliency":
            count = write_model(densities, names, target)
        else:
            count = write_maps(densities, names, target, options.map)
    out.print(f"{counted(count, 'densities')} in {target.uri}", soft_wrap=True)
    if counts.failed:
        out.print(f"left out: {counted(counts.failed, 'images')} that failed, without a density")
    if counts.missing:
        out.print(f"left out: {counted(counts.missing, 'images')} not scored yet")
    return 0


def export_corpus(target: "Location", options: ExportOptions) -> int:
    """Write pysaliency's pair of files, and report."""
    from gazecore.corpus.pysaliency_hdf5 import write_scanpaths, write_stimuli
    from gazecore.corpus.schema import load_corpus
    from gazecore.ownership import is_our_hdf5, refuse_foreign

    if options.format != "pysaliency" or options.partial:
        raise InputError("a corpus is exported with --format pysaliency, and as a whole")
    if not target.is_local:
        raise InputError(f"{target.uri} is not local: pysaliency's stimuli are local files")
    corpus = load_corpus(options.source)
    files = [target / "stimuli.hdf5", target / "fixations.hdf5"]
    refuse_foreign(files, is_our_hdf5, options.overwrite)
    write_stimuli(corpus, (target / "stimuli.hdf5").path)
    write_scanpaths(corpus, (target / "fixations.hdf5").path)
    out.print(
        f"{counted(corpus.images.num_rows, 'images')}, "
        f"{counted(corpus.fixations.num_rows, 'fixations')} "
        f"in {target.uri}",
        soft_wrap=True,
    )
    return 0


if __name__ == "__main__":
    main()
