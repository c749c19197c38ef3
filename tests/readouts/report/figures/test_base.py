"""Colours that all readers can tell apart, addresses that hold what they say."""

from itertools import combinations

import numpy as np
import pytest

from readouts.report.figures.base import (
    BASELINE_COLOUR,
    COLOURS,
    SPARE_COLOURS,
    TRUTH_COLOUR,
    as_baseline,
    colours_of,
    legend_above,
    photograph,
    png,
    sheet,
    svg,
)

# Machado, Oliveira and Fernandes 2009: linear RGB as it is seen without one kind of cone.
SEEN = {
    "three cones": np.eye(3),
    "no red cone": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "no green cone": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
}


def lab(colour: str, seen: np.ndarray) -> np.ndarray:
    """CIELAB, whose distances are those of the eye: about 2 is seen when two fields touch."""
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.clip(
        seen @ np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4), 0, 1
    )
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(to_xyz @ linear / to_xyz.sum(axis=1))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("seen", SEEN.values(), ids=SEEN)
def test_colours_are_told_apart_on_white(seen: np.ndarray) -> None:
    colours = [*COLOURS.values(), BASELINE_COLOUR, TRUTH_COLOUR, *SPARE_COLOURS]
    points = [lab(colour, np.asarray(seen)) for colour in colours]
    assert min(np.linalg.norm(a - b) for a, b in combinations(points, 2)) > 15
    assert max(point[0] for point in points) < 65


def test_a_readout_keeps_its_colour_and_strangers_get_others() -> None:
    chosen = colours_of(["mine", "attention", "yours"])
    assert chosen["attention"] == COLOURS["attention"]
    assert len(set(chosen.values())) == 3
    assert len(colours_of(map(str, range(9)))) == 9  # more than there are colours


def test_three_baselines_are_three_kinds_of_line() -> None:
    assert len({as_baseline("a", number)["linestyle"] for number in range(3)}) == 3


@pytest.mark.parametrize(
    ("names", "columns"), [(["a", "b", "c"], 3), (["a row of a long name, " * 2] * 3, 1)]
)
def test_a_legend_that_is_too_wide_has_more_rows(names: list[str], columns: int) -> None:
    figure, (axes,) = sheet(1, 1, height=2.0)
    for name in names:
        axes.plot([0, 1], label=name)
    legend_above(figure, axes)
    assert figure.legends[0]._ncols == columns


def test_the_same_figure_is_the_same_svg(svg_of) -> None:
    def drawn() -> str:
        figure, (axes,) = sheet(1, 1, height=2.0)
        axes.plot([0, 1, 0], clip_on=True)
        return svg(figure)

    assert drawn() == drawn()
    assert "</svg>" in svg_of(drawn())


def test_a_photograph_of_noise_is_still_small(pixels_of) -> None:
    figure, (axes,) = sheet(1, 1, height=4.0)
    axes.imshow(np.random.default_rng(0).random((700, 1100)))
    assert pixels_of(photograph(figure, dpi=100)).shape == (400, 640, 3)


def test_a_pixel_becomes_a_square(pixels_of) -> None:
    image = np.array([[[255, 0, 0], [0, 9, 255]]], np.uint8)
    assert (pixels_of(png(image, zoom=3)) == image.repeat(3, axis=0).repeat(3, axis=1)).all()
