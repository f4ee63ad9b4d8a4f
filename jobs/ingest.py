"""Import recorded fixations as a corpus."""

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from gazecore.corpus.bids import BidsOptions, read_bids
from gazecore.corpus.cat2000 import Cat2000Options, read_cat2000
from gazecore.corpus.coco import CocoOptions, read_coco
from gazecore.corpus.collect import OUTSIDE
from gazecore.corpus.eyelink import EyelinkOptions, read_eyelink
from gazecore.corpus.mit1003 import Mit1003Options, read_mit1003
from gazecore.corpus.osie import read_osie
from gazecore.corpus.pysaliency_hdf5 import PysaliencyOptions, read_pysaliency
from gazecore.corpus.salicon import SaliconOptions, read_salicon
from gazecore.corpus.schema import FIXATIONS, IMAGES, Corpus
from gazecore.corpus.table import TableOptions, read_table
from gazecore.errors import InputError
from gazecore.ownership import is_table_of, refuse_foreign
from gazecore.storage import Location
from gazecore.wording import counted
from jobs.command import run_command
from jobs.console import err, out

Kind = Literal[
    "osie", "mit1003", "cat2000", "salicon", "coco", "eyelink", "bids", "pysaliency", "table"
]

_PIXELS = "are x and y pixels of the images as they are here?"
_REMEDIES = {
    "bids": "--bids.shown says how images stood on the screen",
    "eyelink": "--eyelink.shown says how images stood on the screen",
    "table": "if x and y are positions on a screen, give its size by --table.screen, and how "
    "images stood on it by --table.shown; --table.origin says where they count from",
}


@dataclass(frozen=True)
class IngestOptions:
    """Import a dataset of recorded fixations, in its own layout, as a corpus.

    KIND is the layout:
      osie        `stimuli/*.jpg` and `fixations.mat`
      mit1003     the original `ALLSTIMULI` and `DATA`
      cat2000     `trainSet` or `testSet`
      salicon     `.mat` files or JSON
      coco        scanpaths of COCO-FreeView or COCO-Search18
      eyelink     ASC files of EyeLink
      bids        eye tracking in a BIDS dataset
      pysaliency  its HDF5 files
      table       any Parquet, CSV, TSV or text table, with a fixation a row
    """

    kind: Positional[Annotated[Kind, arg(metavar="KIND")]]
    """osie, mit1003, cat2000, salicon, coco, eyelink, bids, pysaliency or table."""
    source: Positional[Annotated[str, arg(metavar="SOURCE")]]
    """Folder or URI of the dataset; of a table, the file."""
    out: str
    """Where the corpus goes: `images.parquet` and `fixations.parquet`."""
    mit1003: Mit1003Options = field(default_factory=Mit1003Options)
    cat2000: Cat2000Options = field(default_factory=Cat2000Options)
    salicon: SaliconOptions = field(default_factory=SaliconOptions)
    coco: CocoOptions = field(default_factory=CocoOptions)
    eyelink: EyelinkOptions = field(default_factory=EyelinkOptions)
    bids: BidsOptions = field(default_factory=BidsOptions)
    pysaliency: PysaliencyOptions = field(default_factory=PysaliencyOptions)
    table: TableOptions = field(default_factory=TableOptions)

    def __post_init__(self) -> None:
        for name in (f.name for f in fields(self) if f.default_factory is not MISSING):
            given = getattr(self, name)
            if name != self.kind and given != type(given)():
                raise InputError(f"--{name} options mean nothing to the kind {self.kind}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command("ingest", IngestOptions, ingest, argv)


def ingest(options: IngestOptions) -> int:
    """Read, write and report."""
    target = Location(options.out)
    if target.uri == Location(options.source).uri:
        raise InputError(f"--out {options.out} is the dataset's own folder: name another")
    for name, schema in (("images", IMAGES), ("fixations", FIXATIONS)):
        refuse_foreign([target / f"{name}.parquet"], is_table_of(schema))
    corpus = read(options)
    corpus.save(Location(options.out))
    subjects = len(corpus.fixations["subject"].unique())
    out.print(
        f"{counted(corpus.images.num_rows, 'images')}, {counted(subjects, 'subjects')}, "
        f"{counted(corpus.fixations.num_rows, 'fixations')}"
    )
    for reason, count in corpus.dropped.items():
        out.print(f"left out: {counted(count, reason)}")
    outside = corpus.dropped.get(OUTSIDE, 0)
    everywhere = outside + corpus.fixations.num_rows
    if outside * 5 > everywhere:
        err.print(
            f"[bold red]caution:[/] {outside:,} of {everywhere:,} fixations lie outside their "
            f"images: {_REMEDIES.get(options.kind, _PIXELS)}",
            markup=True,
            soft_wrap=True,
        )
    return 0


def read(options: IngestOptions) -> Corpus:
    """The corpus, by the importer of its kind."""
    # Images that cannot be used as they are get a copy in the corpus.
    copies = (Location(options.out) / "stimuli").uri
    match options.kind:
        case "osie":
            return read_osie(options.source)
        case "mit1003":
            return read_mit1003(options.source, options.mit1003)
        case "cat2000":
            return read_cat2000(options.source, copies, options.cat2000)
        case "salicon":
            return read_salicon(options.source, options.salicon)
        case "coco":
            return read_coco(options.source, options.coco)
        case "eyelink":
            return read_eyelink(options.source, options.eyelink)
        case "bids":
            return read_bids(options.source, options.bids)
        case "pysaliency":
            return read_pysaliency(options.source, copies, options.pysaliency)
        case "table":
            return read_table(options.source, options.table)


if __name__ == "__main__":
    main()
