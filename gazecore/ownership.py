"""Whose a file is: what gazecore made it may replace, and nothing else."""

import hashlib
import io
import zipfile
from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from gazecore.errors import GazecoreError, InputError
from gazecore.storage import Location

MADE_BY = "gazecore"
"""What pictures (their text `Software`), HDF5, Parquet and JSON files (`made_by` in them) and
.npz files (an array of that name) say."""

SOFTWARE = 0x0131
"""The EXIF tag in which JPEGs and WebPs say it."""

_HEAD = 2**16


def refuse_foreign(
    targets: Iterable[Location], is_ours: Callable[[Location], bool], overwrite: bool = False
) -> None:
    """Raise InputError where a file that is to be written is there, and is not gazecore's.

    Args:
        targets: files to be written.
        is_ours: whether gazecore made a file that is there.
        overwrite: what is there was said to be replaced.
    """
    for target in () if overwrite else targets:
        if target.exists() and not is_ours(target):
            raise InputError(
                f"{target.uri} is there, and gazecore did not make it: name another --out, or move "
                "it away"
            )


def is_our_picture(location: Location) -> bool:
    """Whether gazecore drew a PNG, a JPEG or a WebP."""
    with location.fs.open(location.path, "rb") as file:
        head: bytes = file.read(_HEAD)
        if head.startswith(b"\x89PNG"):
            return f"tEXtSoftware\0{MADE_BY}".encode() in head
        file.seek(0)
        try:
            with Image.open(file, formats=("JPEG", "WEBP")) as picture:
                return bool(picture.getexif().get(SOFTWARE) == MADE_BY)
        except Exception:  # whatever a file of others holds
            return False


def is_our_hdf5(location: Location) -> bool:
    """Whether gazecore wrote an HDF5 file."""
    import h5py

    try:
        with location.fs.open(location.path, "rb") as file, h5py.File(file, "r") as content:
            return bool(content.attrs.get("made_by") == MADE_BY)
    except OSError:  # it is no HDF5 file
        return False


def is_our_npz(location: Location) -> bool:
    """Whether gazecore wrote an .npz file."""
    with location.fs.open(location.path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as members, members.open("made_by.npy") as member:
                return str(np.load(io.BytesIO(member.read(_HEAD)), allow_pickle=False)) == MADE_BY
        except Exception:  # whatever a file of others holds
            return False


def signed(text: str) -> str:
    """A text of Markdown with a line that says that gazecore wrote it as it is."""
    return f"{text}\n<!-- {MADE_BY} {hashlib.sha256(text.encode()).hexdigest()} -->\n"


def is_our_text(location: Location) -> bool:
    """Whether a text is `signed`, and nobody changed it since."""
    data = location.read_bytes().decode(errors="replace")
    return data == signed(data.rpartition("\n<!-- ")[0])


def is_our_json(location: Location) -> bool:
    """Whether a JSON file says near its beginning that it was `made_by` gazecore."""
    with location.fs.open(location.path, "rb") as file:
        return f'"made_by": "{MADE_BY}"'.encode() in file.read(_HEAD)


def is_our_parquet(location: Location) -> bool:
    """Whether the metadata of a Parquet file's schema say that gazecore made it."""
    with location.fs.open(location.path, "rb") as file:
        try:
            return (pq.read_schema(file).metadata or {}).get(b"made_by") == MADE_BY.encode()
        except (pa.ArrowException, OSError):
            return False


def is_table_of(schema: pa.Schema) -> Callable[[Location], bool]:
    """Whether a file is a Parquet table with the columns of a schema."""

    def is_ours(location: Location) -> bool:
        try:
            names: list[str] = location.read_parquet(lambda file: file.schema_arrow.names)
        except (OSError, GazecoreError):
            return False
        return names == list(schema.names)

    return is_ours
