"""HEIF and JPEG XL, where their packages are installed; and what is said where they are not."""

import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gazecore.images.decode
import gazecore.images.formats
from gazecore.errors import DecodeError, TooLarge
from gazecore.images import choice, jxl
from gazecore.images.decode import decode, to_network
from gazecore.images.formats import FORMATS, Limits
from gazecore.images.listing import list_images
from tests.conftest import make_photo

FORMS = {"HEIF": "heif", "JXL": "jxl"}


def encoded(form: str, image: Image.Image, **options: Any) -> bytes:
    if form == "HEIF":
        pytest.importorskip(
            "pillow_heif", reason="gazecore[heif] is not installed"
        ).register_heif_opener()
    else:
        pytest.importorskip("pillow_jxl", reason="gazecore[jxl] is not installed")
    buffer = io.BytesIO()
    image.save(buffer, form, **{"quality": 95, **options})
    return buffer.getvalue()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_they_are_decoded_by_their_content(form: str, mode: str) -> None:
    photo = make_photo(5, 160, 120)
    found = decode(encoded(form, photo.convert(mode)))
    assert (found.mode, found.size) == ("RGB", photo.size)
    expected = photo.convert(mode).convert("RGB")
    difference = np.abs(np.asarray(found, float) - np.asarray(expected, float))
    assert difference.mean() < 6
    shown = to_network(encoded(form, make_photo(6, 2600, 1300)), "1024")
    assert (shown.height, shown.width) == (1300, 2600)


@pytest.mark.parametrize("form", FORMS)
def test_they_are_listed_by_their_suffix(form: str, tmp_path: Path) -> None:
    suffix = {"HEIF": "HEIC", "JXL": "jxl"}[form]
    (tmp_path / f"a.{suffix}").write_bytes(encoded(form, make_photo(1)))
    (batch,) = list_images(str(tmp_path))
    assert batch["image_id"].to_pylist() == [f"a.{suffix}"]


@pytest.mark.parametrize("form", FORMS)
def test_the_cap_on_pixels_holds_before_decoding(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(form, make_photo(1, 200, 100))

    def decoded(*how: Any, **more: Any) -> None:
        raise AssertionError("it was decoded")

    if form == "JXL":
        monkeypatch.setattr("pillow_jxl.JpegXLImagePlugin.Decoder", decoded)
    else:
        monkeypatch.setattr("pillow_heif.heif.HeifImage.data", property(decoded))
    with pytest.raises(TooLarge, match="max-pixels"):
        decode(data, Limits(max_pixels=200 * 100 - 1))


@pytest.mark.parametrize("form", FORMS)
def test_what_is_cut_or_damaged_is_a_decode_error(form: str) -> None:
    data = encoded(form, make_photo(2, 300, 200))
    rng = np.random.default_rng(3)
    for cut in range(0, len(data) - 1, max(1, len(data) // 40)):
        with pytest.raises(DecodeError):
            decode(data[:cut])
    for _ in range(60):
        damaged = bytearray(data)
        for at in rng.integers(0, len(data), 5):
            damaged[at] ^= int(rng.integers(1, 256))
        try:
            decode(bytes(damaged))
        except (DecodeError, TooLarge):
            continue


def test_the_size_of_jpeg_xl_is_in_its_header() -> None:
    sizes = [(1, 1), (8, 8), (256, 256), (257, 3), (640, 480), (480, 640), (1920, 1080),
             (1024, 512), (600, 400), (1200, 1000), (3000, 7), (511, 513)]  # fmt: skip
    for width, height in sizes:
        data = encoded("JXL", make_photo(1, width, height))
        assert jxl.size(jxl.codestream(data)) == (width, height)
    with pytest.raises(IndexError):
        jxl.size(jxl.SIGNATURE)


def test_boxes_of_jpeg_xl_are_passed_over() -> None:
    stream = encoded("JXL", make_photo(4, 120, 90))
    stream = jxl.codestream(stream)
    half = len(stream) // 2

    def box(kind: bytes, body: bytes) -> bytes:
        return (8 + len(body)).to_bytes(4) + kind + body

    whole = jxl.BOXES + box(b"ftyp", b"jxl \0\0\0\0jxl ") + box(b"brob", b"Exif" + bytes(99))
    plain = np.asarray(decode(stream))
    for boxes in (box(b"jxlc", stream), b"".join([box(b"jxlp", bytes(4) + stream[:half]),
                  box(b"xml ", b"?"), box(b"jxlp", b"\x80\0\0\1" + stream[half:])])):  # fmt: skip
        assert (np.asarray(decode(whole + boxes)) == plain).all()
    with pytest.raises(DecodeError):
        decode(whole + (3).to_bytes(4) + b"jxlc" + stream)


@pytest.mark.parametrize(
    ("data", "extra"),
    [
        (b"\0\0\0\x18ftypheic" + bytes(40), "heif"),
        (jxl.SIGNATURE + bytes(40), "jxl"),
        (jxl.BOXES + bytes(40), "jxl"),
    ],
)
def test_without_its_package_an_error_and_the_listing_name_the_extra(
    data: bytes, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gazecore.images.formats, "find_spec", lambda name: None)
    monkeypatch.setattr(gazecore.images.decode, "_FORMATS", FORMATS)
    with pytest.raises(DecodeError, match=rf"pip install 'gazecore\[{extra}\]'"):
        decode(data)
    suffixes = (".heic", ".jxl")
    monkeypatch.setattr(choice, "UNREAD_SUFFIXES", suffixes)
    for suffix in suffixes:
        (tmp_path / f"a{suffix}").write_bytes(data)
    (tmp_path / "b.jpg").write_bytes(b"")
    left_out = Counter[str]()
    list(list_images(str(tmp_path), left_out=left_out))
    assert left_out == {
        ".heic (pip install 'gazecore[heif]' reads it)": 1,
        ".jxl (pip install 'gazecore[jxl]' reads it)": 1,
    }
