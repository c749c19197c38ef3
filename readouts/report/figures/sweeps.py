"""Scores against what was varied: a line a readout, a point a seed, a band as wide as the seeds spread."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from statistics import fmean, stdev
from typing import Any

from readouts.report.figures.base import (
    SMALL,
    SPARE_COLOURS,
    Axes,
    Spot,
    Told,
    as_baseline,
    colours_of,
    legend_above,
    sheet,
    spots_of,
    svg,
)

DASHES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepPoint:
    """One value on the axis: the score of every seed that has it."""

    at: Any
    """A number or a name; None where the line has no such setting, and is drawn level."""
    scores: tuple[float, ...]
    bounds: tuple[float, float] | None = None
    """The ends of an interval, where there is one."""

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return fmean(self.scores)

    @property
    def spread(self) -> float:
        """The standard deviation over the seeds; 0 of a single one."""
        return stdev(self.scores) if len(self.scores) > 1 else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepCurve:
    """One line of a sweep's figure."""

    label: str
    readout: str
    """Whose colour it has."""
    points: tuple[SweepPoint, ...]


def sweep_curves(
    curves: Sequence[SweepCurve],
    *,
    axis: str,
    score: str,
    baselines: Mapping[str, float],
    logarithmic: bool = False,
    joined: bool = True,
    banded: bool = True,
) -> tuple[str, list[Spot]]:
    """Scores against `axis`; points are seeds, the line is their mean, the band a standard deviation of them.

    Where a point has one seed and an interval, the interval is drawn as a bar. Beside the figure come its
    means, with their numbers.

    Args:
        curves: at least one point in all.
        axis: its name, below it.
        score: its name, beside the other axis.
        baselines: name -> score, drawn level.
        logarithmic: whether the axis is, which then holds positive numbers.
        joined: whether a point lies between its neighbours, so that a line says something.
        banded: whether the spread over seeds is shown as a band about each line; of many lines it hides them.
    """
    figure, (axes,) = sheet(1, 1, height=3.3, width=5.2)
    known = list(dict.fromkeys(p.at for curve in curves for p in curve.points if p.at is not None))
    numeric = all(isinstance(at, int | float) for at in known)
    position = {at: float(at if numeric else i) for i, at in enumerate(known)}
    for curve, style in zip(curves, _styles(curves), strict=True):
        drawn = style if joined else {**style, "linestyle": "none"}
        _draw(axes, curve, position, drawn, banded=joined and banded)
    for number, (name, value) in enumerate(baselines.items()):
        axes.axhline(value, **as_baseline(name, number))
    if logarithmic:
        axes.set_xscale("log")
    if not numeric or len(known) <= 8:
        shown = [f"{at:g}" if numeric else str(at) for at in known]
        axes.set_xticks(list(position.values()), shown)
        axes.minorticks_off()
    if not numeric:
        axes.set_xlim(-0.5, len(known) - 0.5)
        if max(map(len, map(str, known))) * len(known) > 44:
            axes.tick_params(axis="x", labelrotation=20)
    axes.set(xlabel=axis, ylabel=score)
    axes.tick_params(labelsize=SMALL)
    legend_above(figure, axes)
    told: list[Told] = [
        (axes, position[point.at], point.mean, f"{curve.label}, {axis} {point.at}: {_numbers(point)}")
        for curve in curves
        for point in curve.points
        if point.at is not None
    ]
    return svg(figure), spots_of(figure, told)


def _numbers(point: SweepPoint) -> str:
    mean, n = f"{point.mean:.4g}", len(point.scores)
    if n > 1:
        return f"{mean} ± {point.spread:.2g} ({n} seeds)"
    return mean if point.bounds is None else f"{mean} [{point.bounds[0]:.4g}, {point.bounds[1]:.4g}]"


def _styles(curves: Sequence[SweepCurve]) -> list[dict[str, Any]]:
    """A colour a readout; curves of one readout differ in dashes, or first in colour if all are of one."""
    colours = colours_of(curve.readout for curve in curves)
    if len(colours) == 1:
        spread = [next(iter(colours.values())), *SPARE_COLOURS]
        return [
            {
                "color": spread[i % len(spread)],
                "marker": MARKERS[i % len(MARKERS)],
                "linestyle": DASHES[i // len(spread) % len(DASHES)],
            }
            for i in range(len(curves))
        ]
    seen: dict[str, int] = {}
    styles = []
    # A marker each: there are more readouts than colours that everybody tells apart.
    for curve, marker in zip(curves, cycle(MARKERS), strict=False):
        number = seen[curve.readout] = seen.get(curve.readout, -1) + 1
        dash = DASHES[number % len(DASHES)]
        styles.append({"color": colours[curve.readout], "marker": marker, "linestyle": dash})
    return styles


def _draw(
    axes: Axes, curve: SweepCurve, position: Mapping[Any, float], style: Mapping[str, Any], *, banded: bool
) -> None:
    colour = style["color"]
    level = [point for point in curve.points if point.at is None]
    placed = [point for point in curve.points if point.at is not None]
    for point in level:
        axes.axhline(point.mean, color=colour, linewidth=1.2, linestyle=":", label=curve.label)
    if not placed:
        return
    x, means = [position[point.at] for point in placed], [point.mean for point in placed]
    axes.plot(x, means, **style, markersize=4.5, linewidth=1.6, label=curve.label if not level else None)
    if banded and any(point.spread for point in placed):
        low = [point.mean - point.spread for point in placed]
        high = [point.mean + point.spread for point in placed]
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    for at, point in zip(x, placed, strict=True):
        if len(point.scores) > 1:
            axes.plot([at] * len(point.scores), point.scores, ".", color=colour, markersize=3.5, alpha=0.6)
        if point.bounds is not None:
            axes.vlines(at, *point.bounds, color=colour, linewidth=1.1, alpha=0.7)
