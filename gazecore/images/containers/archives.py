"""Tar and zip files: what is in them, and a member's bytes from the bytes that hold it.

Nothing is unpacked to a disk, and links and devices are not followed.
"""

import io
import stat
import struct
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from threading import Event
from typing import Any

from gazecore.errors import DecodeError, GazecoreError, StorageError, one_line
from gazecore.images.containers import TAR_HEADER, Entry, Kind, Place
from gazecore.images.containers.ranges import Gunzip, RangeFile

LINKS = "links, devices and sparse files in archives"
OUTSIDE = "names that lead out of their archives"
REPLACED = "replaced by a later member of the same name"
"""Reasons for leaving members out."""

_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_LONGEST = 2 * 65535
"""Bytes of the longest name and extra field of a zip's member."""


def entries(
    uri: str, kind: Kind, left_out: Counter[str], stop: Event | None = None
) -> Iterator[Entry]:
    """The files in an archive, in the order of their bytes; of several of one name the last.

    Args:
        uri: of the archive.
        kind: `tar`, `tar.gz` or `zip`.
        left_out: counts, by reason, the members that are none.
        stop: where it is set, nobody waits for what is found.

    Raises:
        StorageError: it is broken; what was yielded until then is there.
        NotFound, AccessDenied, StorageUnavailable: as `fetch`.
    """
    file = RangeFile(uri)
    found: dict[str, Entry] = {}
    broken: Exception | None = None
    try:
        members = _zip_entries(file) if kind == "zip" else _tar_entries(file, kind)
        for name, entry in members:
            if stop and stop.is_set():
                break
            if entry is None:
                left_out[LINKS] += 1
            elif name.startswith("/") or ".." in name.split("/"):
                left_out[OUTSIDE] += 1
            else:
                if found.pop(name, None):
                    left_out[REPLACED] += 1
                found[name] = entry
    except Exception as error:  # the libraries raise nearly everything on broken archives
        broken = file.error or error
    yield from found.values()
    if isinstance(broken, GazecoreError):
        raise broken
    if broken:
        raise StorageError(f"the {kind} is broken: {one_line(broken)}") from broken


class _Headers:
    """A tar's file, of which only headers are read.

    Attributes:
        last: what was read last.
    """

    def __init__(self, file: io.RawIOBase) -> None:
        self._file, self.last = file, b""
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if size > 2**20:
            raise tarfile.ReadError(f"a header of {size} bytes")
        self.last = self._file.read(size) or b""
        return self.last


def _tar_entries(file: RangeFile, kind: Kind) -> Iterator[tuple[str, Entry | None]]:
    headers: Any = _Headers(Gunzip(file) if kind == "tar.gz" else file)
    with tarfile.open(fileobj=headers, mode="r:", encoding="utf-8", errors="replace") as archive:
        while (info := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # which would hold all
            if info.isdir():
                continue
            name = _plain(info.name)
            if not info.isreg() or info.sparse is not None:
                yield name, None
                continue
            start = info.offset_data - TAR_HEADER
            yield name, Entry(name, info.size, Place(start, TAR_HEADER + info.size))
    if headers.last.strip(b"\0"):  # where the library sees an end, too
        raise tarfile.ReadError("what follows its last member is no header")


def _zip_entries(file: RangeFile) -> Iterator[tuple[str, Entry | None]]:
    with zipfile.ZipFile(file) as archive:
        infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
        ends = [*(info.header_offset for info in infos[1:]), archive.start_dir]
    for info, end in zip(infos, ends, strict=True):
        if info.is_dir():
            continue
        name, mode = _plain(info.filename), info.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            yield name, None
            continue
        most = _LOCAL.size + _LONGEST + info.compress_size
        length = max(0, min(end - info.header_offset, most))
        yield name, Entry(name, info.file_size, Place(info.header_offset, length))


def _plain(name: str) -> str:
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return name


def member_bytes(kind: Kind, record: bytes, name: str | None, size: int) -> bytes | None:
    """A member from the bytes of its place; None where they hold something else.

    Args:
        kind: of the archive.
        record: the bytes.
        name, size: the member's; None: whatever it is called there.

    Raises:
        StorageError: they are compressed in a way that is not read here, or encrypted.
        DecodeError: they are damaged.
    """
    if kind == "zip":
        return _from_zip(record, name, size)
    try:
        info = tarfile.TarInfo.frombuf(record[:TAR_HEADER], "utf-8", "replace")
    except tarfile.HeaderError:
        return None
    if not info.isreg() or info.size != size or len(record) != TAR_HEADER + size:
        return None
    return record[TAR_HEADER:]


def _from_zip(record: bytes, name: str | None, size: int) -> bytes | None:
    if len(record) < _LOCAL.size:
        return None
    signature, _, flags, method, _, _, crc, _, _, names, extra = _LOCAL.unpack_from(record)
    start = _LOCAL.size + names + extra
    there = record[_LOCAL.size :][:names].decode("utf-8" if flags & 0x800 else "cp437", "replace")
    if signature != b"PK\3\4" or name not in (None, _plain(there)):
        return None
    if flags & 0x1:
        raise StorageError("it is encrypted")
    if method == zipfile.ZIP_STORED:
        data = record[start : start + size]
    elif method == zipfile.ZIP_DEFLATED:
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(record[start:], size + 1)
        except zlib.error as error:
            raise DecodeError(f"its compression is damaged: {error}") from error
    else:
        raise StorageError(f"it is compressed by zip's method {method}, which is not read here")
    # Where it was written in one go, its checksum is only in the zip's directory.
    if len(data) != size or (not flags & 0x8 and zlib.crc32(data) != crc):
        raise DecodeError("it is damaged: its length or checksum is not that of its zip")
    return data
