"""Costs: a panel a cost, colours of readouts, points only where the cost is known."""

from readouts.report.figures import CostPoint, scores_by_cost
from readouts.report.figures.base import COLOURS

POINTS = [
    CostPoint(backbone="small", readout="linear", score=0.2, spent=(10.0, 3.0, None)),
    CostPoint(backbone="large", readout="attention", score=0.4, spent=(1000.0, None, None)),
]


def test_each_cost_is_an_axis_with_round_numbers(svg_of) -> None:
    text = svg_of(scores_by_cost(POINTS, costs=["MB", "s", "J"], score="AP"))
    for name in ("MB", "s", "AP", "small", "large", "linear", "attention", "10", "1,000", "5"):
        assert f"<!-- {name} -->" in text
    assert "<!-- J -->" not in text  # nobody measured them


def test_an_unknown_cost_is_not_drawn(svg_of) -> None:
    one, both = (svg_of(scores_by_cost(POINTS[:n], costs=["MB"], score="AP")) for n in (1, 2))
    assert f"fill: {COLOURS['linear']}" in one
    assert f"fill: {COLOURS['attention']}" not in one
    assert f"fill: {COLOURS['attention']}" in both
