"""Curves: a line a readout in each panel, dotted lines of the control rows."""

from readouts.pictures import COLOURS, CONTROL_COLOUR, curves


def test_curves_are_an_svg_with_a_line_a_readout(svg_of) -> None:
    history = [
        {"step": step, "readout": kind, "train_loss": None if step == 0 else 1.0 / step, "mean_AP": step / 20}
        for step in (0, 10, 20)
        for kind in ("linear", "attention")
    ]
    text = svg_of(curves(history, "mean_AP", {"label frequency": 0.2}))
    assert all(
        f"<!-- {name} -->" in text for name in ("linear", "attention", "label frequency", "training loss")
    )
    for readout in ("linear", "attention"):
        assert text.count(f"stroke: {COLOURS[readout]}") == 3  # loss, score, legend
    assert text.count(f"stroke: {CONTROL_COLOUR}") == 2
