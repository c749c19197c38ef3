"""Shapes where they should be, to a tenth of a pixel; noise and texture with the moments they claim."""

import numpy as np
import pytest

from featcache.synthetic.drawing import Canvas, beside, grain, mottle

BLACK = np.zeros((60, 80), dtype=np.float32)
SILENCE = [BLACK, BLACK]
PLACE = np.array([[30.3, 25.6], [41.0, 30.0]])


def coverage(canvas: Canvas) -> np.ndarray:
    return canvas.frames(SILENCE).astype(np.float64) / 250.0


def centre_of(cover: np.ndarray) -> np.ndarray:
    rows, columns = np.mgrid[: cover.shape[1], : cover.shape[2]]
    mass = cover.sum(axis=(1, 2))
    return np.stack(
        [(cover * columns).sum(axis=(1, 2)) / mass, (cover * rows).sum(axis=(1, 2)) / mass], axis=1
    )


def test_ellipse_has_its_area_centre_and_direction() -> None:
    canvas = Canvas(BLACK, 2)
    canvas.ellipse(PLACE, np.array([0.0, np.pi / 2]), (12.0, 6.0), shade=250.0)
    cover = coverage(canvas)
    np.testing.assert_allclose(cover.sum(axis=(1, 2)), np.pi * 12 * 6, rtol=0.02)
    np.testing.assert_allclose(centre_of(cover), PLACE, atol=0.02)
    extent = [(frame.sum(axis=1) > 0.5).sum() for frame in cover]  # rows touched: short axis, then long
    assert 12 <= extent[0] <= 13
    assert 23 <= extent[1] <= 25


def test_stroke_is_as_long_and_wide_as_asked() -> None:
    canvas = Canvas(BLACK, 2)
    canvas.stroke(PLACE, beside(PLACE, np.full(2, 0.7), 15.0), 4.0, shade=250.0)
    cover = coverage(canvas)
    np.testing.assert_allclose(cover.sum(axis=(1, 2)), 15 * 4 + np.pi * 4, rtol=0.02)
    np.testing.assert_allclose(centre_of(cover), beside(PLACE, np.full(2, 0.7), 7.5), atol=0.05)


def test_shapes_may_leave_the_picture() -> None:
    canvas = Canvas(BLACK, 2)
    canvas.ellipse(np.array([[-300.0, 5.0], [-0.5, 30.0]]), np.zeros(2), (8.0, 8.0), shade=250.0)
    cover = coverage(canvas)
    assert cover[0].sum() == 0
    assert cover[1].sum() == pytest.approx(np.pi * 32, rel=0.02)  # half a disc is inside


def test_opacity_mixes_with_what_lies_under() -> None:
    canvas = Canvas(BLACK + 200, 2)
    canvas.ellipse(np.full((2, 2), 30.0), np.zeros(2), (9.0, 9.0), shade=100.0, opacity=0.25)
    assert canvas.frames(SILENCE)[0, 30, 30] == 175


def test_left_of_an_animal_that_faces_right_is_up() -> None:
    np.testing.assert_allclose(beside(np.zeros((1, 2)), np.zeros(1), 3.0, 2.0), [[3.0, -2.0]])


def test_grain_and_mottle_have_their_moments() -> None:
    rng = np.random.default_rng(0)
    noise = grain(rng, 3, 100, 120, sigma=2.0)
    assert [frame.shape for frame in noise] == [(100, 120)] * 3
    assert noise[0].std() == pytest.approx(2.0, rel=0.05)
    assert not np.array_equal(noise[0], noise[1])
    texture = mottle(rng, 400, 500, cell=5.0)
    assert texture.shape == (400, 500)
    assert texture.std() == pytest.approx(1.0, rel=0.05)
