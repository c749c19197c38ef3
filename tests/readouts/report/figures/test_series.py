"""Lines against time: one panel a storm, hours that count from the last frame, days where they are many."""

import numpy as np
import pytest

from readouts.report.figures import pressure_panels, rmse_by_lead
from readouts.report.figures.base import COLOURS, sheet
from readouts.report.figures.series import _storm

HOURS = np.arange(24.0)


@pytest.mark.parametrize("n", [1, 3])
def test_a_panel_a_storm(svg_of, n: int) -> None:
    pressure = 980 + np.stack([HOURS] * n)
    predictions = {"linear": pressure[:, 12:] + 1, "attention": pressure[:, 12:] + 2}
    text = svg_of(
        pressure_panels(pressure[:, :12], pressure[:, 12:], predictions, [f"2007{i}" for i in range(n)])
    )
    assert text.count('<g id="storm-') == n
    assert text.count("stroke-dasharray") == n + 1  # persistence in each panel and in the legend
    for readout in predictions:
        assert text.count(f"stroke: {COLOURS[readout]}") == n + 1
    assert all(
        f"<!-- {name} -->" in text
        for name in ("20070", "truth", "last input value", "central pressure (hPa)")
    )


def test_hours_run_from_before_the_last_frame_to_the_last_lead(svg_of) -> None:
    flat = np.full((1, 24), 1000.0)
    text = svg_of(pressure_panels(flat[:, :12], flat[:, 12:], {}, ["200717"]))
    assert all(f"<!-- {tick} -->" in text for tick in ("\N{MINUS SIGN}6", "0", "6", "12"))


def test_persistence_repeats_the_last_pressure() -> None:
    _, (axes,) = sheet(1, 1, height=2.0)
    truth = np.array([970.0, 960.0, 950.0])
    _storm(axes, np.array([990.0, 985.0]), truth, {"linear": truth + 1})
    drawn = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()}
    assert drawn["truth"] == ([-1, 0, 1, 2, 3], [990, 985, 970, 960, 950])
    assert drawn["last input value"] == ([0, 3], [985, 985])
    assert drawn["linear"] == ([1, 2, 3], [971, 961, 951])


def test_a_calm_storm_looks_calm() -> None:
    _, (axes,) = sheet(1, 1, height=2.0)
    _storm(axes, np.array([1000.0, 1001.0]), np.array([1000.0, 999.0]), {})
    assert axes.get_ylim() == (995, 1005)
    _storm(axes, np.array([1000.0, 980.0]), np.array([960.0]), {"linear": np.array([900.0])})
    low, high = axes.get_ylim()
    assert low < 900
    assert high > 1000


@pytest.mark.parametrize(
    ("leads", "named", "last"), [(range(1, 13), "hours", "12"), (range(12, 193, 12), "days", "8")]
)
def test_long_leads_are_days(svg_of, leads: range, named: str, last: str) -> None:
    errors = np.linspace(1, 9, len(leads))
    text = svg_of(
        rmse_by_lead(
            {"dpt": errors}, list(leads), unit="K", title="T850", baselines={"persistence": 2 * errors}
        )
    )
    shown = ("T850", f"lead time ({named})", "RMSE (K)", "dpt", "persistence", last)
    assert all(f"<!-- {name} -->" in text for name in shown)
    assert text.count("stroke-dasharray") == 2


def test_two_baselines_are_two_kinds_of_line(svg_of) -> None:
    baselines = {"last pressure": HOURS[:12], "train mean": HOURS[:12] + 1}
    text = svg_of(
        rmse_by_lead({"linear": HOURS[:12]}, HOURS[1:13], unit="hPa", title="pressure", baselines=baselines)
    )
    dashes = {part.partition('"')[0] for part in text.split("stroke-dasharray: ")[1:]}
    assert len({dash.partition(";")[0] for dash in dashes}) == 2
