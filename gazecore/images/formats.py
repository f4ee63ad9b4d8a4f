"""What is read as an image, and the caps on it. Imports nothing that takes time."""

from dataclasses import dataclass
from importlib.util import find_spec

from gazecore.errors import InputError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "DIB", "AVIF", "PPM", "JPEG2000")
"""What Pillow may try. Formats that run other programs (EPS) or are no photographs stay closed."""


@dataclass(frozen=True)
class Optional:
    """A format that a package of its own reads.

    Attributes:
        extra: of gazecore, which installs the package.
        module: of the package.
        name: Pillow's, of the format.
        suffixes: of such files, in lower case.
    """

    extra: str
    module: str
    name: str
    suffixes: tuple[str, ...]

    def is_here(self) -> bool:
        """Whether its package is installed."""
        return find_spec(self.module) is not None


OPTIONAL = (
    Optional("heif", "pillow_heif", "HEIF", (".heic", ".heif", ".hif")),
    Optional("jxl", "pillow_jxl", "JXL", (".jxl",)),
)

SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".tif", ".tiff",
    ".bmp", ".dib", ".avif", ".pgm", ".ppm", ".pnm", ".pbm", ".jp2", ".j2k",
    *(suffix for form in OPTIONAL if form.is_here() for suffix in form.suffixes),
)  # fmt: skip
"""File names that are taken for images when a folder is listed, in lower case."""

MAX_LIMIT = 2**32
"""What `Limits` can be set to: bytes of the largest TIFF."""


UNREAD_SUFFIXES = (
    *(suffix for form in OPTIONAL if not form.is_here() for suffix in form.suffixes),
    ".psd", ".psb", ".svg", ".eps", ".ai", ".pdf", ".ico", ".icns", ".exr", ".hdr", ".tga", ".pcx",
    ".dng", ".cr2", ".cr3", ".nef", ".nrw", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw", ".x3f",
    ".raw", ".xcf", ".fits", ".dcm",
)  # fmt: skip
"""File names of pictures that are not read: they are counted where a folder is listed."""

LITTER_FOLDERS = (
    "__MACOSX", "@eaDir", "#recycle", ".thumbnails", ".thumb", ".Trash", ".Trashes",
    ".Spotlight-V100", ".fseventsd", "$RECYCLE.BIN", "System Volume Information",
    ".picasaoriginals", ".ipynb_checkpoints", ".git", ".svn", ".dtrash", ".AppleDouble",
)  # fmt: skip
LITTER_NAMES = (
    "._*",
    ".trashed-*",
    "*~",
    "~$*",
    ".~lock.*",
    ".DS_Store",
    "Thumbs.db",
    "desktop.ini",
)
"""What systems and programs leave among photographs: folders, and file names."""


def how_to_read(suffix: str) -> str:
    """What to say of a file that is not read, by its name."""
    extra = next((form.extra for form in OPTIONAL if suffix in form.suffixes), None)
    return f"pip install 'gazecore[{extra}]' reads it" if extra else "not read here"


@dataclass(frozen=True)
class Limits:
    """Caps per image, checked before decoding.

    Attributes:
        max_bytes: Bytes of the file.
        max_pixels: Width times height of the image.
    """

    max_bytes: int = 128 * 2**20
    max_pixels: int = 100_000_000

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels"):
            if not 1 <= getattr(self, name) <= MAX_LIMIT:
                raise InputError(
                    f"limits.{name} must be 1 to {MAX_LIMIT:,}, not {getattr(self, name)}"
                )
