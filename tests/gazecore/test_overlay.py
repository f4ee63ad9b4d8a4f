"""An overlay has the image's size and is bright where people look."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gazecore.density.resample import normalise
from gazecore.geometry import GRID_STRIDE, network_size
from gazecore.view.overlay import draw_overlay


def bump(rows: int, columns: int, x: float, y: float, sigma: float) -> np.ndarray:
    """A normalised Gaussian log density; x, y and sigma in shares of the sides."""
    across = ((np.arange(columns) + 0.5) / columns - x) / sigma
    down = ((np.arange(rows) + 0.5) / rows - y) / sigma
    return normalise(-(across[None] ** 2 + down[:, None] ** 2) / 2)


def drawn(image: Image.Image, log_density: np.ndarray, path: Path) -> np.ndarray:
    draw_overlay(image, log_density, path)
    with Image.open(path) as found:
        assert found.format == "PNG"
        return np.asarray(found.convert("RGB")).astype(float)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1, 1), (1, 1)),
        ((1, 50), (1, 50)),
        ((3000, 20), (1024, 7)),
        ((20, 3000), (7, 1024)),
        ((3000, 1), (1024, 1)),
        ((2, 2), (2, 2)),
        ((640, 480), (640, 480)),
        ((1025, 512), (1024, 512)),
        ((29, 57), (29, 57)),
        ((115, 58), (115, 58)),
        ((251, 502), (251, 502)),
    ],
)
@pytest.mark.parametrize("kind", ["uniform", "bump"])
def test_the_picture_has_the_size_of_the_image(
    tmp_path: Path, size: tuple[int, int], expected: tuple[int, int], kind: str
) -> None:
    width, height = size
    rows, columns = (side // GRID_STRIDE for side in network_size(height, width, "1024"))
    log_density = bump(rows, columns, 0.3, 0.6, 0.2)
    if kind == "uniform":
        log_density = np.full((rows, columns), -np.log(rows * columns), dtype=np.float32)
    pixels = drawn(Image.new("RGB", size, (120, 140, 160)), log_density, tmp_path / "overlay.png")
    assert pixels.shape[1::-1] == expected


def test_it_is_bright_where_people_look(tmp_path: Path) -> None:
    image = Image.new("RGB", (480, 240), (200, 200, 200))
    pixels = drawn(image, bump(60, 120, 0.25, 0.5, 0.12), tmp_path / "overlay.png")
    # Beside the peak, whose marker covers it, against the other end of the image.
    assert pixels[100:140, 90:102].mean() > 195
    assert 50 < pixels[100:140, 440:470].mean() < 90


def test_a_uniform_density_dims_nothing(tmp_path: Path) -> None:
    image = Image.new("RGB", (200, 100), (200, 100, 50))
    pixels = drawn(image, np.full((32, 64), -np.log(32 * 64)), tmp_path / "overlay.png")
    # The marker of the one peak may be anywhere, and covers a circle of about 20 pixels.
    assert (np.abs(pixels - (200, 100, 50)).max(axis=2) <= 1).mean() > 0.95


def test_a_very_sharp_density_is_drawn(tmp_path: Path) -> None:
    log_density = np.full((32, 64), -1000.0)
    log_density[10, 20] = 0
    pixels = drawn(Image.new("RGB", (256, 128), "white"), log_density, tmp_path / "overlay.png")
    assert pixels.shape == (128, 256, 3)
    assert pixels[100:, 200:].max() < 100


def test_the_peak_is_marked_where_it_is(tmp_path: Path) -> None:
    image = Image.new("RGB", (400, 200), "black")
    pixels = drawn(image, bump(50, 100, 0.75, 0.25, 0.1), tmp_path / "overlay.png")
    # The marker is the only white thing on a black image.
    rows, columns = np.nonzero(pixels.min(axis=2) > 240)
    assert np.abs([columns.mean() - 300, rows.mean() - 50]).max() < 4
