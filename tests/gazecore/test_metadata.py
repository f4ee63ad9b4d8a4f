"""Whatever is beside an image's pixels does not decide whether it can be seen."""

import io
import struct
import time
import zlib
from collections.abc import Callable

import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin

from gazecore.errors import DecodeError, TooLarge
from gazecore.images.decode import decode
from gazecore.images.metadata import MAX_SCANS, bare

LARGE = 3 << 20
"""More than Pillow takes of a text or a profile."""


def photo(width: int = 96, height: int = 64) -> Image.Image:
    pixels = np.random.default_rng(1).integers(0, 255, (8, 12, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def into_jpeg(*segments: bytes) -> bytes:
    data = saved(photo(), "JPEG", quality=95)
    return data[:2] + b"".join(segments) + data[2:]


def chunk(kind: bytes, body: bytes, crc: int | None = None) -> bytes:
    crc = zlib.crc32(kind + body) if crc is None else crc
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)


def into_png(*chunks: bytes, late: bytes = b"") -> bytes:
    data = saved(photo(), "PNG")
    return data[:33] + b"".join(chunks) + data[33:-12] + late + data[-12:]


def into_gif(*extensions: bytes) -> bytes:
    data = saved(photo().quantize(64), "GIF")
    at = 13 + 3 * 2 ** (1 + (data[10] & 7))
    return data[:at] + b"".join(extensions) + data[at:]


def blocks(size: int) -> bytes:
    return (b"\xff" + b"x" * 255) * (size // 255) + b"\0"


BOMB = zlib.compress(bytes(LARGE))
DAMAGED_EXIF = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xee" * 40
# Orientation 6, then a caption of a type that no caption has: not to be written back.
ODD_EXIF = b"Exif\0\0MM\0*" + struct.pack(">I", 8) + struct.pack(
    ">HHHIHHHHIII", 2, 0x112, 3, 1, 6, 0, 0x131, 5, 1, 38, 0
) + struct.pack(">II", 1, 1)  # fmt: skip


@pytest.mark.parametrize(
    ("plain", "dressed"),
    [
        (into_png(), into_png(chunk(b"iCCP", b"p\0\0" + BOMB))),
        (into_png(), into_png(chunk(b"iCCP", b"p\0\7" + BOMB))),
        (into_png(), into_png(chunk(b"zTXt", b"k\0\0" + BOMB))),
        (into_png(), into_png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + BOMB))),
        (into_png(), into_png(chunk(b"zTXt", b"Raw profile type exif\0\0" + BOMB))),
        (into_png(), into_png(*[chunk(b"tEXt", b"k\0" + bytes(1 << 20))] * 70)),
        (into_png(), into_png(late=chunk(b"zTXt", b"k\0\0" + BOMB))),
        (into_png(), into_png(chunk(b"tEXt", b"\xe9", crc=0))),
        (into_png(), into_png(chunk(b"gAMA", b""), chunk(b"cHRM", b"x"), chunk(b"pHYs", b"x"))),
        (into_png(), into_png(chunk(b"eXIf", DAMAGED_EXIF[6:]))),
        (into_png(), into_png(chunk(b"acTL", struct.pack(">II", 3, 0)), chunk(b"fcTL", b"x"))),
        (into_jpeg(), into_jpeg(segment(0xE1, DAMAGED_EXIF))),
        (into_jpeg(), into_jpeg(segment(0xE2, b"ICC_PROFILE\0\xff\xff" + bytes(60_000)))),
        (into_jpeg(), into_jpeg(segment(0xE2, b"MPF\0MM\0*\0\0\0\x08" + b"\xff" * 90))),
        (into_jpeg(), into_jpeg(segment(0xED, b"Photoshop 3.0\x008BIM" + b"\xff" * 90))),
        (into_jpeg(), into_jpeg(*[segment(0xFE, bytes(65_000))] * 64)),
        (into_jpeg(), into_jpeg(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x"))),
        (into_gif(), into_gif(b"\x21\xfe" + blocks(LARGE))),
        (into_gif(), into_gif(b"\x21\xff\x0bNETSCAPE2.0\x01x\0")),
    ],
)  # fmt: skip
def test_whatever_is_only_metadata_changes_nothing(plain: bytes, dressed: bytes) -> None:
    assert len(dressed) > len(plain)
    expected = np.asarray(Image.open(io.BytesIO(plain)).convert("RGB"))
    started = time.monotonic()
    assert np.array_equal(np.asarray(decode(dressed)), expected)
    assert time.monotonic() - started < 20  # some of these took minutes, or time by their square


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("exif", [ODD_EXIF, DAMAGED_EXIF], ids=["odd", "damaged"])
def test_exif_is_read_as_far_as_it_can_be_and_never_written(kind: str, exif: bytes) -> None:
    if kind == "TIFF":  # whose directory is the EXIF block
        tags = tifffile.tifffile.TIFF.TAGS["Orientation"], 6 if exif == ODD_EXIF else 0xEEEE
        buffer = io.BytesIO()
        tifffile.imwrite(
            buffer, np.asarray(photo()), photometric="rgb", software=None,
            extratags=[(tags[0], 3, 1, tags[1], True), (0x131, 5, 1, (1, 1), True)],
        )  # fmt: skip
        data = buffer.getvalue()
    else:
        data = saved(photo(), kind, exif=exif)
    assert decode(data).size == ((64, 96) if exif == ODD_EXIF else (96, 64))


@pytest.mark.parametrize(
    "data",
    [
        into_jpeg(segment(0xE1, b'http://ns.adobe.com/xap/1.0/\0<a tiff:Orientation="6"/>')),
        into_png(chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<a tiff:Orientation="6"/>')),
        into_png(
            chunk(
                b"zTXt",
                b"Raw profile type exif\0\0"
                + zlib.compress(b"\nexif\n   40\n" + ODD_EXIF.hex().encode()),
            )
        ),
        into_png(late=chunk(b"eXIf", ODD_EXIF[6:])),
    ],
    ids=["jpeg-xmp", "png-xmp", "png-raw-profile", "png-after-the-pixels"],
)
def test_an_orientation_is_found_wherever_it_is_kept(data: bytes) -> None:
    assert decode(data).size == (64, 96)


def test_colours_that_application_segments_decide_stay() -> None:
    """Adobe's segment says that inks are inverted, or that RGB is not YCbCr."""
    cmyk = saved(photo().convert("CMYK"), "JPEG", quality=95)
    assert b"Adobe" in bare(cmyk).data
    assert np.array_equal(
        np.asarray(decode(cmyk)), np.asarray(Image.open(io.BytesIO(cmyk)).convert("RGB"))
    )


def scans(count: int, hidden: bytes = b"") -> bytes:
    """A progressive JPEG, its last scan repeated."""
    data = saved(photo(), "JPEG", progressive=True, quality=95)
    last = data.rindex(b"\xff\xda")
    return data[:last] + (hidden + data[last:-2]) * count + data[-2:]


def test_a_jpeg_of_more_scans_than_encoders_make_is_refused_before_it_is_decoded() -> None:
    assert decode(scans(1)).size == (96, 64)
    for hidden in (b"", segment(0xFE, b"\xff\xd9"), segment(0xFE, b"\xff\xda")):
        with pytest.raises(DecodeError, match=f"more than {MAX_SCANS} scans"):
            decode(scans(MAX_SCANS + 1, hidden))


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + segment(0xFE, b"") * 200_000,
        into_png(*[chunk(b"tEXt", b"")] * 200_000),
        into_gif(b"\x21\xfe" + b"\1x" * 1_200_000 + b"\0"),
    ],
    ids=["jpeg", "png", "gif"],
)
def test_a_file_of_more_parts_than_encoders_make_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError, match="more than"):
        decode(data)


def test_a_tiff_of_more_strips_than_encoders_make_is_refused() -> None:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((200_000, 1), np.uint8), rowsperstrip=1)
    with pytest.raises(DecodeError, match="more than 131072 strips"):
        decode(buffer.getvalue())


RAMP = np.linspace(0, 1, 256)[None].repeat(4, axis=0)
GRAY = np.arange(256)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True], ids=["classic", "bigtiff"])
@pytest.mark.parametrize("white", ["minisblack", "miniswhite"])
@pytest.mark.parametrize(
    ("kind", "top"),
    [("u2", 65535), ("u4", 2**32 - 1), ("u4", 65535), ("u4", 255), ("i4", 2**31 - 1),
     ("f4", 1), ("f4", 1.0001), ("f4", 4), ("f4", 255), ("f4", 65535)],
)  # fmt: skip
def test_a_ramp_of_any_samples_is_that_ramp(
    kind: str, top: float, white: str, big: bool, order: str
) -> None:
    buffer = io.BytesIO()
    samples = (RAMP * top).astype(order + kind)
    tifffile.imwrite(buffer, samples, photometric=white, byteorder=order, bigtiff=big)
    if order == ">" and (big or kind == "u4"):  # which Pillow cannot open
        with pytest.raises(DecodeError, match=f"{samples.itemsize * 8} bits, .*, big-endian"):
            decode(buffer.getvalue())
        return
    found = np.asarray(decode(buffer.getvalue()))[0, :, 0].astype(int)
    expected = GRAY[::-1] if white == "miniswhite" else GRAY
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_transparent_gray_of_any_depth_is_white(depth: int) -> None:
    """Written by hand: Pillow does not write gray of 2 and 4 bits."""
    key, other = 1 if depth > 1 else 0, (1 << depth) - 2 if depth > 1 else 1
    row = [key, other] * 8
    packed = int("".join(format(value, f"0{depth}b") for value in row), 2)
    raw = b"\0" + packed.to_bytes(2 * depth)
    data = b"".join([
        b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 1, depth, 0, 0, 0, 0)),
        chunk(b"tRNS", struct.pack(">H", key)), chunk(b"IDAT", zlib.compress(raw)),
        chunk(b"IEND", b""),
    ])  # fmt: skip
    found = np.asarray(decode(data))[0, :, 0].astype(int)
    assert (found[::2] == 255).all()
    assert np.abs(found[1::2] - round(other * 255 / ((1 << depth) - 1))).max() <= 1


def test_a_transparent_colour_of_sixteen_bits_is_white() -> None:
    samples = np.array([[[4000, 8000, 12000], [60000, 100, 40000]]], ">u2")
    data = b"".join([
        b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)),
        chunk(b"tRNS", samples[0, 0].tobytes()),
        chunk(b"IDAT", zlib.compress(b"\0" + samples.tobytes())), chunk(b"IEND", b""),
    ])  # fmt: skip
    assert np.asarray(decode(data))[0].tolist() == [[255] * 3, [60000 >> 8, 0, 40000 >> 8]]


@pytest.mark.parametrize("maxval", [1, 15, 100, 255, 1000, 65535])
def test_a_netpbm_file_of_any_maximum_is_scaled(maxval: int) -> None:
    samples = np.rint(RAMP * maxval)
    kind = ">u2" if maxval > 255 else "u1"
    data = f"P5\n256 4\n{maxval}\n".encode() + samples.astype(kind).tobytes()
    found = np.asarray(decode(data))[0, :, 0].astype(int)
    assert np.abs(found - samples[0] * 255 / maxval).max() <= 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: bytes(4) + b"ftypheic" + bytes(40), "HEIF/HEIC"),
        (lambda: b"<!DOCTYPE html><html><body>404</body></html>", "a web page"),
        (lambda: b'<?xml version="1.0"?><svg/>', "an SVG drawing"),
        (lambda: b"%PDF-1.7", "a PDF"),
        (lambda: b"8BPS" + bytes(40), "a Photoshop file"),
        (lambda: b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (lambda: rgb_tiff("<f4"), "3 x 32 bits, float, little-endian"),
        (lambda: rgb_tiff(">f8"), "3 x 64 bits, float, big-endian"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_called_by_its_name(make: Callable[[], bytes], words: str) -> None:
    with pytest.raises(DecodeError, match=words):
        decode(make())


def rgb_tiff(kind: str) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((4, 4, 3), kind), photometric="rgb", byteorder=kind[0])
    return buffer.getvalue()


def test_a_cut_file_is_never_more_than_a_decode_error() -> None:
    whole = [
        into_png(chunk(b"eXIf", ODD_EXIF[6:])),
        into_jpeg(segment(0xE1, ODD_EXIF)),
        into_gif(b"\x21\xfe" + blocks(1000)),
        rgb_tiff("<u2"),
        saved(photo(), "TIFF"),
        PngImagePlugin._MAGIC,
    ]
    for data in whole:
        for end in range(1, min(len(data), 400)):
            try:
                decode(data[:end])
            except DecodeError:
                continue


def oriented(value: int) -> bytes:
    exif = Image.Exif()
    exif[0x112] = value
    return exif.tobytes()


XMP_6 = b'http://ns.adobe.com/xap/1.0/\0<a tiff:Orientation="6"/>'


@pytest.mark.parametrize(
    "data",
    [
        into_jpeg(segment(0xE1, oriented(1)), segment(0xE1, XMP_6)),
        into_jpeg(segment(0xE1, oriented(1)), segment(0xE1, oriented(6))),
        into_png(
            chunk(b"eXIf", oriented(1)[6:]),
            chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<a tiff:Orientation="6"/>'),
        ),
    ],
    ids=["jpeg-xmp", "jpeg-second-exif", "png-xmp"],
)
def test_an_orientation_of_exif_counts_before_any_other(data: bytes) -> None:
    """Who turns the pixels and sets EXIF's to 1 often leaves XMP's as it was."""
    assert decode(data).size == (96, 64)


@pytest.mark.parametrize("padding", [b"\0\0", b"\xff\xff", b"\0\xff\0", b"junk"])
def test_padding_between_segments_hides_nothing(padding: bytes) -> None:
    assert decode(into_jpeg(segment(0xFE, b"x"), padding, segment(0xE1, ODD_EXIF))).size == (64, 96)


def test_odd_exif_of_avif_is_not_written_back() -> None:
    room = b"\xaa" * 120
    data = saved(photo(), "AVIF", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0" + room)
    at = data.index(room) - 14
    assert data[at : at + 4] == b"MM\0*"
    odd = data[:at] + ODD_EXIF[6:] + data[at + len(ODD_EXIF) - 6 :]
    assert decode(odd).tobytes() == decode(saved(photo(), "AVIF")).tobytes()


@pytest.mark.parametrize("turn", [6, 8, 3])
def test_avif_is_turned_by_its_own_boxes(turn: int) -> None:
    data = saved(photo(), "AVIF", exif=oriented(turn))
    assert decode(data).size == ((96, 64) if turn == 3 else (64, 96))


def test_scans_do_not_hide_behind_a_marker_without_length() -> None:
    """Each is followed by what would be a length, long enough to pass over thousands of scans."""
    data = saved(photo().convert("L"), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    for marker in (b"\xff\x01", b"\xff\x02", b"\xff\xbf"):
        hidden = marker + data[last:-2] * (MAX_SCANS + 1)
        with pytest.raises(DecodeError, match=f"more than {MAX_SCANS} scans"):
            decode(data[:last] + hidden + data[-2:])


@pytest.mark.parametrize("extension", [b"\x21\xf9\0", b"\x21\xfe\0"])
def test_empty_extensions_of_a_gif_are_counted(extension: bytes) -> None:
    with pytest.raises(DecodeError, match="more than 1048576 blocks"):
        decode(into_gif(extension * 1_100_000))


@pytest.mark.parametrize("maximum", ["255", "255 # the largest"])
def test_comments_in_plain_netpbm_cost_no_time(maximum: str) -> None:
    comments = b"#x\n" * 130_000  # took Pillow seconds
    data = f"P2 # kind\n2 1 # size\n{maximum}\n".encode() + b"7\n" + comments + b"9 "
    started = time.monotonic()
    assert np.asarray(decode(data))[0, :, 0].tolist() == [7, 9]
    assert time.monotonic() - started < 3


def tiff(
    samples: bytes, bits: int, form: int = 1, white: int = 1, is_linked: bool = True,
    width: int = 256, extra: tuple[tuple[int, int], ...] = (),
) -> bytes:  # fmt: skip
    """A gray TIFF of one row, its directory last; written by hand, as Pillow writes few kinds."""
    tags = {
        256: width, 257: 1, 258: bits, 259: 1, 262: white, 273: 8, 277: 1, 278: 1,
        279: len(samples), 339: form, **dict(extra),
    }  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    directory = struct.pack("<H", len(tags)) + entries + bytes(4 if is_linked else 0)
    return b"II*\0" + struct.pack("<I", 8 + len(samples)) + samples + directory


@pytest.mark.parametrize("top", [1.01, 16, 255, 255.01, 300, 1023, 4095, 65535, 65535.5, 3e38])
def test_floats_just_above_a_level_are_no_darker(top: float) -> None:
    found = np.asarray(decode(tiff((RAMP[0] * top).astype("<f4").tobytes(), 32, form=3)))
    assert np.abs(found[0, :, 0] - GRAY).max() <= 1


@pytest.mark.parametrize("top", [255, 256, 1023, 4080, 65535, 65536, 2**24])
def test_integers_just_above_a_level_are_no_darker(top: int) -> None:
    found = np.asarray(decode(tiff((RAMP[0] * top).astype("<i4").tobytes(), 32, form=2)))
    assert np.abs(found[0, :, 0] - GRAY).max() <= 1


@pytest.mark.parametrize("white", [0, 1])
@pytest.mark.parametrize("is_linked", [True, False], ids=["linked", "cut-link"])
@pytest.mark.parametrize("bits", [12, 16])
def test_deep_gray_has_its_own_white(bits: int, is_linked: bool, white: int) -> None:
    values = np.rint(RAMP[0] * (2**bits - 1)).astype(int)
    samples = int("".join(f"{value:0{bits}b}" for value in values), 2).to_bytes(32 * bits)
    if bits == 16:
        samples = values.astype("<u2").tobytes()
    found = np.asarray(decode(tiff(samples, bits, white=white, is_linked=is_linked)))[0, :, 0]
    assert np.abs(found.astype(int) - (GRAY if white else GRAY[::-1])).max() <= 1


def test_a_float_netpbm_holds_shares_of_one() -> None:
    data = b"Pf\n256 4\n-1.0\n" + RAMP.astype("<f4").tobytes()
    assert np.abs(np.asarray(decode(data))[0, :, 0] - GRAY).max() <= 1


def test_the_cap_on_pixels_holds_for_the_tiles_of_a_small_image() -> None:
    data = tiff(bytes(64), 8, width=16, extra=((322, 16384), (323, 16384)))
    with pytest.raises(TooLarge, match=r"its tiles .*--limits\.max-pixels"):
        decode(data)


def test_plain_netpbm_of_more_comments_than_anybody_writes_is_refused() -> None:
    with pytest.raises(DecodeError, match="more than 131072 comments"):
        decode(b"P2\n1 1\n255\n" + b"#x\n" * 140_000 + b"7\n")
