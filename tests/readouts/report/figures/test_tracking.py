"""Points where they belong: x to the right, y down, padding nowhere; accuracy by hand."""

from typing import Any

import numpy as np
import pytest

from readouts.report.figures import end_points, error_histogram
from readouts.report.figures.base import COLOURS, sheet
from readouts.report.figures.tracking import _histogram, within_thresholds

GREY = np.full((60, 90, 3), 70, np.uint8)
STILL = np.array([[0.25, 0.75]])
PATH = np.stack([STILL, [[0.4, 0.75]], [[0.4, 0.3]]])


def frames_of(image: np.ndarray) -> list[tuple[slice, slice]]:
    """Rows and columns of the first and of the last frame: the grey areas left and right of the middle."""
    grey = (abs(image - 70) < 6).all(axis=2)
    rows = np.flatnonzero(grey.sum(axis=1) > image.shape[1] / 3)
    columns = np.flatnonzero(grey.sum(axis=0) > len(rows) / 2)
    middle = int(np.argmax(np.diff(columns)))
    sides = (columns[: middle + 1], columns[middle + 1 :])
    return [(slice(rows[0], rows[-1] + 1), slice(side[0], side[-1] + 1)) for side in sides]


def centre(mask: np.ndarray) -> tuple[float, float]:
    """The (x, y) centre of what is marked, in shares of width and height."""
    y, x = np.nonzero(mask)
    return ((x.min() + x.max() + 1) / 2 / mask.shape[1], (y.min() + y.max() + 1) / 2 / mask.shape[0])


def colourful(image: np.ndarray) -> np.ndarray:
    return np.ptp(image, axis=2) > 50


def test_points_are_drawn_where_they_are(pixels_of) -> None:
    image = pixels_of(end_points(GREY, GREY, STILL, PATH, np.array([[0.8, 0.2]])))
    first, last = (image[where] for where in frames_of(image))
    assert centre(colourful(first)) == pytest.approx((0.25, 0.75), abs=0.02)
    assert centre((last > 200).all(axis=2)) == pytest.approx((0.8, 0.2), abs=0.02)
    path = colourful(last)
    height, width = path.shape
    # The path runs right along y = 0.75, then up along x = 0.4 to its end: all of it, and nothing else.
    assert path[int(0.5 * height), int(0.36 * width) : int(0.44 * width)].any()
    assert path[int(0.71 * height) : int(0.79 * height), int(0.32 * width)].any()
    assert not path[:, int(0.5 * width) :].any()
    at_the_end, on_the_way = path[int(0.3 * height)].sum(), path[int(0.5 * height)].sum()
    assert at_the_end > 2 * on_the_way  # a dot, not only the end of a line
    assert not (last[path] > 200).all(axis=1).any()


def test_a_squeezed_frame_gets_its_shape_back(pixels_of) -> None:
    for aspect, expected in ((None, 1.5), (1.25, 1.25)):
        image = pixels_of(end_points(GREY, GREY, STILL, PATH, STILL, aspect=aspect))
        (rows, columns), _ = frames_of(image)
        assert (columns.stop - columns.start) / (rows.stop - rows.start) == pytest.approx(expected, rel=0.02)


def test_padding_is_not_drawn() -> None:
    pad = np.array([[-1.0, -1.0]])
    padded: dict[str, Any] = {"valid_query": np.array([True, False]), "valid_end": np.array([True, False])}
    path = np.concatenate([PATH, pad[None].repeat(3, axis=0)], axis=1)
    query, end = np.concatenate([STILL, pad]), np.concatenate([PATH[-1], pad])
    assert end_points(GREY, GREY, query, path, end, **padded) == end_points(GREY, GREY, STILL, PATH, PATH[-1])


def test_a_video_without_true_ends_is_drawn(pixels_of) -> None:
    image = pixels_of(end_points(GREY, GREY, STILL, PATH, STILL, valid_end=np.array([False])))
    last = image[frames_of(image)[1]]
    assert not (last > 200).all(axis=2).any()
    assert colourful(last).any()


def test_noisy_frames_stay_small(pixels_of) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (224, 224, 3)).astype(np.uint8)
    pixels_of(end_points(frame, frame, STILL, PATH, STILL))


def test_thresholds_count_points_on_them() -> None:
    errors = np.array([4.0, 5.0, 64.0, np.inf])
    assert within_thresholds(errors).tolist() == [0.25, 0.5, 0.5, 0.5, 0.75]
    assert within_thresholds(np.zeros(0)).tolist() == [0] * 5


def test_the_histogram_names_the_accuracy(svg_of) -> None:
    errors = {"tracking": np.array([0.0, 5.0, 64.0, np.inf])}
    baselines = {"the query point": np.array([4.0, 40.0, 100.0], np.float32)}
    text = svg_of(error_histogram(errors, baselines))
    assert "<!-- tracking  0.500 -->" in text
    assert "<!-- the query point  0.400 -->" in text  # (4 x 1/3 + 2/3) / 5
    assert text.count(f"stroke: {COLOURS['tracking']}") >= 3  # bins, shares, legend
    assert all(f"<!-- {threshold} -->" in text for threshold in (4, 8, 16, 32, 64))


def test_every_point_is_in_a_bin() -> None:
    # The largest and the smallest error are beyond the edges: shares must still add up.
    _, (axes,) = sheet(1, 1, height=2.0)
    _histogram(axes, np.array([0.0, 0.4, 20.0, 5000.0, np.inf]), {})
    shares = axes.patches[0].get_data().values
    assert shares.sum() == pytest.approx(100)
    assert (shares[0], shares[-1]) == pytest.approx((40, 40))
