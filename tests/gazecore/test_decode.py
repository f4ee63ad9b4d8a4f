"""Bytes become upright RGB; what cannot be read becomes an ImageError, and never the memory."""

import io
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gazecore.images.decode
from gazecore.errors import DecodeError, InputError, TooLarge
from gazecore.images.decode import decode, resized, to_network
from gazecore.images.formats import FORMATS, Limits
from tests.conftest import make_photo

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)

# What the EXIF standard says of each orientation, as the upright corners (top left, top right,
# bottom left, bottom right) of an image whose stored corners are red, green, blue, white.
UPRIGHT = {
    1: (RED, GREEN, BLUE, WHITE),
    2: (GREEN, RED, WHITE, BLUE),
    3: (WHITE, BLUE, GREEN, RED),
    4: (BLUE, WHITE, RED, GREEN),
    5: (RED, BLUE, GREEN, WHITE),
    6: (BLUE, RED, WHITE, GREEN),
    7: (WHITE, GREEN, BLUE, RED),
    8: (GREEN, WHITE, RED, BLUE),
}


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def quadrants(width: int = 96, height: int = 64) -> Image.Image:
    image = Image.new("RGB", (width, height), RED)
    image.paste(GREEN, (width // 2, 0, width, height // 2))
    image.paste(BLUE, (0, height // 2, width // 2, height))
    image.paste(WHITE, (width // 2, height // 2, width, height))
    return image


def corners(image: Image.Image) -> np.ndarray:
    """The colours in the middle of the four quadrants, int (4, 3)."""
    pixels = np.asarray(image).astype(int)
    height, width, _ = pixels.shape
    rows, columns = (height // 4, 3 * height // 4), (width // 4, 3 * width // 4)
    return np.array([pixels[row, column] for row in rows for column in columns])


def gray(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2)


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares its size and holds no pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"")
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def bmp_header(width: int, height: int) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + info


def gif_header(width: int, height: int) -> bytes:
    palette = bytes(6)
    frame = struct.pack("<BHHHHB", 0x2C, 0, 0, width, height, 0) + b"\x02\x02\x4c\x01\x00;"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + palette + frame


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("JPEG", {"quality": 95}, 6),
        ("JPEG", {"quality": 95, "progressive": True}, 6),
        ("JPEG", {"quality": 95, "subsampling": 0}, 6),
        ("PNG", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 95}, 12),
        ("GIF", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("BMP", {}, 0),
        ("DIB", {}, 0),
        ("AVIF", {"quality": 95}, 12),
        ("PPM", {}, 0),
        ("JPEG2000", {}, 0),
    ],
)
def test_every_format_gives_its_colours(kind: str, options: dict[str, int], tolerance: int) -> None:
    assert kind in FORMATS
    image = decode(encoded(quadrants(), kind, **options))
    assert (image.mode, image.size) == ("RGB", (96, 64))
    assert np.abs(corners(image) - [RED, GREEN, BLUE, WHITE]).max() <= tolerance


def test_grayscale_jpeg_has_three_equal_channels() -> None:
    image = decode(encoded(Image.new("L", (32, 16), 77), "JPEG", quality=95))
    assert (np.asarray(image) == 77).all()


@pytest.mark.parametrize(
    ("ink", "colour"),
    [
        ((0, 0, 0, 0), (255, 255, 255)),
        ((255, 0, 0, 0), (0, 255, 255)),
        ((0, 255, 255, 0), (255, 0, 0)),
        ((0, 0, 0, 255), (0, 0, 0)),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_inks_become_colours(
    kind: str, ink: tuple[int, int, int, int], colour: tuple[int, int, int]
) -> None:
    pixels = np.asarray(decode(encoded(Image.new("CMYK", (16, 16), ink), kind))).astype(int)
    assert np.abs(pixels - colour).max() <= 3


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_orientation_is_turned_upright(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(kind, {})
    data = encoded(quadrants(), kind, exif=exif, **options)
    image = decode(data)
    assert image.size == ((96, 64) if orientation <= 4 else (64, 96))
    assert np.abs(corners(image) - UPRIGHT[orientation]).max() <= 6
    network = to_network(data, "1024")
    assert (network.width, network.height) == image.size
    landscape = network.pixels.shape[1] > network.pixels.shape[0]
    assert landscape == (orientation <= 4)


def test_the_network_sees_the_size_of_the_display() -> None:
    network = to_network(encoded(quadrants(), "PNG"), "1024")
    assert network.pixels.dtype == np.uint8
    assert network.pixels.shape == (336, 512, 3)
    assert np.abs(corners(Image.fromarray(network.pixels)) - [RED, GREEN, BLUE, WHITE]).max() == 0


def test_palette_png() -> None:
    image = decode(encoded(quadrants().convert("P", palette=Image.Palette.ADAPTIVE), "PNG"))
    assert corners(image).tolist() == [list(c) for c in (RED, GREEN, BLUE, WHITE)]


def test_palette_transparency_is_shown_on_white() -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    data = encoded(image, "PNG", transparency=bytes([255, 0, 51]))
    # 51 of 255 is a fifth.
    blend = [round(0.2 * value + 0.8 * 255) for value in (70, 80, 90)]
    assert np.asarray(decode(data)).tolist() == [[[10, 20, 30], [255, 255, 255], blend]]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_shown_on_white(kind: str) -> None:
    alpha = np.arange(0, 256, 5)
    rgba = np.empty((1, len(alpha), 4), dtype=np.uint8)
    rgba[...] = (200, 100, 0, 0)
    rgba[0, :, 3] = alpha
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    found = np.asarray(decode(encoded(Image.fromarray(rgba), kind, **options)))[0].astype(float)
    share = alpha[:, None] / 255
    expected = share * np.array([200, 100, 0]) + (1 - share) * 255
    assert np.abs(found - expected).max() <= 1


def test_gray_with_alpha_is_shown_on_white() -> None:
    la = np.array([[[0, 0], [0, 255], [100, 51]]], dtype=np.uint8)
    found = np.asarray(decode(encoded(Image.fromarray(la, "LA"), "PNG")))
    assert found[0, :, 0].tolist() == [255, 0, round(0.2 * 100 + 0.8 * 255)]


@pytest.mark.parametrize(
    ("mode", "samples", "key"),
    [
        ("L", np.array([[7, 200]], dtype=np.uint8), 7),
        ("RGB", np.array([[[7, 8, 9], [200, 200, 200]]], dtype=np.uint8), (7, 8, 9)),
        ("I;16", np.array([[7 * 257, 200 * 257]], dtype=np.uint16), 7 * 257),
    ],
)
def test_a_transparent_colour_is_shown_as_white(
    mode: str, samples: np.ndarray, key: int | tuple[int, ...]
) -> None:
    image = Image.fromarray(samples)
    assert image.mode == mode
    found = np.asarray(decode(encoded(image, "PNG", transparency=key)))
    assert found[0].tolist() == [[255] * 3, [200] * 3]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG2000", "PPM"])
def test_sixteen_bit_gray_is_scaled(kind: str) -> None:
    samples = np.linspace(0, 65535, 64 * 32).astype(np.uint16).reshape(32, 64)
    found = np.asarray(decode(encoded(Image.fromarray(samples), kind)))
    assert np.array_equal(found, gray(np.rint(samples / 257).astype(np.uint8)))


def test_a_dark_sixteen_bit_image_stays_dark() -> None:
    samples = np.full((4, 4), 257 * 3, dtype=np.uint16)
    assert (np.asarray(decode(encoded(Image.fromarray(samples), "PNG"))) == 3).all()


def test_big_endian_sixteen_bit_tiff_is_scaled() -> None:
    samples = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    tags = [
        (256, 4, 1, 16), (257, 4, 1, 16), (258, 3, 1, 16 << 16), (259, 3, 1, 1 << 16),
        (262, 3, 1, 1 << 16), (273, 4, 1, 122), (277, 3, 1, 1 << 16), (278, 4, 1, 16),
        (279, 4, 1, 512),
    ]  # fmt: skip
    directory = struct.pack(">H", len(tags)) + b"".join(struct.pack(">HHII", *t) for t in tags)
    data = b"MM\x00*" + struct.pack(">I", 8) + directory + bytes(4)
    assert len(data) == 122
    found = np.asarray(decode(data + samples.astype(">u2").tobytes()))
    assert np.array_equal(found, gray(np.arange(256, dtype=np.uint8).reshape(16, 16)))


def test_float_tiff_holds_shares_of_one() -> None:
    samples = np.array([[0, 0.2, 1]], dtype=np.float32)
    assert np.asarray(decode(encoded(Image.fromarray(samples), "TIFF")))[0, :, 0].tolist() == [
        0,
        51,
        255,
    ]


def test_float_tiff_with_nan_is_no_image() -> None:
    data = encoded(Image.fromarray(np.array([[0, np.nan]], dtype=np.float32)), "TIFF")
    with pytest.raises(DecodeError, match="finite"):
        decode(data)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_one_bit_is_black_and_white(kind: str) -> None:
    samples = np.array([[True, False, True], [False, True, True]])
    found = np.asarray(decode(encoded(Image.fromarray(samples), kind)))
    assert np.array_equal(found, gray(samples.astype(np.uint8) * 255))


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP"])
def test_the_first_frame_counts(kind: str) -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    with Image.open(io.BytesIO(data)) as stored:
        assert stored.n_frames == 3
    assert (np.asarray(decode(data)) == RED).all()


def test_an_empty_file() -> None:
    with pytest.raises(DecodeError, match="empty"):
        decode(b"")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP", "AVIF", "JPEG2000"])
def test_a_truncated_file_is_no_image(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    for end in (3, 20, len(data) // 2):
        with pytest.raises(DecodeError) as caught:
            decode(data[:end])
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"not an image\n" * 100,
        b"\x00" * 1000,
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n",
        b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        b"%PDF-1.4\n%%EOF\n",
        encoded(quadrants(), "ICO"),
        encoded(quadrants(), "PCX"),
    ],
    ids=["text", "zeros", "eps", "svg", "pdf", "ico", "pcx"],
)
def test_what_is_no_photograph_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(data)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    assert " at 0x" not in message, "an address in memory tells nothing and differs in every run"


@pytest.mark.parametrize(
    "data",
    [png_header(60000, 60000), bmp_header(60000, 60000), gif_header(60000, 60000)],
    ids=["png", "bmp", "gif"],
)
def test_a_bomb_is_too_large_and_says_what_to_do(data: bytes) -> None:
    # The files hold no pixels, so whoever decoded them would find them broken, not too large.
    with pytest.raises(TooLarge, match=r"100000000 pixels.*--limits\.max-pixels"):
        decode(data)


@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP", "AVIF", "PPM", "JPEG2000"]
)
def test_the_cap_on_pixels(kind: str) -> None:
    data = encoded(quadrants(), kind)
    assert decode(data, Limits(max_pixels=96 * 64)).size == (96, 64)
    for cap in (96 * 64 - 1, 96 * 64 // 2 - 1, 1):
        with pytest.raises(TooLarge, match=r"--limits\.max-pixels"):
            decode(data, Limits(max_pixels=cap))


def test_caps_of_one_call_do_not_outlive_it() -> None:
    data = encoded(quadrants(), "PNG")
    with pytest.raises(TooLarge):
        decode(data, Limits(max_pixels=10))
    assert decode(data).size == (96, 64)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP"])
def test_the_cap_on_pixels_holds_before_decoding(kind: str) -> None:
    data = encoded(quadrants(), kind)[:-40]
    with pytest.raises(DecodeError):
        decode(data)
    with pytest.raises(TooLarge):
        decode(data, Limits(max_pixels=96 * 64 - 1))


def test_the_cap_on_bytes_holds_before_decoding() -> None:
    with pytest.raises(TooLarge, match=r"--limits\.max-bytes"):
        decode(b"x" * 101, Limits(max_bytes=100))
    with pytest.raises(DecodeError):
        decode(b"x" * 100, Limits(max_bytes=100))


@pytest.mark.parametrize("name", ["max_bytes", "max_pixels"])
def test_caps_are_positive(name: str) -> None:
    with pytest.raises(InputError, match=name):
        Limits(**{name: 0})


def test_native_display_has_an_end() -> None:
    data = encoded(Image.new("1", (6000, 4000)), "PNG")
    with pytest.raises(TooLarge, match=r"6000x4000.*--display-size 1024"):
        to_network(data, "native")
    assert to_network(data, "1024").pixels.shape == (336, 512, 3)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (3000, 2)])
def test_odd_sizes_reach_the_network(size: tuple[int, int]) -> None:
    network = to_network(encoded(Image.new("RGB", size, GREEN), "PNG"), "1024")
    assert (network.width, network.height) == size
    assert max(network.pixels.shape) == 512
    assert (network.pixels == GREEN).all()


HOSTILE = """
import json, sys
from pathlib import Path
from gazecore.errors import ImageError
from gazecore.images.decode import to_network
outcomes = {}
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        outcomes[path.name] = list(to_network(path.read_bytes(), "1024").pixels.shape)
    except ImageError as error:
        outcomes[path.name] = str(error)
    except Exception as error:
        outcomes[path.name] = {"raised": repr(error)}
# VmHWM is this process's own; ru_maxrss would count the test runner's memory.
[line] = [l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmHWM")]
peak = int(line.split()[1]) * 1024
print(json.dumps({"outcomes": outcomes, "peak": peak}))
"""


@pytest.mark.corpora
def test_hostile_files_decode_or_say_why_in_bounded_memory(shared: Path) -> None:
    folder = shared / "hostile"
    done = subprocess.run(
        [sys.executable, "-c", HOSTILE, str(folder)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    outcomes = found["outcomes"]
    assert len(outcomes) == len(list(folder.iterdir()))
    assert [name for name, outcome in outcomes.items() if isinstance(outcome, dict)] == []
    messages = [outcome for outcome in outcomes.values() if isinstance(outcome, str)]
    assert all(message and "\n" not in message for message in messages)
    assert len(outcomes) > len(messages) > 5
    assert isinstance(outcomes["pil_sample_cmyk.jpg"], list)
    assert isinstance(outcomes["decompression_bomb.gif"], str)
    assert isinstance(outcomes["LICENSE"], str)
    assert found["peak"] < 2e9


def jpeg(width: int, height: int, mode: str = "RGB", **options: Any) -> bytes:
    """A photograph-like JPEG of any size."""
    photo = make_photo(3, width, height).convert(mode)
    return encoded(photo, "JPEG", **{"quality": 90, **options})


@pytest.mark.parametrize(
    ("size", "decoded"),
    [
        ((2047, 1000), (2047, 1000)),
        ((2048, 1000), (1024, 500)),
        ((1001, 4095), (501, 2048)),
        ((4096, 31), (1024, 8)),
        ((9000, 2001), (1125, 251)),
        ((20000, 40), (2500, 5)),  # an eighth is the least
        ((9000, 16), (1125, 2)),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_large_jpegs_are_decoded_smaller_and_never_below_the_display(
    size: tuple[int, int], decoded: tuple[int, int], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []
    shrunk = gazecore.images.decode._shrunk
    monkeypatch.setattr(
        gazecore.images.decode, "_shrunk", lambda p, *s: seen.append(p.shape) or shrunk(p, *s)
    )
    network = to_network(jpeg(*size, mode), "1024")
    assert (network.width, network.height) == size
    assert seen == [(decoded[1], decoded[0], 3)]
    if max(size) < 6000:  # which `native` would refuse
        to_network(jpeg(*size, mode), "native")
        assert seen[1] == (size[1], size[0], 3)
    to_network(encoded(make_photo(3, *size), "PNG"), "1024")
    assert seen[-1] == (size[1], size[0], 3)


def test_a_reduced_photograph_looks_the_same() -> None:
    data = jpeg(4032, 3024, subsampling=2)
    network = to_network(data, "1024")
    whole = resized(decode(data), "1024")
    assert (whole.width, whole.height) == (network.width, network.height)
    difference = np.abs(network.pixels.astype(int) - whole.pixels)
    assert difference.max() <= 4
    assert difference.mean() < 0.3


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 2}, {"quality": 30}]
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(331, 217), (2050, 1100), (1, 9)])
def test_the_short_way_gives_pillows_pixels(
    options: dict[str, Any], mode: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = jpeg(*size, mode, **options)
    short = to_network(data, "1024")
    monkeypatch.setattr(gazecore.images.decode, "_jpeg_pixels", lambda *arguments: None)
    assert np.array_equal(short.pixels, to_network(data, "1024").pixels)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-2],  # no end
        lambda data: data + b"\0" * 1000,
        lambda data: data[: len(data) // 2],
        lambda data: data[: len(data) * 2 // 3] + bytes(len(data) // 3),
        lambda data: data.replace(b"\xff\xd9", b"\xff\xd0"),
        lambda data: data[:-400] + bytes(range(200)) * 2,
    ],
)
def test_what_is_wrong_with_a_jpeg_is_pillows_to_say(
    damage: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = damage(jpeg(640, 480))

    def outcome() -> Any:
        try:
            return to_network(data, "1024").pixels.tolist()
        except DecodeError as error:
            return str(error)

    short = outcome()
    monkeypatch.setattr(gazecore.images.decode, "_jpeg_pixels", lambda *arguments: None)
    assert short == outcome()


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_reduced_jpeg_is_turned_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    network = to_network(encoded(quadrants(3000, 2000), "JPEG", exif=exif), "1024")
    size = (3000, 2000) if orientation <= 4 else (2000, 3000)
    assert (network.width, network.height) == size
    assert np.abs(corners(Image.fromarray(network.pixels)) - UPRIGHT[orientation]).max() <= 6
    assert network.pixels.flags.c_contiguous
