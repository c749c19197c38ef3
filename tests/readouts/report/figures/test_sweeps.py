"""Sweeps: every line in the legend, seeds as points, axes of numbers and of names."""

import pytest

from readouts.report.figures import SweepCurve, SweepPoint, sweep_curves
from readouts.report.figures.base import COLOURS

CURVES = [
    SweepCurve(
        label="attention",
        readout="attention",
        points=(
            SweepPoint(at=0.001, scores=(0.1, 0.3)),
            SweepPoint(at=0.1, scores=(0.4,), bounds=(0.3, 0.5)),
        ),
    ),
    SweepCurve(label="linear", readout="linear", points=(SweepPoint(at=None, scores=(0.2,)),)),
]


def test_mean_and_spread_by_hand() -> None:
    assert CURVES[0].points[0].mean == pytest.approx(0.2)
    assert CURVES[0].points[0].spread == pytest.approx(0.02**0.5)
    assert CURVES[0].points[1].spread == 0


def test_lines_baselines_and_axes_are_named(svg_of) -> None:
    image, spots = sweep_curves(
        CURVES, axis="lr", score="mean_AP", baselines={"frequency": 0.1}, logarithmic=True
    )
    text = svg_of(image)
    assert [spot.text for spot in spots] == [
        "attention, lr 0.001: 0.2 ± 0.14 (2 seeds)", "attention, lr 0.1: 0.4 [0.3, 0.5]",
    ]  # fmt: skip
    assert spots[0].left < spots[1].left
    for name in ("attention", "linear", "frequency", "lr", "mean_AP", "0.001", "0.1"):
        assert f"<!-- {name} -->" in text
    assert all(f"stroke: {COLOURS[readout]}" in text for readout in ("attention", "linear"))


def test_names_are_places_of_equal_distance_and_not_joined(svg_of) -> None:
    points = tuple(SweepPoint(at=name, scores=(0.1,)) for name in ("videomae_base", "dinov2_giant"))
    curve = SweepCurve(label="linear", readout="linear", points=points)
    joined, single = (
        svg_of(sweep_curves([curve], axis="backbone", score="AP", baselines={}, joined=joined)[0])
        for joined in (True, False)
    )
    assert "<!-- videomae_base -->" in single
    # The line between the two, and the same in the legend.
    assert joined.count("stroke-width: 1.6") == single.count("stroke-width: 1.6") + 2
