"""Regions: their pixels, what falls on them, the files that name them, and a run's table."""

import io
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Outline
from PIL import Image
from scipy.special import erf

import gazecore
from gazecore.corpus.schema import FIXATIONS, IMAGES, Corpus
from gazecore.density.regions import Pixels, measure, pixels_of, ranks, union
from gazecore.errors import InputError
from gazecore.model.deepgaze import DeepGaze
from gazecore.regions.files import open_regions
from gazecore.regions.measure import REGIONS, measure_run
from gazecore.regions.region import Region
from gazecore.results import stream
from gazecore.results.reader import Results
from gazecore.results.run import Run
from gazecore.storage import Location
from tests.conftest import make_photo
from tests.gazecore.test_export import score

side = st.integers(1, 30)
place = st.floats(-40, 70, allow_nan=False)


def mask_of(pixels: Pixels, height: int, width: int) -> np.ndarray:
    whole = np.zeros((height, width), dtype=bool)
    rows, columns = pixels.inside.shape
    whole[pixels.top : pixels.top + rows, pixels.left : pixels.left + columns] = pixels.inside
    return whole


def middles(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width] + 0.5
    return np.column_stack([x.ravel(), y.ravel()])


def random_density(height: int, width: int, seed: int) -> np.ndarray:
    values = np.exp(np.random.default_rng(seed).normal(size=(height, width)))
    return np.asarray(values / values.sum())


# ------------------------------------------------------------------------------------- arithmetic


@settings(max_examples=200, deadline=None)
@given(side, side, place, place, st.floats(0, 80), st.floats(0, 80), st.integers(0, 2**32 - 1))
def test_a_boxs_share_is_the_sum_over_the_pixels_whose_middle_is_inside(
    height: int, width: int, x: float, y: float, wide: float, high: float, seed: int
) -> None:
    density = random_density(height, width, seed)
    columns, rows = middles(height, width).T
    inside = (columns >= x) & (columns < x + wide) & (rows >= y) & (rows < y + high)
    pixels = pixels_of((x, y, wide, high), height, width)
    assert np.array_equal(mask_of(pixels, height, width).ravel(), inside)
    found = measure(density, pixels)
    assert found.share == pytest.approx(density.ravel()[inside].sum(), abs=1e-12)
    assert found.area_share == inside.mean()
    # The same as a polygon, and as a mask.
    corners = [(x, y), (x + wide, y), (x + wide, y + high), (x, y + high)]
    assert np.array_equal(mask_of(pixels_of(corners, height, width), height, width).ravel(), inside)
    assert measure(density, pixels_of(inside.reshape(height, width), height, width)) == found


@settings(max_examples=200, deadline=None)
@given(side, side, st.lists(st.tuples(place, place), min_size=3, max_size=3, unique=True))
def test_a_triangles_pixels_are_those_that_matplotlib_finds(
    height: int, width: int, corners: list[tuple[float, float]]
) -> None:
    points = middles(height, width)
    # Middles on the border are of either side: those are left out.
    edges = np.array(corners) - np.roll(corners, 1, axis=0)
    away = points[:, None] - np.roll(corners, 1, axis=0)
    distance = np.abs(edges[:, 0] * away[..., 1] - edges[:, 1] * away[..., 0]).min(axis=1)
    sure = distance > 1e-6
    expected = Outline([*corners, corners[0]], closed=True).contains_points(points)
    found = mask_of(pixels_of(corners, height, width), height, width).ravel()
    assert np.array_equal(found[sure], expected[sure])


@settings(max_examples=100, deadline=None)
@given(
    side, side, st.lists(st.tuples(place, place), min_size=3, max_size=9), st.integers(0, 2**32 - 1)
)
def test_fans_of_triangles_share_their_borders_without_overlap(
    height: int, width: int, corners: list[tuple[float, float]], seed: int
) -> None:
    """A polygon that crosses itself is the odd sum of the triangles from its first corner."""
    whole = mask_of(pixels_of(corners, height, width), height, width)
    odd = np.zeros_like(whole)
    for pair in itertools.pairwise(corners[1:]):
        odd ^= mask_of(pixels_of([corners[0], *pair], height, width), height, width)
    assert np.array_equal(whole, odd)


def test_tiles_of_any_cut_take_every_pixel_once() -> None:
    rng = np.random.default_rng(5)
    density = random_density(48, 72, 3)
    cuts_x, cuts_y = ([-1.0, *np.sort(rng.uniform(0, side, 5)), side + 2.0] for side in (72, 48))
    shares = [
        measure(density, pixels_of((x, y, right - x, down - y), 48, 72)).share
        for x, right in itertools.pairwise(cuts_x)
        for y, down in itertools.pairwise(cuts_y)
    ]
    assert sum(shares) == pytest.approx(1, abs=1e-12)


def test_closed_forms() -> None:
    uniform = np.full((60, 80), 1 / 4800)
    quarter = measure(uniform, pixels_of((40, 30, 40, 30), 60, 80))
    assert (quarter.share, quarter.area_share, quarter.ratio) == pytest.approx((0.25, 0.25, 1.0))
    assert (quarter.peak_x, quarter.peak_y, quarter.peak_share) == (40.5, 30.5, 1.0)
    assert quarter.chance(1) == pytest.approx(0.25)
    assert quarter.chance(10) == pytest.approx(1 - 0.75**10)
    # A Gaussian of deviation 40 around the middle, in a box of whole pixels.
    y, x = np.mgrid[:600, :800] + 0.5
    gaussian = np.exp(-((x - 400) ** 2 + (y - 300) ** 2) / (2 * 40**2))
    found = measure(gaussian / gaussian.sum(), pixels_of((380, 300, 60, 500), 600, 800))
    normal = [(1 + erf(d / 40 / np.sqrt(2))) / 2 for d in (-20, 40)]
    assert found.share == pytest.approx((normal[1] - normal[0]) / 2, abs=1e-4)
    assert (found.peak_x, found.peak_y) == (399.5, 300.5)
    # Inside a circle of radius r: 1 - exp(-r^2 / 2 sigma^2).
    circle = [(400 + 60 * np.cos(a), 300 + 60 * np.sin(a)) for a in np.linspace(0, 6.28, 200)]
    found = measure(gaussian / gaussian.sum(), pixels_of(circle, 600, 800))
    assert found.share == pytest.approx(1 - np.exp(-(60**2) / 2 / 40**2), abs=1e-3)
    assert found.area_share == pytest.approx(np.pi * 60**2 / 480_000, rel=1e-2)


@pytest.mark.parametrize(
    "shape",
    [(10, 10, 0, 5), (10.6, 2, 0.8, 5), (-20, 0, 10, 10), (80, 0, 5, 5), (0, 1e8, 1e8, 1e8),
     [(90, 0), (95, 0), (92, 9)], np.zeros((60, 80), dtype=bool)],
)  # fmt: skip
def test_what_is_empty_or_outside_has_no_share_and_no_peak(shape: Any) -> None:
    found = measure(np.full((60, 80), 1 / 4800), pixels_of(shape, 60, 80))
    assert (found.share, found.area_share, found.ratio) == (0, 0, None)
    assert (found.peak_x, found.peak_y, found.peak_share) == (None, None, None)
    assert found.chance(10) == 0


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 2, -3, 4), "-3 wide"),
        ((1, 2, np.nan, 4), "no number"),
        ((1, 2, np.inf, 4), "no number"),
        ((1, 2, 3), "no region"),
        ([(1, 2), (3, 4)], "no region"),
        ([(1, 2), (3, 4), (5,)], "not numbers"),
        ("abcd", "not numbers"),
        (None, "no number|no region"),
        (np.zeros((80, 60), dtype=bool), "60x80 is not of this image, 80x60"),
        (np.zeros((60, 80)), "no region"),
    ],
)
def test_what_is_no_region_is_refused(shape: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pixels_of(shape, 60, 80)


def test_ranks_count_from_the_largest_and_equal_shares_have_the_same() -> None:
    assert ranks([0.1, 0.5, 0.1, 0.0, 0.5]) == [3, 1, 3, 5, 1]
    assert ranks([]) == []


@settings(max_examples=50, deadline=None)
@given(side, side, st.integers(0, 2**32 - 1), place, place)
def test_a_fixation_is_on_a_region_if_its_pixel_is(
    height: int, width: int, seed: int, x: float, y: float
) -> None:
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 1, (20, 2)) * (width, height)
    pixels = union(
        [pixels_of((x, y, 20, 20), height, width), pixels_of((y, x, 9, 30), height, width)],
        height, width,
    )  # fmt: skip
    column, row = np.floor(points).astype(int).T
    assert np.array_equal(pixels.hold(points), mask_of(pixels, height, width)[row, column])


# ------------------------------------------------------------------------------------------ files


def regions_of(path: Path, image_id: str = "a.jpg", height: int = 64, width: int = 96) -> Any:
    return open_regions(Location(str(path))).of_image(image_id, height, width)


def counts(found: Sequence[Region]) -> list[tuple[int, str, int | None]]:
    return [(r.number, r.name, None if r.pixels is None else r.pixels.count) for r in found]


TEXTS = {
    "comma": "image_id,name,x,y,width,height\n"
    "a.jpg,face,0,0,10,10\nb.jpg,,1,1,2,2\na.jpg,,5,5,4,3\n",
    "semicolon": "name;height;width;y;x;image_id;note\n"
    "face;10;10;0;0;a.jpg;ü\n;2;2;1;1;b.jpg;\n;3;4;5;5;a.jpg;\n",
}


@pytest.mark.parametrize("kind", ["comma", "semicolon", "parquet"])
def test_boxes_from_tables(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"boxes.{'parquet' if kind == 'parquet' else 'csv'}"
    if kind == "parquet":
        pq.write_table(
            pa.table({"image_id": ["a.jpg", "b.jpg", "a.jpg"], "name": ["face", None, ""],
                      "x": [0, 1, 5], "y": [0, 1, 5], "width": [10, 2, 4], "height": [10, 2, 3]}),
            path,
        )  # fmt: skip
    else:
        path.write_text(TEXTS[kind])
    assert counts(regions_of(path)) == [(1, "face", 100), (3, "", 12)]
    assert counts(regions_of(path, "b.jpg")) == [(2, "", 4)]
    assert regions_of(path, "c.jpg") == []
    regions = open_regions(Location(str(path)))
    assert list(regions.elsewhere({"a.jpg"})) == [("b.jpg", 2, "")]


def test_a_bad_row_is_a_bad_region_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "boxes.csv"
    path.write_text("image_id,x,y,width,height\na.jpg,1,1,-2,2\na.jpg,,1,2,2\na.jpg,1,1,2,2\n")
    found = regions_of(path)
    assert counts(found) == [(1, "", None), (2, "", None), (3, "", 4)]
    assert "-2 wide" in found[0].error
    assert "no number" in found[1].error


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("b.csv", "image,x,y,width,height\na.jpg,1,1,2,2\n", "no single column image_id"),
        ("b.csv", "image_id,x,y,w,h\na.jpg,1,1,2,2\n", "width, height; its columns are"),
        ("b.csv", "image_id,x,y,width,height\na.jpg,one,1,2,2\n", "cannot be read"),
        ("b.parquet", "PAR1", "not a readable table"),
        ("b.json", "{", "not COCO's JSON"),
        ("b.json", '{"images": [], "annotations": [{"image_id": 3}]}', "not COCO's JSON"),
        ("b.json", "[1]", "not COCO's JSON"),
        ("b.txt", "x", "no file of regions"),
    ],
)
def test_files_that_are_none_of_these(
    name: str, content: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        regions_of(tmp_path / name)
    with pytest.raises(InputError, match="there is no file"):
        regions_of(tmp_path / "nowhere")


PACKED = "n73S14L4N0O2N2O0O2O000O2O0000000000000001N10001N101N2N102L4Ld>0^A0000"


def coco(annotations: list[dict[str, Any]], **image: Any) -> str:
    return json.dumps(
        {
            "images": [{"id": 7, "file_name": "a.jpg", **image}, {"id": 8, "file_name": "z.jpg"}],
            "categories": [{"id": 1, "name": "person"}],
            "annotations": [{"image_id": 7, "category_id": 1, **a} for a in annotations],
        }
    )


def test_coco(tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    mask = np.zeros((64, 96), dtype=bool)
    mask[10:30, 20:25] = True
    flat = np.concatenate([[False], mask.T.ravel(), [not mask[-1, -1]]])
    edges = np.flatnonzero(np.diff(flat))
    runs = np.diff([0, *edges]).tolist()
    path.write_text(
        coco(
            [
                {"id": 11, "bbox": [1.2, 2, 10, 4], "segmentation": []},
                {"id": 12, "bbox": [0, 0, 9, 9],
                 "segmentation": [[0, 0, 4, 0, 4, 4, 0, 4], [2, 2, 6, 2, 6, 6, 2, 6]]},
                {"id": 13, "iscrowd": 1, "segmentation": {"counts": runs, "size": [64, 96]}},
                {"id": 14, "segmentation": {"counts": [3, 4], "size": [64, 96]}},
                {"id": 15, "segmentation": [[0, 0, 4]]},
                {"id": 16},
                {"id": "x", "bbox": [0, 0, 1, 1], "category_id": 2},
                {"id": 17, "image_id": 8, "bbox": [0, 0, 1, 1]},
            ],
            height=64, width=96,
        )
    )  # fmt: skip
    found = regions_of(path)
    assert counts(found) == [
        (11, "person", 40), (12, "person", 28), (13, "person", 100), (14, "person", None),
        (15, "person", None), (16, "person", None), (7, "2", 1),
    ]  # fmt: skip
    assert np.array_equal(mask_of(found[2].pixels, 64, 96), mask)
    regions = open_regions(Location(str(path)))
    assert list(regions.elsewhere({"a.jpg"})) == [("z.jpg", 17, "person")]
    [turned, *_] = regions_of(path, height=96, width=64)
    assert turned.pixels is None
    assert "the image is 96x64, it is 64x96" in turned.error


def test_cocos_packed_run_lengths(tmp_path: Path) -> None:
    """The text is pycocotools' of this mask."""
    y, x = np.mgrid[:40, :50]
    mask = ((x - 20) ** 2 / 200 + (y - 15) ** 2 / 90 < 1) | ((x > 46) & (y < 3))
    path = tmp_path / "packed.json"
    segmentation = {"counts": PACKED, "size": [40, 50]}
    path.write_text(coco([{"id": 1, "segmentation": segmentation}]))
    [region] = regions_of(path, height=40, width=50)
    assert np.array_equal(mask_of(region.pixels, 40, 50), mask)
    for text in (PACKED[:-3], "\x01", "~~~~~~~~~~~~~~~~~~~~", PACKED + "1"):
        path.write_text(coco([{"id": 1, "segmentation": {**segmentation, "counts": text}}]))
        [region] = regions_of(path, height=40, width=50)
        assert region.pixels is None
        assert "run lengths" in region.error


def test_masks(tmp_path: Path) -> None:
    values = np.zeros((64, 96), dtype=np.uint8)
    values[5:10, 5:15], values[30:, :10] = 3, 255
    palette = Image.fromarray(values).convert("P")
    palette.putdata(values.ravel().tolist())
    palette.putpalette([0, 0, 0] * 255 + [255, 0, 0])
    for mask in (Image.fromarray(values), palette, Image.fromarray(values.astype(np.uint16))):
        (tmp_path / "sub").mkdir(exist_ok=True)
        mask.save(tmp_path / "sub" / "a.png")
        found = regions_of(tmp_path, "sub/a.JPG")
        assert counts(found) == [(3, "3", 50), (255, "255", 340)]
        assert np.array_equal(mask_of(found[0].pixels, 64, 96), values == 3)
    Image.fromarray(values > 0).save(tmp_path / "b.png")
    assert counts(regions_of(tmp_path, "b.jpg")) == [(1, "1", 390)]
    assert regions_of(tmp_path, "c.jpg") == []
    # What a mask is not: another size (known before anything is decoded), colours, no PNG.
    bomb, data = Image.new("1", (12_000, 12_000)), io.BytesIO()
    bomb.save(data, "PNG")
    jpeg = io.BytesIO()
    Image.fromarray(values).save(jpeg, "JPEG")
    rgb = io.BytesIO()
    make_photo(1).save(rgb, "PNG")
    for content, message in (
        (data.getvalue(), "12000x12000"), (jpeg.getvalue(), "not a PNG"), (b"", "not a PNG"),
        (rgb.getvalue(), "one channel"), ((tmp_path / "b.png").read_bytes()[:60], "not a PNG"),
    ):  # fmt: skip
        (tmp_path / "c.png").write_bytes(content)
        [region] = regions_of(tmp_path, "c.jpg")
        assert (region.pixels, region.number) == (None, 0)
        assert message in region.error
    (tmp_path / "inside").mkdir()
    assert regions_of(tmp_path / "inside", "../b.jpg") == []


# -------------------------------------------------------------------------------------------- runs


@pytest.fixture
def scored(photos: Path, tmp_path: Path, tiny: DeepGaze) -> Run:
    (photos / "a" / "broken.png").write_bytes(b"\x89PNG and nothing more")
    return score(photos, tmp_path / "run", tiny)


def boxes(folder: Path, rows: list[tuple[Any, ...]]) -> Path:
    names = ["image_id", "name", "x", "y", "width", "height"]
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(pa.table(columns), folder / "boxes.parquet")
    return folder / "boxes.parquet"


GRID = [(f"{c},{r}", c * 17.0, r * 23.0, 17.0, 23.0) for c in range(6) for r in range(5)]


def test_every_region_has_a_row_and_its_share_is_the_densitys(scored: Run, tmp_path: Path) -> None:
    results = Results(scored)
    ids = results.plan()["image_id"].to_pylist()
    path = boxes(tmp_path, [(i, *box) for box in GRID for i in [*ids, "elsewhere.jpg"]])
    found = gazecore.measure_regions(results, path, tmp_path / "out.parquet")
    table = found.table
    assert table.schema.equals(REGIONS)
    assert table.num_rows == len(GRID) * 12
    assert (found.images, found.regions, found.unmeasured) == (10, 300, 60)
    rows = table.to_pylist()
    assert len({(row["image_id"], row["region"]) for row in rows}) == len(rows)
    for image_id in ids:
        of_image = [row for row in rows if row["image_id"] == image_id]
        if image_id == "a/broken.png":
            assert {row["status"] for row in of_image} == {"failed"}
            assert {row["error_message"] for row in of_image} == {
                "the run has no density of the image"
            }
            assert {row["share"] for row in of_image} == {None}
            continue
        density = np.exp(results.density(image_id))
        for row, (name, x, y, width, height) in zip(of_image, GRID, strict=True):
            part = density[int(y) : int(y + height), int(x) : int(x + width)]
            assert (row["name"], row["status"], row["pixels"]) == (name, "ok", part.size)
            assert row["share"] == pytest.approx(float(part.sum()), abs=1e-6)
            assert row["chance"] == pytest.approx(1 - (1 - row["share"]) ** 10)
            if part.size:
                at = density[int(row["peak_y"]), int(row["peak_x"])]
                assert at == part.max()
                assert row["peak_share"] == pytest.approx(at / density.max(), rel=1e-5)
                assert row["ratio"] == pytest.approx(row["share"] / row["area_share"])
        assert sum(row["share"] for row in of_image) == pytest.approx(1, abs=1e-6)
        by_share = sorted(of_image, key=lambda row: row["rank"])
        assert by_share[0]["rank"] == 1
        shares = [row["share"] for row in by_share]
        assert shares == sorted(shares, reverse=True)
        assert {row["recorded_share"] for row in of_image} == {None}


def test_duckdb_joins_the_table_by_image_id(scored: Run, tmp_path: Path) -> None:
    path = boxes(tmp_path, [("b/photo-0.jpg", "all", 0, 0, 999, 999)])
    gazecore.measure_regions(Results(scored), path, tmp_path / "out.parquet")
    sql = f"""SELECT s.image_id, r.share, s.width * s.height = r.pixels
              FROM '{tmp_path}/run/scores/*.parquet' s JOIN '{tmp_path}/out.parquet' r
              USING (image_id)"""
    [(image_id, share, whole)] = duckdb.sql(sql).fetchall()
    assert (image_id, whole) == ("b/photo-0.jpg", True)
    assert share == pytest.approx(1, abs=1e-6)


def corpus_of(rows: list[tuple[Any, ...]], size: tuple[int, int] = (64, 96)) -> Corpus:
    """Fixations of (image_id, subject, index, x, y, t, duration)."""
    images = [
        {"image_id": i, "uri": i, "height": size[0], "width": size[1]}
        for i in dict.fromkeys(row[0] for row in rows)
    ]
    fixations = [dict(zip(FIXATIONS.names, row, strict=True)) for row in rows]
    return Corpus(pa.Table.from_pylist(images, IMAGES), pa.Table.from_pylist(fixations, FIXATIONS))


def test_what_people_did_stands_beside(scored: Run, tmp_path: Path) -> None:
    image = "b/photo-0.jpg"
    rows = [
        # In the left half: the second viewer's first and third, the first's third.
        (image, "1", 0, 60.0, 5.0, 0.0, 0.2),
        (image, "1", 1, 48.0, 5.0, 0.4, 0.2),
        (image, "1", 4, 47.9, 5.0, 0.9, 0.3),
        (image, "2", 2, 3.0, 60.0, 0.6, 0.1),
        (image, "2", 0, 3.0, 60.0, 0.1, 0.4),
        (image, "2", 1, 90.0, 60.0, 0.3, 0.2),
        (image, "3", 0, 90.0, 60.0, 0.2, 0.6),
    ]
    path = boxes(tmp_path, [(image, "left", 0, 0, 48, 64), (image, "never", 50, 30, 9, 9)])
    out = tmp_path / "out.parquet"
    results = Results(scored)
    found = gazecore.measure_regions(results, path, out, corpus=corpus_of(rows))
    left, never = found.table.to_pylist()
    assert left["recorded_fixations"] == 3
    assert left["recorded_share"] == pytest.approx(3 / 7)
    assert left["viewers"] == 3
    assert left["hit_share"] == pytest.approx(2 / 3)
    assert left["first_hit"] == pytest.approx((4 + 0) / 2)
    assert left["first_hit_seconds"] == pytest.approx((0.9 + 0.1) / 2)
    assert left["dwell_seconds"] == pytest.approx((0.3 + 0.4 + 0.1) / 3)
    assert left["dwell_share"] == pytest.approx(0.8 / 2.0)
    assert (never["recorded_share"], never["hit_share"], never["dwell_seconds"]) == (0, 0, 0)
    assert (never["first_hit"], never["first_hit_seconds"]) == (None, None)
    # Times that are not known stay unknown; the order is there.
    unknown = [(*row[:5], None, None) for row in rows]
    left, _ = gazecore.measure_regions(
        results, path, out, corpus=corpus_of(unknown)
    ).table.to_pylist()
    assert left["first_hit"] == 2
    assert {left[n] for n in ("first_hit_seconds", "dwell_seconds", "dwell_share")} == {None}
    # An image of another size, or without fixations, has no record.
    for other in (corpus_of(rows, (640, 960)), corpus_of([("c.jpg", *rows[0][1:])])):
        left, _ = gazecore.measure_regions(results, path, out, corpus=other).table.to_pylist()
        assert left["share"] > 0
        assert left["recorded_share"] is None


def test_files_of_others_and_mistakes(scored: Run, tmp_path: Path) -> None:
    path = boxes(tmp_path, [("b/photo-0.jpg", "", 0, 0, 9, 9)])
    regions, out = open_regions(Location(str(path))), tmp_path / "out.parquet"
    out.write_bytes(b"mine")
    with pytest.raises(InputError, match="gazecore did not make it"):
        measure_run(scored, regions, Location(str(out)))
    with pytest.raises(InputError, match="gazecore did not make it"):
        measure_run(scored, regions, Location(str(path)))  # the input itself
    assert out.read_bytes() == b"mine"
    measure_run(scored, regions, Location(str(out)), overwrite=True)
    measure_run(scored, regions, Location(str(out)))  # its own it replaces
    with pytest.raises(InputError, match="lies in the run"):
        measure_run(scored, regions, Location(f"{scored.location.uri}/regions.parquet"))
    with pytest.raises(InputError, match="at least 1"):
        measure_run(scored, regions, Location(str(out)), fixations=0)
    before = out.read_bytes()
    strangers = open_regions(Location(str(boxes(tmp_path, [("x.jpg", "", 0, 0, 9, 9)]))))
    with pytest.raises(InputError, match=r"no region is of an image .* 'x.jpg', for instance"):
        measure_run(scored, strangers, Location(str(out)))
    assert out.read_bytes() == before
    assert not list(tmp_path.glob("*.tmp"))


def test_few_densities_are_held_at_a_time(scored: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    monkeypatch.setattr(stream, "cores", lambda most: 2)

    def work(density: stream.StoredDensity) -> str:
        begun.append(density.image_id)
        assert density.probabilities().sum() == pytest.approx(1, abs=1e-5)
        return density.image_id

    taken = []
    for image_id in stream.of_each(stream.stored_densities(scored), work):
        taken.append(image_id)
        assert len(begun) <= len(taken) + 4
    assert taken == [i for i, _ in Results(scored).densities()]


def test_a_density_in_memory(tiny_file: str) -> None:
    density = gazecore.load(tiny_file).predict(make_photo(3, 120, 90))
    whole = np.exp(density.log_density.astype(float))
    assert density.share((0, 0, 120, 90)) == pytest.approx(1, abs=1e-5)
    assert density.share((10, 20, 30, 40)) == pytest.approx(whole[20:60, 10:40].sum(), abs=1e-6)
    corners = [(10, 20), (40, 20), (40, 60), (10, 60)]
    assert density.share(corners) == density.share((10, 20, 30, 40))
    assert density.share(whole > np.median(whole)) > 0.5
    with pytest.raises(InputError, match="not of this image"):
        density.share(np.ones((5, 5), dtype=bool))
