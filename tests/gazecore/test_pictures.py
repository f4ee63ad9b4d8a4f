"""Heat maps, formats, and a run drawn anew."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gazecore.errors import InputError
from gazecore.model.deepgaze import DeepGaze
from gazecore.ownership import is_our_picture
from gazecore.results.reader import Results
from gazecore.storage import Location
from gazecore.view.bulk import PictureOptions, draw, export_pictures
from gazecore.view.canvas import LEGEND, SUFFIXES
from gazecore.view.heatmap import draw_heatmap
from tests.conftest import make_photo, make_photos
from tests.gazecore.test_export import score
from tests.gazecore.test_overlay import bump

SIZES = [(64, 48), (6000, 4000), (3000, 300), (1, 1), (300, 3000), (640, 480)]


def heatmap(size: tuple[int, int], log_density: np.ndarray, **options: object) -> np.ndarray:
    file = io.BytesIO()
    draw_heatmap(Image.new("RGB", size, (90, 90, 90)), log_density, file, **options)  # type: ignore
    return np.asarray(Image.open(file)).astype(int)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["overlay", "heatmap"])
def test_any_size_is_drawn_with_its_legend(size: tuple[int, int], kind: str) -> None:
    image = Image.new("RGB", size, "white")
    data = draw(image, bump(48, 64, 0.4, 0.5, 0.2), kind, PictureOptions(size=800))  # type: ignore
    found = Image.open(io.BytesIO(data))
    longer = max(LEGEND[0], 800 if max(size) > 800 else max(*size, 512))
    assert max(found.width, found.height - LEGEND[1]) == longer
    below = np.asarray(found.convert("L"))[-LEGEND[1] :]
    assert (below < 100).any(), "there is text"
    assert below[:, -3:].min() == 255, "which is not cut"


@pytest.mark.parametrize("shade", ["black", "white"])
def test_colours_say_the_share_of_the_fixations(shade: str) -> None:
    log_density = bump(120, 160, 0.5, 0.5, 0.1)
    file = io.BytesIO()
    draw_heatmap(Image.new("RGB", (640, 480), shade), log_density, file, legend=False)
    grey = np.asarray(Image.open(file).convert("L")).astype(int)
    # From the middle outwards nothing becomes brighter.
    assert np.diff(grey[240, 320:]).max() <= 1
    assert grey[240, 320] > grey[240, 400] > grey[240, 600]


def test_alpha_is_the_share_that_is_not_denser() -> None:
    log_density = bump(120, 160, 0.5, 0.5, 0.1)
    found = heatmap((640, 480), log_density, transparent=True)
    assert found.shape == (480, 640, 4)
    alpha = found[..., 3] / 255
    # Of a Gaussian, 1 - exp(-r^2 / 2) lies within r deviations, of 64 pixels here.
    for deviations in (0.5, 1, 2):
        at = alpha[240, 320 + round(64 * deviations)]
        assert at == pytest.approx(np.exp(-(deviations**2) / 2), abs=0.02)
    assert alpha[0, 0] == 0


def test_a_uniform_density_is_one_colour() -> None:
    found = heatmap((400, 300), np.full((24, 32), -np.log(768)), legend=False)
    assert np.ptp(found.reshape(-1, found.shape[2]), axis=0).max() <= 1


@pytest.mark.parametrize("format", ["png", "webp", "jpeg"])
@pytest.mark.parametrize("kind", ["overlay", "heatmap"])
def test_files_are_what_they_are_called_and_known_as_ours(
    tmp_path: Path, format: str, kind: str
) -> None:
    options = PictureOptions(format=format)  # type: ignore
    path = tmp_path / f"a{SUFFIXES[options.format]}"
    path.write_bytes(draw(make_photo(1, 200, 100), bump(24, 48, 0.5, 0.5, 0.2), kind, options))  # type: ignore
    with Image.open(path) as found:
        assert found.format == format.upper()
        assert found.mode == "RGB"
    assert is_our_picture(Location(str(path)))
    make_photo(1).save(path)
    assert not is_our_picture(Location(str(path)))


@pytest.mark.parametrize(
    ("kind", "options", "why"),
    [
        ("overlay", PictureOptions(transparent=True), "only heat maps"),
        ("heatmap", PictureOptions("jpeg", transparent=True), "JPEG"),
        ("heatmap", PictureOptions(size=0), "0 pixels"),
    ],
)
def test_what_makes_no_sense_is_refused(kind: str, options: PictureOptions, why: str) -> None:
    with pytest.raises(InputError, match=why):
        options.check(kind)  # type: ignore


def test_a_run_is_drawn_anew_and_what_is_gone_is_named(tmp_path: Path, tiny: DeepGaze) -> None:
    photos = make_photos(tmp_path / "photos")
    run = score(photos, tmp_path / "run", tiny)
    results = Results(run)
    ids = results.scores.filter(results.scores["status"].to_numpy(False) == "ok")["image_id"]
    gone, grown = ids[0].as_py(), ids[1].as_py()
    (photos / gone).unlink()
    make_photo(1, 333, 99).save(photos / grown)
    out = Location(str(tmp_path / "drawn"))
    drawn = export_pictures(results, out, "overlay", PictureOptions("webp", 300, legend=False))
    assert list(drawn.unread) == [gone, grown]
    assert "333x99" in drawn.unread[grown]
    made = [path for path in (tmp_path / "drawn").rglob("*") if path.is_file()]
    assert len(made) == len(ids) - 2 == drawn.status.ok - 2
    with Image.open(made[0]) as picture:
        assert picture.format == "WEBP"
        assert max(picture.size) == 300
    # The same again replaces its own.
    export_pictures(results, out, "heatmap", PictureOptions("webp", 300))
    Image.new("RGB", (9, 9)).save(made[0])
    with pytest.raises(InputError, match="did not make it"):
        export_pictures(results, out, "heatmap", PictureOptions("webp", 300))
