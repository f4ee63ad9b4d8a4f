"""What a file is that is no image, or none that is read here."""

import struct

from gazecore.images.metadata import tiff_directory

_SAMPLES = {1: "unsigned", 2: "signed", 3: "float", 5: "complex", 6: "complex float"}
_SIGNATURES = (
    (0, b"8BPS", "a Photoshop file"),
    (0, b"%PDF", "a PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"JXL ", "JPEG XL"),
    (0, b"\0\5\x16\x07", "a resource fork of macOS, not the image beside it"),
    (0, b"PK\3\4", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"\x1a\x45\xdf\xa3", "a video"),
    (0, b"version https://git-lfs", "a pointer of Git LFS, not the image"),
    (0, b"#?RADIANCE", "a Radiance HDR image"),
    (0, b"v/1\1", "an OpenEXR image"),
    (0, b"\0\0\1\0", "an icon"),
)
_BRANDS = {
    b"heic": "HEIF/HEIC", b"heix": "HEIF/HEIC", b"heim": "HEIF/HEIC", b"heis": "HEIF/HEIC",
    b"hevc": "HEIF/HEIC", b"hevx": "HEIF/HEIC", b"mif1": "HEIF/HEIC", b"msf1": "HEIF/HEIC",
    b"crx ": "a camera's raw file", b"isom": "a video", b"mp41": "a video", b"mp42": "a video",
    b"qt  ": "a video",
}  # fmt: skip

KINDS = {"heif": "HEIF/HEIC", "jxl": "JPEG XL"}
"""What is read by an extra."""


def kind_of(data: bytes) -> str:
    """What a file is that cannot be read as an image, in words; empty where nobody knows."""
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12], "")
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _tiff_kind(data)
    text = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    if text.startswith((b"<?xml", b"<svg")):
        return "an SVG drawing" if b"<svg" in text else "XML"
    for at, signature, words in _SIGNATURES:
        if data[at : at + len(signature)] == signature:
            return words
    return ""


def _tiff_kind(data: bytes) -> str:
    try:
        order, _, entries, layout = tiff_directory(data)
        start = struct.calcsize(order + layout[1])
        found = dict[int, int]()
        for entry in entries:
            tag, kind, count = struct.unpack_from(order + layout[1], entry)
            letter = {1: "B", 3: "H", 4: "I", 16: "Q"}.get(kind)
            if letter and count:
                width = struct.calcsize(letter) * count
                fits = width <= len(entry) - start
                link = struct.unpack_from(order + ("Q" if len(entry) == 20 else "I"), entry, start)
                source, at = (entry, start) if fits else (data, link[0])
                (found[tag],) = struct.unpack_from(order + letter, source, at)
    except (struct.error, IndexError):
        return "a TIFF whose directory is cut"
    return (
        f"a TIFF of {found.get(277, 1)} x {found.get(258, 1)} bits, "
        f"{_SAMPLES.get(found.get(339, 1), 'of unknown form')}, "
        f"{'little' if order == '<' else 'big'}-endian, photometric {found.get(262, '?')}, "
        f"compression {found.get(259, 1)}"
    )
