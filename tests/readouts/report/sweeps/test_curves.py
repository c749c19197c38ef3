"""Sweeps as curves: the axis along the bottom, the lines, the seeds, and what is too much for a picture."""

from collections.abc import Callable
from itertools import product
from typing import Any

from readouts.report.sweeps.curves import panel_of, varied
from readouts.results.comparability import Row

MakeRow = Callable[..., dict[str, Any]]


def no_bounds(row: Row) -> None:
    """No row has an interval."""


def test_an_axis_a_readout_a_line_and_a_seed_a_point(make_row: MakeRow) -> None:
    rows = [
        make_row(run=f"{lr}{seed}", readout=readout, recipe={"lr": lr}, seed=seed, val=lr + seed / 10)
        for lr, seed, readout in product((0.1, 0.001), (0, 1), ("linear", "attention"))
    ]
    panel = panel_of(rows, role="val", bounds_of=no_bounds)
    assert (panel.axis, panel.logarithmic) == ("lr", True)
    assert [(curve.label, curve.readout) for curve in panel.curves] == [
        ("attention", "attention"),
        ("linear", "linear"),
    ]
    assert [point.at for point in panel.curves[0].points] == [0.001, 0.1]
    assert sorted(panel.curves[0].points[1].scores) == [0.1, 0.2]


def test_a_readout_without_the_setting_is_level(make_row: MakeRow) -> None:
    rows = [make_row(run=str(w), readout="attention", config={"width": w}) for w in (8, 16)]
    panel = panel_of([*rows, make_row(run="l")], role="val", bounds_of=no_bounds)
    assert panel.axis == "width"
    assert [point.at for curve in panel.curves for point in curve.points] == [8, 16, None]


def test_an_interval_is_asked_for_where_there_is_one_seed(make_row: MakeRow) -> None:
    rows = [make_row(run="a", recipe={"steps": 1})]
    rows += [make_row(run=f"b{seed}", recipe={"steps": 2}, seed=seed) for seed in (0, 1)]
    (curve,) = panel_of(rows, role="val", bounds_of=lambda row: (0.0, 1.0)).curves
    assert [point.bounds for point in curve.points] == [(0.0, 1.0), None]


def test_what_follows_from_another_axis_is_none(make_row: MakeRow) -> None:
    # Each backbone has its own last layer, and the readout follows from nothing.
    rows = [
        make_row(run=f"{backbone}{readout}", backbone=backbone, layer=layer, readout=readout)
        for (backbone, layer), readout in product(
            (("s", "6"), ("b", "12"), ("b2", "12")), ("linear", "attention")
        )
    ]
    assert varied(rows) == {"backbone": ["b", "b2", "s"], "readout": ["attention", "linear"]}
    assert panel_of(rows, role="val", bounds_of=no_bounds).axis == "backbone"


def test_the_axis_of_a_study_lies_along_the_bottom(make_row: MakeRow) -> None:
    rows = [
        make_row(run=f"{readout}{steps}", readout=readout, recipe={"steps": steps})
        for readout, steps in product(("linear", "attention"), (1, 2))
    ]
    panel = panel_of(rows, role="val", bounds_of=no_bounds, along="readout")
    assert panel.axis == "readout"
    assert [curve.label for curve in panel.curves] == ["attention, steps 1", "attention, steps 2",
                                                       "linear, steps 1", "linear, steps 2"]  # fmt: skip


def test_three_settings_at_once_are_a_table(make_row: MakeRow) -> None:
    rows = [
        make_row(run=f"{lr}{steps}{width}", recipe={"lr": lr, "steps": steps}, config={"width": width})
        for lr, steps, width in product((0.1, 0.2), (1, 2), (8, 16))
    ]
    assert panel_of(rows, role="val", bounds_of=no_bounds).axis == ""


def test_rows_without_a_score_are_left_out(make_row: MakeRow) -> None:
    rows = [make_row(run=str(lr), recipe={"lr": lr}, test=test) for lr, test in ((0.1, 1.0), (0.2, None))]
    assert panel_of(rows, role="test", bounds_of=no_bounds).axis == ""
