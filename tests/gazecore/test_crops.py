"""Crops: the best box against all boxes, closed forms, a run's table, and files that are cut."""

import io
import itertools
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps, JpegImagePlugin

import gazecore
from gazecore.crops.measure import CROPS, crop_run
from gazecore.density.crops import (
    CropConfig,
    best_crop,
    focal_point,
    largest,
    ratio_of,
)
from gazecore.errors import DecodeError, ImageError, InputError, TooLarge
from gazecore.images.cut import cut, was_cut
from gazecore.images.decode import decode
from gazecore.images.formats import Limits
from gazecore.model.deepgaze import DeepGaze
from gazecore.results.reader import Results
from gazecore.results.run import Run
from gazecore.storage import Location
from tests.conftest import make_photo
from tests.gazecore.test_export import score

ASPECTS = ["16:9", "1:1", "9:16", "1.91:1", "1:3", "40:1"]


def random_density(height: int, width: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).random((height, width)) ** 6
    return np.asarray(values / values.sum())


def kept(density: np.ndarray, x: int, y: int, width: int, height: int, margin: float) -> float:
    """What is looked at inside a box and not near a side of it that cuts the image."""
    rows, columns = density.shape
    down, across = int(2 * margin * height), int(2 * margin * width)
    top, bottom = y + (down // 2) * (y > 0), y + height - (down - down // 2) * (y + height < rows)
    left = x + (across // 2) * (x > 0)
    right = x + width - (across - across // 2) * (x + width < columns)
    return float(density[top:bottom, left:right].sum())


def every_box(density: np.ndarray, width: int, height: int, margin: float) -> float:
    """The most that any box of a size keeps."""
    rows, columns = density.shape
    places = itertools.product(range(columns - width + 1), range(rows - height + 1))
    return max(kept(density, x, y, width, height, margin) for x, y in places)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 24), st.integers(1, 24), st.integers(0, 2**32 - 1), st.sampled_from(ASPECTS),
    st.sampled_from([0.0, 0.1, 0.3]),
)  # fmt: skip
def test_no_box_of_the_size_keeps_more(
    height: int, width: int, seed: int, aspect: str, margin: float
) -> None:
    density = random_density(height, width, seed)
    found = best_crop(density, ratio_of(aspect), CropConfig(margin=margin))
    assert (found.height, found.width) == largest(height, width, ratio_of(aspect))
    assert found.scale == 1
    inside = kept(density, found.x, found.y, found.width, found.height, margin)
    assert inside == pytest.approx(every_box(density, found.width, found.height, margin), abs=2e-9)
    whole = density[found.y : found.y + found.height, found.x : found.x + found.width]
    assert found.share == pytest.approx(whole.sum(), abs=1e-9)
    y, x = (height - found.height) // 2, (width - found.width) // 2
    central = density[y : y + found.height, x : x + found.width]
    assert found.center_share == pytest.approx(central.sum(), abs=1e-9)
    if not margin:
        assert found.share >= found.center_share - 1e-9


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 16), st.integers(2, 16), st.integers(0, 2**32 - 1), st.sampled_from(ASPECTS),
    st.sampled_from([0.0, 0.2]), st.sampled_from([0.3, 0.6]), st.sampled_from([0.5, 0.9]),
)  # fmt: skip
def test_a_smaller_box_is_the_smallest_that_keeps_enough(
    height: int, width: int, seed: int, aspect: str, margin: float, scale: float, keep: float
) -> None:
    density = random_density(height, width, seed)
    ratio = ratio_of(aspect)
    found = best_crop(density, ratio, CropConfig(scale, keep, margin))
    most = every_box(density, *largest(height, width, ratio)[::-1], margin)
    longer = max(largest(height, width, ratio))
    assert max(found.width, found.height) >= scale * longer - 1e-6
    if found.scale < 1:
        inside = kept(density, found.x, found.y, found.width, found.height, margin)
        assert inside >= keep * most - 2e-9
    # Every size that is smaller and allowed keeps too little.
    high, wide = largest(height, width, ratio)
    for side in range(int(np.ceil(scale * longer - 1e-6)), max(found.width, found.height)):
        size = (
            (side, max(1, round(side * high / wide)))
            if wide >= high
            else (max(1, round(side * wide / high)), side)
        )
        assert every_box(density, *size, margin) < keep * most + 2e-9


def test_the_largest_box_of_a_ratio() -> None:
    assert largest(768, 1024, 16 / 9) == (576, 1024)
    assert largest(768, 1024, 1.0) == (768, 768)
    assert largest(768, 1024, 9 / 16) == (768, 432)
    assert largest(768, 1024, 4 / 3) == (768, 1024)
    assert largest(1, 1, 16 / 9) == (1, 1)
    assert largest(3, 100, 1 / 1000) == (3, 1)
    assert largest(100, 3, 1000.0) == (1, 3)


def test_closed_forms() -> None:
    # A uniform density is cut in the middle, and a box keeps its part of the area.
    found = best_crop(np.full((60, 80), 1 / 4800), 1.0)
    assert (found.x, found.y, found.width, found.height) == (10, 0, 60, 60)
    assert found.share == pytest.approx(0.75)
    # All on one pixel: every box that holds it keeps the same, the most central of them is taken.
    density = np.zeros((60, 80))
    density[5, 75] = 1
    found = best_crop(density, 1.0)
    assert (found.x, found.y, found.share, found.center_share) == (16, 0, 1, 0)
    assert focal_point(density) == pytest.approx((75.5 / 80, 5.5 / 60))
    # With a margin, it is not to be within a tenth of the side that cuts.
    density = np.zeros((60, 80))
    density[5, 65] = 1
    assert best_crop(density, 1.0).x == 10
    assert best_crop(density, 1.0, CropConfig(margin=0.1)).x == 12
    # Two places: the smallest box around both, and around the one that is enough.
    density = np.zeros((60, 80))
    density[10, 10], density[30, 30] = 0.6, 0.4
    both = best_crop(density, 1.0, CropConfig(least_scale=0.1, keep=1))
    assert (both.x, both.y, both.width, both.height, both.share) == (10, 10, 21, 21, 1)
    one = best_crop(density, 1.0, CropConfig(least_scale=0.1, keep=0.5))
    assert (one.width, one.height, one.share) == (6, 6, 0.6)
    assert one.scale == pytest.approx(0.1)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_no_other_point_is_better_for_the_crops_around_it(
    height: int, width: int, seed: int
) -> None:
    density = random_density(height, width, seed)

    def kept_around(at: float, mass: np.ndarray) -> float:
        found = []
        for part in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
            side = max(1, round(part * len(mass)))
            first = min(max(round(at - side / 2), 0), len(mass) - side)
            found.append(mass[first : first + side].sum())
        return float(np.mean(found))

    for at, axis in zip(focal_point(density), (0, 1), strict=True):
        mass = density.sum(axis=axis)
        best = max(kept_around(i + 0.5, mass) for i in range(len(mass)))
        assert kept_around(int(at * len(mass)) + 0.5, mass) == pytest.approx(best, abs=1e-9)


def test_focal_points_in_closed_form() -> None:
    assert focal_point(np.full((3, 5), 1 / 15)) == pytest.approx((0.5, 0.5))
    density = np.zeros((60, 80))
    density[5, 75] = 1
    assert focal_point(density) == pytest.approx((75.5 / 80, 5.5 / 60))
    # Between two places that a crop can hold together, and at the heavier of two that it cannot.
    density = np.zeros((60, 80))
    density[20, 20], density[20, 40] = 0.6, 0.4
    assert 20 <= focal_point(density)[0] * 80 <= 41
    density = np.zeros((60, 80))
    density[20, 0], density[20, 79] = 0.6, 0.4
    assert focal_point(density)[0] < 0.5


@pytest.mark.parametrize(
    "aspect",
    ["", "16", "16x9", "0:9", "16:0", "-1:2", "1:2:3", "1e9:1", "a:b", "nan:1", "1:1001",
     "99999999:1"],
)  # fmt: skip
def test_what_is_no_ratio(aspect: str) -> None:
    with pytest.raises(ValueError, match="no ratio"):
        ratio_of(aspect)


@pytest.mark.parametrize(
    "wrong",
    [{"least_scale": 0}, {"least_scale": 1.1}, {"keep": 0}, {"keep": 2}, {"margin": 0.5},
     {"margin": -0.1}, {"margin": np.nan}, {"keep": np.nan}, {"least_scale": np.nan}],
)  # fmt: skip
def test_settings_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="the "):
        CropConfig(**wrong)


# ------------------------------------------------------------------------------------------ files


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
PHOTO = make_photo(5, 240, 160)
BOX = (40, 10, 200, 110)

KINDS: dict[str, tuple[bytes, int]] = {
    "jpeg": (encoded(PHOTO, "JPEG", quality=90, icc_profile=PROFILE), 3),
    "progressive": (encoded(PHOTO, "JPEG", quality=90, subsampling=0, progressive=True), 3),
    "gray jpeg": (encoded(PHOTO.convert("L"), "JPEG", quality=90), 3),
    "cmyk jpeg": (encoded(PHOTO.convert("CMYK"), "JPEG", quality=90), 3),
    "png": (encoded(PHOTO, "PNG", icc_profile=PROFILE), 0),
    "palette": (encoded(PHOTO.quantize(16), "PNG", transparency=3), 0),
    "transparent": (encoded(PHOTO.convert("RGBA"), "PNG"), 0),
    "bilevel": (encoded(PHOTO.convert("1"), "PNG"), 0),
    "16 bits": (encoded(Image.fromarray(np.asarray(PHOTO)[..., 0] * np.uint16(250)), "PNG"), 0),
    "webp": (encoded(PHOTO, "WEBP", quality=95), 3),
    "lossless webp": (encoded(PHOTO, "WEBP", lossless=True, icc_profile=PROFILE), 0),
    "gif": (encoded(PHOTO.quantize(32), "GIF"), 0),
    "tiff": (encoded(PHOTO, "TIFF", compression="tiff_lzw", icc_profile=PROFILE), 0),
    "fax": (encoded(PHOTO.convert("1"), "TIFF", compression="group4"), 0),
    "bmp": (encoded(PHOTO, "BMP"), 0),
    "ppm": (encoded(PHOTO, "PPM"), 0),
    "jpeg 2000": (encoded(PHOTO, "JPEG2000"), 0),
    "avif": (encoded(PHOTO, "AVIF", quality=95), 3),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_piece_is_of_the_same_kind_and_has_the_same_pixels(kind: str, tmp_path: Path) -> None:
    data, most = KINDS[kind]
    pieces = cut(data, (160, 240), [BOX, (0, 0, 240, 160)])
    source, piece = (Image.open(io.BytesIO(file)) for file in (data, pieces[0]))
    assert (piece.format, piece.mode, piece.size) == (source.format, source.mode, (160, 100))
    assert piece.info.get("icc_profile") == source.info.get("icc_profile")
    assert piece.info.get("compression") == source.info.get("compression")
    assert piece.info.get("transparency") == source.info.get("transparency")
    if source.format == "JPEG":
        assert piece.quantization == source.quantization  # type: ignore[attr-defined]
        assert JpegImagePlugin.get_sampling(piece) == JpegImagePlugin.get_sampling(source)
        assert piece.info.get("progressive") == source.info.get("progressive")
    found, expected = (np.asarray(i.convert("RGB")).astype(int) for i in (piece, source.crop(BOX)))
    assert np.abs(found - expected).mean() <= most
    path = tmp_path / "piece"
    path.write_bytes(pieces[1])
    marked = source.format not in ("BMP", "PPM", "JPEG2000")
    assert was_cut(Location(str(path))) == marked
    path.write_bytes(data)
    assert not was_cut(Location(str(path)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_piece_is_upright(format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "a description"
    data = encoded(PHOTO, format, exif=exif, **({"quality": 95} if format == "JPEG" else {}))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    width, height = upright.size
    box = (8, 16, width - 24, height - 8)
    [piece] = cut(data, (height, width), [box])
    image = Image.open(io.BytesIO(piece))
    assert dict(image.getexif()).get(0x0112, 1) == 1
    assert b"a description" not in piece  # nor anything else that was said of the whole
    found, expected = (np.asarray(i.convert("RGB")).astype(int) for i in (image, upright.crop(box)))
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < (0 if format in ("PNG", "TIFF") else 3) + 1e-9


@pytest.mark.parametrize("bits", [2, 4, 16])
def test_a_transparent_colour_stays_transparent(bits: int) -> None:
    """Of PNGs whose samples Pillow scales to 8 bits."""
    gray = (
        np.arange(64, dtype=np.uint16).reshape(8, 8) % min(2**bits, 16) * (1000 if bits > 8 else 1)
    )
    colour = 2 if bits == 16 else 0
    samples = np.repeat(gray, 3, axis=1) if colour else gray
    if bits < 8:
        parts = samples.reshape(8, -1, 8 // bits)
        weights = 2 ** (bits * np.arange(8 // bits - 1, -1, -1))
        rows = (parts * weights).sum(axis=-1).astype(np.uint8)
    else:
        rows = samples.astype(">u2").view(np.uint8)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    key = int(gray[0, 2])
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 8, 8, bits, colour, 0, 0, 0)),
        (b"tRNS", struct.pack(">H", key) * (3 if colour else 1)),
        (b"IDAT", zlib.compress(lines)),
        (b"IEND", b""),
    )
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    whole = np.asarray(decode(data))
    assert (whole == 255).all(axis=-1).any()  # shown on white
    [piece] = cut(data, (8, 8), [(1, 0, 7, 5)])
    assert np.array_equal(np.asarray(decode(piece)), whole[:5, 1:7])


def test_samples_whose_meaning_would_change_are_refused() -> None:
    values = Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8))
    inverted = encoded(values, "TIFF", tiffinfo={262: 0})
    with pytest.raises(DecodeError, match="inverted"):
        cut(inverted, (8, 8), [(0, 0, 4, 4)])


@pytest.mark.corpora
def test_every_hostile_image_that_can_be_read_is_cut_or_refused(shared: Path) -> None:
    cuts = 0
    for path in sorted((shared / "hostile").iterdir()):
        data = path.read_bytes()
        try:
            image = decode(data)
        except ImageError:
            continue
        width, height = image.size
        box = (0, 0, max(1, width * 2 // 3), max(1, height // 2))
        try:
            [piece] = cut(data, (height, width), [box])
        except ImageError:
            continue
        assert decode(piece).size == box[2:], path.name
        cuts += 1
    assert cuts > 70


def test_an_image_that_is_another_by_now_or_none_is_refused() -> None:
    data, _ = KINDS["jpeg"]
    with pytest.raises(DecodeError, match="it is 240x160 now, and was 160x240"):
        cut(data, (240, 160), [BOX])
    with pytest.raises(DecodeError):
        cut(data[:200], (160, 240), [BOX])
    with pytest.raises(TooLarge):
        cut(data, (160, 240), [BOX], Limits(max_pixels=1000))


# -------------------------------------------------------------------------------------------- runs


@pytest.fixture
def scored(photos: Path, tmp_path: Path, tiny: DeepGaze) -> Run:
    (photos / "a" / "broken.png").write_bytes(b"\x89PNG and nothing more")
    return score(photos, tmp_path / "run", tiny)


def test_every_image_and_aspect_has_a_row(scored: Run, tmp_path: Path) -> None:
    results = Results(scored)
    aspects = ["16:9", "1:1", "9:16"]
    found = gazecore.crop(results, tmp_path / "crops.parquet", aspects=aspects)
    assert found.table.schema.equals(CROPS)
    rows = found.table.to_pylist()
    assert [(r["image_id"], r["aspect"]) for r in rows] == [
        (image_id, aspect) for image_id, _ in results.densities() for aspect in aspects
    ]
    for row in rows:
        density = np.exp(results.density(row["image_id"]), dtype=float)
        best = best_crop(density, ratio_of(row["aspect"]))
        assert (row["x"], row["y"], row["width"]) == (best.x, best.y, best.width)
        part = density[row["y"] : row["y"] + row["height"], row["x"] : row["x"] + row["width"]]
        assert row["share"] == pytest.approx(part.sum(), abs=1e-6)
        assert (row["focal_x"], row["focal_y"]) == pytest.approx(focal_point(density))
        assert (row["file"], row["error_message"]) == (None, None)
    for aspect in aspects:
        own = [row for row in rows if row["aspect"] == aspect]
        assert found.kept[aspect] == pytest.approx(np.mean([row["share"] for row in own]))
        assert found.central[aspect] == pytest.approx(np.mean([r["center_share"] for r in own]))


def test_pieces_lie_beside_each_other_and_inputs_are_never_touched(
    scored: Run, photos: Path, tmp_path: Path
) -> None:
    results, out, folder = Results(scored), tmp_path / "crops.parquet", tmp_path / "pieces"
    before = {path: path.read_bytes() for path in photos.rglob("*.*")}
    aspects = ["1:1", "16:9"]
    for _ in range(2):  # what it made, it replaces
        found = gazecore.crop(results, out, aspects=aspects, files=folder)
        assert (found.images, found.files, found.failed) == (10, 20, 0)
    for row in found.table.to_pylist():
        stem = row["image_id"].removesuffix(".jpg")
        assert row["file"] == f"{stem}-{row['aspect'].replace(':', 'x')}.jpg"
        with Image.open(folder / row["file"]) as piece:
            assert (piece.format, piece.size) == ("JPEG", (row["width"], row["height"]))
    assert len([path for path in folder.rglob("*") if path.is_file()]) == 20
    # A file of somebody else stays.
    target = folder / "a" / "photo-1-1x1.jpg"
    make_photo(1).save(target)
    theirs = target.read_bytes()
    with pytest.raises(InputError, match=r"photo-1-1x1\.jpg is there, and gazecore did not make"):
        gazecore.crop(results, out, aspects=aspects, files=folder)
    assert target.read_bytes() == theirs
    crop_run(scored, aspects, Location(str(out)), files=Location(str(folder)), overwrite=True)
    assert target.read_bytes() != theirs
    assert {path: path.read_bytes() for path in photos.rglob("*.*")} == before


def test_a_piece_is_never_written_over_an_image(
    photos: Path, tmp_path: Path, tiny: DeepGaze
) -> None:
    """Even if it was said that files are to be replaced, and even if gazecore cut that image."""
    image = photos / "a" / "photo-1-1x1.jpg"
    [piece] = cut((photos / "a" / "photo-1.jpg").read_bytes(), (96, 64), [(0, 0, 60, 60)])
    image.write_bytes(piece)
    run = score(photos, tmp_path / "run", tiny)
    out = Location(str(tmp_path / "crops.parquet"))
    with pytest.raises(InputError, match=r"photo-1-1x1\.jpg is an image of the run"):
        crop_run(run, ["1:1"], out, files=Location(str(photos)), overwrite=True)
    assert image.read_bytes() == piece
    assert not (tmp_path / "crops.parquet").exists()


def test_an_image_that_cannot_be_cut_is_said_in_its_rows(
    scored: Run, photos: Path, tmp_path: Path
) -> None:
    (photos / "a" / "photo-1.jpg").unlink()
    make_photo(1, 33, 44).save(photos / "a" / "photo-3.jpg")
    folder = tmp_path / "pieces"
    found = gazecore.crop(
        Results(scored), tmp_path / "crops.parquet", aspects=["1:1"], files=folder
    )
    assert (found.images, found.files, found.failed) == (10, 8, 2)
    rows = {row["image_id"]: row for row in found.table.to_pylist()}
    assert rows["a/photo-1.jpg"]["error_message"].startswith("not_found: ")
    assert rows["a/photo-3.jpg"]["error_message"].startswith("decode_error: it is 33x44 now")
    assert rows["a/photo-1.jpg"]["share"] > 0
    assert rows["a/photo-1.jpg"]["file"] is None
    assert not list(folder.rglob("photo-[13]*"))


def test_mistakes(scored: Run, tmp_path: Path) -> None:
    results, out = Results(scored), tmp_path / "crops.parquet"
    for options, message in (
        ({"aspects": []}, "at least one ratio"),
        ({"aspects": ["1:1", "1:1"]}, "each once"),
        ({"aspects": ["wide"]}, "'wide' is no ratio"),
        ({"aspects": ["1:1"], "margin": 0.6}, "the margin"),
        ({"aspects": ["1:1"], "files": tmp_path / "run" / "x"}, "--files lies in the run"),
    ):
        with pytest.raises(InputError, match=message):
            gazecore.crop(results, out, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="lies in the run"):
        gazecore.crop(results, tmp_path / "run" / "crops.parquet", aspects=["1:1"])
    assert not out.exists()
    out.write_text("mine")
    with pytest.raises(InputError, match="gazecore did not make it"):
        gazecore.crop(results, out, aspects=["1:1"])
    assert out.read_text() == "mine"


def test_a_density_in_memory(tiny_file: str) -> None:
    density = gazecore.load(tiny_file).predict(make_photo(3, 120, 90))
    found = density.crop("1:1")
    assert (found.width, found.height) == (90, 90)
    assert found.share == pytest.approx(density.share((found.x, found.y, 90, 90)))
    smaller = density.crop("1:1", least_scale=0.5, keep=0.6)
    assert 45 <= smaller.width < 90
    assert all(0 < value < 1 for value in density.focal_point)
    with pytest.raises(InputError, match="no ratio"):
        density.crop("square")
