"""Positions on a screen, brought to the images that stood there."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gazecore.corpus.screen import Origin, Shown, box_of, from_top_left, on_image
from gazecore.errors import CorpusError

sizes = st.tuples(st.integers(1, 4000), st.integers(1, 4000))


def test_positions_on_cocos_own_images_are_brought_back() -> None:
    # 640 x 426 fills the height: 1050 / 426 = 2.46 display pixels a pixel, bars left and right.
    left = (1680 - 640 * 1050 / 426) / 2
    box = box_of((640, 426), (1680, 1050), "fit", "")
    x, y = on_image(
        np.array([left, 840.0, 1680 - left]), np.array([0, 525.0, 1050]), box, (640, 426)
    )
    np.testing.assert_allclose(x, [0, 320, 640], atol=1e-9)
    np.testing.assert_allclose(y, [0, 213, 426], atol=1e-9)
    same = box_of((1680, 1050), (1680, 1050), "fit", "")
    x, y = on_image(np.array([0.0, 1680.0]), np.array([7.0, 1043.0]), same, (1680, 1050))
    np.testing.assert_array_equal(x, [0, 1680])
    np.testing.assert_array_equal(y, [7, 1043])


@given(image=sizes, screen=sizes, shown=st.sampled_from(["centred", "fit", "stretched"]))
def test_an_image_lies_on_the_screen_with_its_middle_in_the_middle(
    image: tuple[int, int], screen: tuple[int, int], shown: Shown
) -> None:
    if shown == "centred" and (image[0] > screen[0] or image[1] > screen[1]):
        with pytest.raises(CorpusError, match=r"--table\.shown fit"):
            box_of(image, screen, shown, "--table.shown")
        return
    left, top, width, height = box_of(image, screen, shown, "--table.shown")
    assert left >= -1e-9
    assert top >= -1e-9
    assert left + width <= screen[0] + 1e-9
    assert top + height <= screen[1] + 1e-9
    middle = np.array([screen[0] / 2]), np.array([screen[1] / 2])
    x, y = on_image(*middle, (left, top, width, height), image)
    np.testing.assert_allclose([x[0], y[0]], [image[0] / 2, image[1] / 2], rtol=1e-9)
    if shown == "fit":
        assert width / height == pytest.approx(image[0] / image[1])
        assert width == pytest.approx(screen[0]) or height == pytest.approx(screen[1])


@pytest.mark.parametrize("shares", [False, True])
@pytest.mark.parametrize(
    ("origin", "points"),
    [
        ("top-left", [(10, 20), (0, 0)]),
        ("bottom-left", [(10, 40), (0, 60)]),
        ("centre", [(-30, 10), (-40, 30)]),
    ],
)
def test_every_origin_and_unit_names_the_same_places(
    origin: Origin, points: list[tuple[float, float]], shares: bool
) -> None:
    scale = np.array([80, 60]) if shares else 1
    x, y = (np.array(points) / scale).T
    found = from_top_left(x, y, (80, 60), origin, shares)
    np.testing.assert_allclose(found, np.transpose([(10, 20), (0, 0)]), atol=1e-9)


def test_the_far_borders_are_the_last_pixels_where_positions_are_no_pixel_numbers() -> None:
    zero, one = np.zeros(1), np.ones(1)
    assert np.hstack(from_top_left(one, one, (80, 60), "top-left", True)).tolist() == [79.5, 59.5]
    assert np.hstack(from_top_left(80 * one, zero, (80, 60), "bottom-left", False)).tolist() == [
        79.5, 59.5,
    ]  # fmt: skip
    assert np.hstack(from_top_left(80 * one, zero, (80, 60), "top-left", False)).tolist() == [80, 0]
