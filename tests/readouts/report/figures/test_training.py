"""Curves: a line a readout in each panel, dotted lines of the baselines."""

from readouts.report.figures import curves
from readouts.report.figures.base import BASELINE_COLOUR, COLOURS


def test_curves_are_an_svg_with_a_line_a_readout(svg_of) -> None:
    history = [
        {"step": step, "readout": kind, "train_loss": None if step == 0 else 1.0 / step, "mean_AP": step / 20}
        for step in (0, 10, 20)
        for kind in ("linear", "attention")
    ]
    image, spots = curves(history, "mean_AP", {"label frequency": 0.2}, title="mAP")
    text = svg_of(image)
    assert all(
        f"<!-- {name} -->" in text
        for name in ("linear", "attention", "label frequency", "training loss", "mAP on val")
    )
    for readout in ("linear", "attention"):
        assert text.count(f"stroke: {COLOURS[readout]}") == 3  # loss, score, legend
    assert text.count(f"stroke: {BASELINE_COLOUR}") == 2
    told = {spot.text: spot for spot in spots}
    assert len(told) == 2 * (2 + 3)  # a readout has two losses and three scores
    first, last = (told[f"linear, step {step}: mAP {step / 20:g}"] for step in (0, 20))
    # The score is in the right panel, and rises.
    assert 50 < first.left < last.left < 100
    assert 0 < last.top < first.top < 100


def test_a_single_loss_is_a_mark(svg_of) -> None:
    history = [
        {"step": step, "readout": "linear", "train_loss": loss, "mean_AP": 0.1}
        for step, loss in ((0, None), (10, 0.5), (20, 0.4))
    ]
    one, two = (svg_of(curves(history[:n], "mean_AP", {}, title="mAP")[0]) for n in (2, 3))
    assert (f"fill: {COLOURS['linear']}" in one, f"fill: {COLOURS['linear']}" in two) == (True, False)
