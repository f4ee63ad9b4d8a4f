"""What a file holds beside its pixels, taken out before a decoder meets it.

Profiles, comments, captions, thumbnails and further frames are not needed to see an image, and must
not make it fail, whatever is in them. Two things are read of them: how the image is to be turned,
and what a TIFF's samples mean where Pillow does not ask. Nothing is inflated without a bound.
"""

import contextlib
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from PIL import Image

from gazecore.errors import DecodeError
from gazecore.images import jxl

MAX_SCANS = 256
"""Passes over a progressive JPEG. Encoders make 10 to 20; each can cost a pass over all blocks."""

MAX_PARTS = 2**17
"""Segments, chunks, strips or blocks of a file, of which decoders keep lists."""

ORIENTATION = 0x112

_INFLATED = 2**20
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')
# Those that have a length, and the end. Decoders pass over the others, and what follows one of
# them is no length: taken for it, it would hide scans.
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
_COMMENT = re.compile(rb"#[^\r\n]*[\r\n]?")
_EXIF_ITEM = re.compile(rb"(infe[\2\3]\0\0.(?:..|....)\0\0)Exif", re.DOTALL)
_PARTS = (273, 279, 324, 325)
_TIFF_KEPT = frozenset(
    (254, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324,
     325, 332, 336, 338, 339, 347, 512, 513, 514, 515, 519, 520, 521, 529, 530, 531, 532)
)  # fmt: skip
_WIDTHS = {1: 1, 2: 1, 3: 2, 4: 4, 16: 8}


@dataclass(frozen=True)
class Bare:
    """An image's file without what is not needed.

    Attributes:
        data: a file of the same format that holds the first frame.
        orientation: EXIF's, 1 to 8; None: not looked for here, the decoder may know.
        is_inverted: 0 stands for white, and the decoder is not told so.
        is_unsigned: 32-bit samples go up to 2**32 - 1.
        bits: of a sample of a PNG or a gray TIFF; 8 elsewhere.
        tile: pixels of a TIFF's tile, which is decoded whole however small the image is.
        size: width and height, of a format that is decoded as soon as it is opened.
    """

    data: bytes
    orientation: int | None = None
    is_inverted: bool = False
    is_unsigned: bool = False
    bits: int = 8
    tile: int = 0
    size: tuple[int, int] | None = None


def bare(data: bytes) -> Bare:
    """Take everything but the first frame's pixels out of a file.

    A file that is cut or not understood is left as it is: what is wrong with it is the decoder's
    to say.

    Raises:
        DecodeError: it has more scans or parts than any encoder makes.
    """
    with contextlib.suppress(struct.error, IndexError):  # it is cut: the decoder says so
        if data.startswith(b"\xff\xd8"):
            return _jpeg(data)
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return _png(data)
        if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return _tiff(data)
        if data.startswith((b"GIF87a", b"GIF89a")):
            return _gif(data)
        if data[4:8] == b"ftyp":  # AVIF is turned by its boxes; Pillow would write its EXIF back
            return Bare(_EXIF_ITEM.sub(rb"\1skip", data))
        if data.startswith((jxl.SIGNATURE, jxl.BOXES)):
            stream = jxl.codestream(data)
            return Bare(stream, 1, size=jxl.size(stream))
        if data.startswith((b"P1", b"P2", b"P3")):  # Pillow drops each in time by its block's size
            if data.count(b"#") > MAX_PARTS:
                raise DecodeError(f"it has more than {MAX_PARTS} comments")
            return Bare(_COMMENT.sub(b"", data))
    return Bare(data)


def orientation_of(exif: bytes) -> int | None:
    """The orientation in an EXIF block, 1 to 8; None where it is damaged or does not say."""
    try:
        found = Image.Exif()
        found.load(exif)
        value = found.get(ORIENTATION)
    except Exception:  # damaged in any of the ways in which TIFF directories can be
        return None
    return value if isinstance(value, int) and 1 <= value <= 8 else None


def _jpeg(data: bytes) -> Bare:
    """Without application segments and comments, but for those that say what the colours are."""
    pieces, exif, xmp = [data[:2]], b"", b""
    for start, end in _segments(data):
        marker, body = data[start + 1], data[start + 4 : end]
        if marker == 0xE1 and body.startswith(b"Exif\0"):
            exif = exif or body
        elif marker == 0xE1 and body.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            xmp = body
        if not (0xE1 <= marker <= 0xEF and marker != 0xEE) and marker != 0xFE:
            pieces.append(data[start:end])
    _refuse_scans(data, end)
    pieces.append(data[end:])
    return Bare(b"".join(pieces), orientation_of(exif) or _in_xmp(xmp))


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Where each segment before the first scan begins and ends; the last one is empty.

    What lies between segments is passed over, as decoders do: some cameras pad with zeros.
    """
    position = 2
    for _ in range(MAX_PARTS):
        found = _MARKER.search(data, position)
        if found is None:
            raise IndexError("it has no scan")
        start = found.start()
        if found[0] in (b"\xff\xd8", b"\xff\xd9", b"\xff\xda"):
            yield start, start
            return
        position = start + 2 + max(2, struct.unpack_from(">H", data, start + 2)[0])
        yield start, position
    raise DecodeError(f"it has more than {MAX_PARTS} segments")


def _refuse_scans(data: bytes, position: int) -> None:
    scans = parts = 0
    while (found := _MARKER.search(data, position)) and found[0] != b"\xff\xd9":
        parts += 1
        scans += found[0] == b"\xff\xda"
        if scans > MAX_SCANS or parts > MAX_PARTS:
            raise DecodeError(
                f"it has more than {MAX_SCANS} scans, each a pass over the whole image: "
                "save it again"
            )
        length = data[found.end() : found.end() + 2]
        position = found.end() + (int.from_bytes(length) if len(length) == 2 else 0)


def _png(data: bytes) -> Bare:
    """The critical chunks, and which colour is transparent."""
    pieces, kept_to, position = [data[:8]], 8, 8
    exif, profile, xmp, bits = b"", b"", b"", data[24]
    for _ in range(MAX_PARTS):
        if position + 12 > len(data):
            return Bare(b"".join([*pieces, data[kept_to:]]), 1, bits=bits)
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if kind[0] & 0x20 and kind != b"tRNS":  # ancillary
            pieces.append(data[kept_to:position])
            kept_to = end
            body = data[position + 8 : min(end - 4, position + 8 + _INFLATED)]
            if kind == b"eXIf":
                exif = b"Exif\0\0" + body
            elif body.startswith(b"Raw profile type exif\0"):
                profile = _text(kind, body)
            elif body.startswith(b"XML:com.adobe.xmp\0"):
                xmp = _text(kind, body)
        position = end
        if kind == b"IEND":
            break
    else:
        raise DecodeError(f"it has more than {MAX_PARTS} chunks")
    pieces.append(data[kept_to:end])
    orientation = orientation_of(exif or _from_hex(profile)) or _in_xmp(xmp)
    return Bare(b"".join(pieces), orientation, bits=bits)


def _text(kind: bytes, body: bytes) -> bytes:
    """What a text chunk says, without its keyword, as far as it is bounded."""
    value = body.partition(b"\0")[2]
    is_packed = kind == b"zTXt"
    if kind == b"iTXt":
        is_packed, value = value[:1] == b"\1", value[2:]
        value = value.split(b"\0", 2)[-1]
    elif is_packed:
        value = value[1:]
    if is_packed:
        try:
            return zlib.decompressobj().decompress(value, _INFLATED)
        except zlib.error:
            return b""
    return value


def _from_hex(profile: bytes) -> bytes:
    """An EXIF block in the form that ImageMagick gives it: a heading, its length, hexadecimal."""
    try:
        return bytes.fromhex("".join(profile.decode("latin-1").split("\n")[3:]))
    except ValueError:
        return b""


def _in_xmp(xmp: bytes) -> int:
    found = _XMP_ORIENTATION.search(xmp)
    return int(found[1]) if found else 1


def _tiff(data: bytes) -> Bare:
    """The first directory alone, with the tags that describe its pixels."""
    order, offset, entries, layout = tiff_directory(data)
    kept, values = [], dict[int, int]()
    for entry in entries:
        tag, kind, count = struct.unpack_from(order + layout[1], entry)
        if tag in _PARTS and count > MAX_PARTS:
            raise DecodeError(f"it has more than {MAX_PARTS} strips or tiles")
        if count == 1 and (width := _WIDTHS.get(kind)):
            start = struct.calcsize(order + layout[1])
            part = entry[start : start + width]
            values[tag] = int.from_bytes(part, "little" if order == "<" else "big")
        if tag in _TIFF_KEPT:
            kept.append((tag, entry))
    bits, form = values.get(258, 1), values.get(339, 1)
    is_inverted = values.get(262) == 0 and bits > 8
    if is_inverted:  # Pillow inverts 8 bits, and refuses or forgets what has more
        start = struct.calcsize(order + layout[1])
        one = struct.pack(order + "H", 1)
        kept = [
            (tag, entry[:start] + one + entry[start + 2 :]) if tag == 262 else (tag, entry)
            for tag, entry in kept
        ]
    directory = struct.pack(order + layout[0], len(kept)) + b"".join(e for _, e in kept)
    edited = bytearray(data)
    directory += bytes(layout[2])
    edited[offset : offset + len(directory)] = directory
    orientation = values.get(ORIENTATION, 1)
    found = Bare(bytes(edited), orientation if 1 <= orientation <= 8 else 1)
    return replace(
        found,
        is_inverted=is_inverted,
        is_unsigned=bits == 32 and form == 1,
        bits=bits,
        tile=values.get(322, 0) * values.get(323, 0),
    )


def tiff_directory(data: bytes) -> tuple[str, int, list[bytes], tuple[str, str, int]]:
    """Byte order, and a TIFF's first directory: where it is, its entries, and how it is laid out:
    struct formats of its length and of an entry's head, and bytes of the link to the next."""
    order = "<" if data[:2] == b"II" else ">"
    is_big = 43 in data[2:4]
    (offset,) = struct.unpack_from(order + ("Q" if is_big else "I"), data, 8 if is_big else 4)
    layout = ("Q", "HHQ", 8) if is_big else ("H", "HHI", 4)
    size = 20 if is_big else 12
    (count,) = struct.unpack_from(order + layout[0], data, offset)
    first = offset + struct.calcsize(order + layout[0])
    if count > MAX_PARTS:
        raise IndexError("the directory is cut")
    count = min(count, (len(data) - first) // size)  # decoders read a cut one as far as it goes
    entries = [data[first + i * size : first + (i + 1) * size] for i in range(count)]
    return order, offset, entries, layout


def _gif(data: bytes) -> Bare:
    """Without the comments and application blocks before the first frame."""
    table = 3 * 2 ** (1 + (data[10] & 7)) if data[10] & 0x80 else 0
    position = 13 + table
    head, control, blocks = data[:position], b"", 0
    while data[position] == 0x21:
        start, position = position, position + 2
        while True:
            blocks += 1
            if blocks > 8 * MAX_PARTS:
                raise DecodeError(f"it has more than {8 * MAX_PARTS} blocks before its first frame")
            if not data[position]:
                break
            position += 1 + data[position]
        position += 1
        if data[start + 1] == 0xF9:  # of several, the last is the frame's
            control = data[start:position]
    return Bare(head + control + data[position:], 1)
