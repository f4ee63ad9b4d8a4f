"""An overlay can be read whatever the image's size, and is bright where people look."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from gazecore.density.peaks import apart
from gazecore.density.resample import normalise
from gazecore.geometry import GRID_STRIDE, network_size
from gazecore.view.canvas import LEGEND
from gazecore.view.overlay import MARKER, MASSES, MOST_PEAKS, draw_overlay


def bump(rows: int, columns: int, x: float, y: float, sigma: float) -> np.ndarray:
    """A normalised Gaussian log density; x, y and sigma in shares of the sides."""
    across = ((np.arange(columns) + 0.5) / columns - x) / sigma
    down = ((np.arange(rows) + 0.5) / rows - y) / sigma
    return normalise(-(across[None] ** 2 + down[:, None] ** 2) / 2)


def drawn(
    image: Image.Image, log_density: np.ndarray, path: Path, legend: bool = False
) -> np.ndarray:
    draw_overlay(image, log_density, path, legend=legend)
    with Image.open(path) as found:
        assert found.format == "PNG"
        return np.asarray(found.convert("RGB")).astype(float)


def grid_of(size: tuple[int, int]) -> tuple[int, ...]:
    """Rows and columns of the density of an image of (width, height)."""
    return tuple(side // GRID_STRIDE for side in network_size(size[1], size[0], "1024"))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((640, 480), (640, 480)),
        ((1025, 512), (1024, 512)),
        ((512, 300), (512, 300)),
        ((2000, 1000), (1024, 512)),
        # Small ones are enlarged ...
        ((1, 1), (512, 512)),
        ((2, 2), (512, 512)),
        ((54, 64), (432, 512)),
        ((64, 48), (512, 384)),
        ((251, 502), (256, 512)),
        # ... and narrow ones stretched.
        ((1, 50), (64, 512)),
        ((3000, 300), (1024, 102)),
        ((3000, 20), (1024, 64)),
        ((20, 3000), (64, 1024)),
    ],
)
@pytest.mark.parametrize("kind", ["uniform", "bump"])
def test_the_picture_has_the_aspect_of_the_image_and_room_for_marks(
    tmp_path: Path, size: tuple[int, int], expected: tuple[int, int], kind: str
) -> None:
    rows, columns = grid_of(size)
    log_density = bump(rows, columns, 0.3, 0.6, 0.2)
    if kind == "uniform":
        log_density = np.full((rows, columns), -np.log(rows * columns), dtype=np.float32)
    image = Image.new("RGB", size, (120, 140, 160))
    assert drawn(image, log_density, tmp_path / "overlay.png").shape[1::-1] == expected
    width, height = max(expected[0], LEGEND[0]), expected[1] + LEGEND[1]
    found = drawn(image, log_density, tmp_path / "explained.png", legend=True)
    assert found.shape[1::-1] == (width, height)
    assert found[expected[1] :, -3:].min() == 255, "the legend's text is not cut"


def ripples(rows: int, columns: int) -> np.ndarray:
    """A density with a peak on every sixth cell, of random heights."""
    rng = np.random.default_rng(4)
    y, x = np.mgrid[:rows, :columns]
    waves = np.cos(2 * np.pi * x / 6) + np.cos(2 * np.pi * y / 6)
    heights = np.kron(rng.random((rows // 6 + 2, columns // 6 + 2)), np.ones((6, 6)))
    return normalise(waves / 4 + heights[3 : 3 + rows, 3 : 3 + columns] / 4)


@pytest.mark.parametrize("size", [(54, 64), (64, 48), (3000, 300), (1, 1), (1, 4000), (640, 480)])
def test_markers_neither_cover_each_other_nor_the_picture(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    log_density = ripples(*grid_of(size))
    pixels = drawn(Image.new("RGB", size, "black"), log_density, tmp_path / "overlay.png")
    # On a black image the markers are all that is white, but for their numbers.
    discs = ndimage.binary_fill_holes(pixels.min(axis=2) > 200)
    _, count = ndimage.label(discs)
    assert 2 <= count <= MOST_PEAKS
    areas = ndimage.sum_labels(discs, ndimage.label(discs)[0], np.arange(count) + 1)
    assert areas.min() > 200, "each is whole"
    assert areas.max() < 1.1 * np.pi / 4 * MARKER**2, "no two are one"
    assert discs.mean() < 0.1


def test_a_marker_at_the_border_is_whole(tmp_path: Path) -> None:
    image = Image.new("RGB", (600, 300), "black")
    pixels = drawn(image, bump(48, 96, 1.0, 0.0, 0.1), tmp_path / "overlay.png")
    disc = ndimage.binary_fill_holes(pixels.min(axis=2) > 200)
    assert disc.sum() == pytest.approx(np.pi / 4 * (MARKER - 2) ** 2, rel=0.15)
    assert disc[:MARKER, -MARKER:].sum() == disc.sum()


def test_the_highest_of_those_that_are_too_near_stay() -> None:
    places = np.array([[0, 0], [3, 4], [3, 5], [30, 0], [29, 0], [60, 60]])
    assert apart(places, 5, most=9) == [0, 1, 3, 5]
    assert apart(places, 5.5, most=9) == [0, 2, 3, 5]
    assert apart(places, 5, most=2) == [0, 1]
    assert apart(places[:0], 5, most=2) == []


def test_the_legend_has_the_lines_colours(tmp_path: Path) -> None:
    image = Image.new("RGB", (600, 400), "black")
    pixels = drawn(image, bump(60, 90, 0.5, 0.5, 0.2), tmp_path / "overlay.png", legend=True)
    picture, legend = pixels[:400], pixels[400:]
    assert len(legend) == LEGEND[1]
    assert (legend.min(axis=2) > 250).mean() > 0.8  # text on white
    assert (legend.max(axis=2) < 100).any()
    samples = ndimage.label((legend.max(axis=2) > 150) & (np.ptp(legend, axis=2) > 60))
    colours = [
        legend[samples[0] == i + 1].mean(axis=0)
        for i in range(samples[1])
        if (samples[0] == i + 1).sum() > 30
    ]
    assert len(colours) == len(MASSES)
    outermost = picture[200, : np.argmax(picture[200].sum(axis=1) > 200) + 3].max(axis=0)
    nearest = [np.abs(colour - outermost).sum() for colour in colours]
    assert int(np.argmin(nearest)) == 0, "90 % comes first"


def test_it_is_bright_where_people_look(tmp_path: Path) -> None:
    image = Image.new("RGB", (480, 240), (200, 200, 200))
    pixels = drawn(image, bump(60, 120, 0.25, 0.5, 0.12), tmp_path / "overlay.png")
    # Beside the peak, whose marker covers it, but for a contour; against the image's other end.
    assert np.median(pixels[100:140, 90:102]) > 195
    assert 50 < pixels[100:140, 440:470].mean() < 90


def test_a_uniform_density_dims_nothing(tmp_path: Path) -> None:
    image = Image.new("RGB", (200, 100), (200, 100, 50))
    pixels = drawn(image, np.full((32, 64), -np.log(32 * 64)), tmp_path / "overlay.png")
    # The marker of the one peak may be anywhere, and covers a circle of about 20 pixels.
    assert (np.abs(pixels - (200, 100, 50)).max(axis=2) <= 1).mean() > 0.95


def test_a_very_sharp_density_is_drawn(tmp_path: Path) -> None:
    log_density = np.full((32, 64), -1000.0)
    log_density[10, 20] = 0
    pixels = drawn(Image.new("RGB", (512, 256), "white"), log_density, tmp_path / "overlay.png")
    assert pixels.shape == (256, 512, 3)
    assert pixels[200:, 400:].max() < 100


def test_the_peak_is_marked_where_it_is(tmp_path: Path) -> None:
    image = Image.new("RGB", (600, 300), "black")
    pixels = drawn(image, bump(50, 100, 0.75, 0.25, 0.1), tmp_path / "overlay.png")
    # The marker is the only white thing on a black image.
    rows, columns = np.nonzero(pixels.min(axis=2) > 240)
    assert np.abs([columns.mean() - 450, rows.mean() - 75]).max() < 4
