"""What is read as an image, and the caps on it. Imports nothing that takes time."""

from dataclasses import dataclass

from gazecore.errors import InputError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "DIB", "AVIF", "PPM", "JPEG2000")
"""What Pillow may try. Formats that run other programs (EPS) or are no photographs stay closed."""

SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".tif", ".tiff",
    ".bmp", ".dib", ".avif", ".pgm", ".ppm", ".pnm", ".pbm", ".jp2", ".j2k",
)  # fmt: skip
"""File names that are taken for images when a folder is listed, in lower case."""

MAX_LIMIT = 2**32
"""What `Limits` can be set to: bytes of the largest TIFF."""


UNREAD_SUFFIXES = (
    ".heic", ".heif", ".hif", ".jxl", ".psd", ".psb", ".svg", ".eps", ".ai", ".pdf", ".ico",
    ".icns", ".exr", ".hdr", ".tga", ".pcx", ".dng", ".cr2", ".cr3", ".nef", ".nrw", ".arw", ".orf",
    ".rw2", ".raf", ".pef", ".srw", ".x3f", ".raw", ".xcf", ".fits", ".dcm",
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
