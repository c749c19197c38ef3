"""Depth: layers by name along the bottom, every rank a line."""

from readouts.report.figures import by_depth


def test_layers_and_ranks_are_named(svg_of) -> None:
    text = svg_of(by_depth(["0", "6", "12_normed"], [1.0, 2.0, 3.0], {"entropy": [5.0, 4.0, 3.0]}))
    for name in ("0", "6", "12_normed", "entropy", "layer", "effective rank"):
        assert f"<!-- {name} -->" in text


def test_of_many_layers_some_are_named(svg_of) -> None:
    layers = [str(i) for i in range(24)]
    values = [float(i) for i in range(24)]
    text = svg_of(by_depth(layers, values, {"entropy": values}))
    assert "<!-- 4 -->" in text
    assert "<!-- 23 -->" not in text
