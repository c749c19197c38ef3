"""Numbers against time: pressure of single storms, errors against lead time."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Real

from readouts.report.figures.base import (
    GUIDE_COLOUR,
    SMALL,
    TRUTH_COLOUR,
    Axes,
    as_baseline,
    as_readout,
    colours_of,
    legend_above,
    sheet,
    svg,
)

MIN_SPAN_HPA = 10.0
"""A calm storm's noise is not drawn as if it were a collapse."""


def pressure_panels(
    past: Float[np.ndarray, "k past"],
    truth: Float[np.ndarray, "k leads"],
    predictions: Mapping[str, Float[np.ndarray, "k leads"]],
    ids: Sequence[str],
) -> str:
    """A panel a storm: pressure by the hour, as it was and as each readout and persistence foresee it.

    Hours count from the last frame the model saw, so they begin at 1 - past and end at the number of leads.

    Args:
        past: hPa in the hours of the input frames; the last one is what persistence repeats.
        truth: hPa in the hours after.
        predictions: readout -> hPa in the hours after.
        ids: of the storms.
    """
    n_columns = min(len(ids), 2)
    n_rows = -(-len(ids) // n_columns)
    figure, panels = sheet(n_rows, n_columns, height=1.9 * n_rows + 0.6)
    for i, (axes, name) in enumerate(zip(panels, ids, strict=False)):
        axes.set_gid(f"storm-{i}")
        axes.set_title(name)
        _storm(axes, past[i], truth[i], {readout: pressure[i] for readout, pressure in predictions.items()})
    for axes in panels[len(ids) :]:
        axes.remove()
    figure.supxlabel("time from the last input frame (h)", fontsize=SMALL + 0.5)
    figure.supylabel("central pressure (hPa)", fontsize=SMALL + 0.5)
    legend_above(figure, panels[0])
    return svg(figure)


def rmse_by_lead(
    values: Mapping[str, Float[np.ndarray, "T"]],
    leads_hours: Sequence[float | int] | Real[np.ndarray, "T"],
    *,
    unit: str,
    title: str,
    baselines: Mapping[str, Float[np.ndarray, "T"]],
) -> str:
    """Root mean squared error against lead time, a line a readout; baselines as dotted lines.

    Args:
        values: readout -> its error at each lead, in `unit`.
        leads_hours: hours; drawn in days where they reach beyond three of them.
        unit: of the errors.
        title: what is forecast.
        baselines: baseline -> its error at each lead.
    """
    leads = np.asarray(leads_hours, np.float64)
    in_days = leads.max() > 72
    times = leads / 24 if in_days else leads
    figure, (axes,) = sheet(1, 1, height=3.0, width=5.0)
    for name, colour in colours_of(values).items():
        axes.plot(times, values[name], "o-", markersize=3.5, **as_readout(name, colour))
    for number, (name, errors) in enumerate(baselines.items()):
        axes.plot(times, errors, **as_baseline(name, number))
    axes.set(xlabel=f"lead time ({'days' if in_days else 'hours'})", ylabel=f"RMSE ({unit})")
    axes.set(xlim=(0, times.max() * 1.02), ylim=(0, None))
    axes.set_xticks(_ticks(times.max()))
    legend_above(figure, axes, title=title)
    return svg(figure)


MOST_DOTS = 4_000
"""Values that are drawn, evenly chosen: more would only fill the page."""


def predicted_against_true(
    predictions: Mapping[str, Float[np.ndarray, " n"]],
    truth: Float[np.ndarray, " n"],
    *,
    quantity: str,
    unit: str,
) -> str:
    """A dot a value, a colour a readout, and the line on which the two are equal.

    Args:
        predictions: readout -> its values, in `unit`.
        truth: the true ones.
        quantity: what was measured.
        unit: of it; may be empty.
    """
    few = np.linspace(0, len(truth) - 1, min(len(truth), MOST_DOTS)).astype(int)
    figure, (axes,) = sheet(1, 1, height=3.4, width=4.0)
    ends = [truth.min(), truth.max()]
    axes.plot(ends, ends, color=GUIDE_COLOUR, linewidth=1, zorder=0)
    for name, colour in colours_of(predictions).items():
        axes.plot(truth[few], predictions[name][few], ".", markersize=3, color=colour, label=name)
    named = f"{quantity} ({unit})" if unit else quantity
    axes.set(xlabel=f"true {named}", ylabel="predicted")
    legend_above(figure, axes)
    return svg(figure)


def _storm(
    axes: Axes,
    past: Float[np.ndarray, "past"],
    truth: Float[np.ndarray, "leads"],
    predictions: Mapping[str, Float[np.ndarray, "leads"]],
) -> None:
    leads = np.arange(1, len(truth) + 1)
    known = np.arange(1 - len(past), 1)
    axes.plot([*known, *leads], [*past, *truth], **as_readout("truth", TRUTH_COLOUR))
    for readout, colour in colours_of(predictions).items():
        axes.plot(leads, predictions[readout], **as_readout(readout, colour))
    axes.plot([0, leads[-1]], [past[-1], past[-1]], **as_baseline("last input value"))
    axes.axvline(0, color=GUIDE_COLOUR, linewidth=1, zorder=0)
    ticks = [tick for tick in range(-48, 49, 6) if known[0] <= tick <= leads[-1]]
    drawn = np.concatenate([past, truth, *predictions.values()])
    middle, half = (drawn.min() + drawn.max()) / 2, max(0.55 * np.ptp(drawn), MIN_SPAN_HPA / 2)
    axes.set(xlim=(known[0], leads[-1]), xticks=ticks, ylim=(middle - half, middle + half))


def _ticks(longest: float) -> Float[np.ndarray, "ticks"]:
    """Whole hours or days, nine of them at most."""
    step = max(1, -(-longest // 8))
    return np.arange(0, longest + 1e-6, step)
