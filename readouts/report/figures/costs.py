"""Score against what it cost: a point a configuration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from readouts.report.figures.base import SMALL, TRUTH_COLOUR, Axes, Line2D, colours_of, sheet, svg

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")


@dataclass(frozen=True, kw_only=True, slots=True)
class CostPoint:
    """One configuration: its score, and what was spent on it, one number for each cost of the figure."""

    backbone: str
    readout: str
    score: float
    spent: tuple[float | None, ...]
    """None where nobody measured it."""


def scores_by_cost(points: Sequence[CostPoint], *, costs: Sequence[str], score: str) -> str:
    """A panel for each cost that any point knows; colours are readouts, markers backbones.

    Args:
        points: one or more; in each panel those whose cost is known and above 0, on a logarithmic axis.
        costs: what the axis of each cost is called, unit included.
        score: what the other axis is called.
    """
    known = [(i, cost) for i, cost in enumerate(costs) if any(point.spent[i] for point in points)]
    n_columns = min(2, len(known))
    n_rows = -(-len(known) // n_columns)
    figure, panels = sheet(n_rows, n_columns, height=2.3 * n_rows + 0.6)
    colours = colours_of(point.readout for point in points)
    markers = {
        name: MARKERS[i % len(MARKERS)] for i, name in enumerate(dict.fromkeys(p.backbone for p in points))
    }
    for axes, (i, cost) in zip(panels, known, strict=False):
        for point in points:
            if spent := point.spent[i]:
                axes.plot(
                    [spent], [point.score], markers[point.backbone], color=colours[point.readout],
                    markersize=6, alpha=0.85, markeredgewidth=0,
                )  # fmt: skip
        axes.set_xscale("log")
        axes.set(xlabel=cost)
        _frame(axes, [spent for point in points if (spent := point.spent[i])])
    figure.supylabel(score, fontsize=SMALL + 0.5)
    keys = _keys(panels[0], colours, markers)
    if spare := panels[len(known) :]:
        spare[0].axis("off")
        spare[0].legend(handles=keys, loc="center", frameon=False, fontsize=SMALL)
    else:
        figure.legend(handles=keys, loc="outside upper center", ncols=2, frameon=False, fontsize=SMALL)
    return svg(figure)


def _frame(axes: Axes, spent: Sequence[float]) -> None:
    """At least a power of ten along the bottom, marked where people count: at 1, or at 1, 2 and 5."""
    if not spent:
        return
    low, high = log10(min(spent)) - 0.2, log10(max(spent)) + 0.2
    spare = max(0.0, 1.1 - (high - low)) / 2
    low, high = low - spare, high + spare
    steps = (1, 2, 5) if high - low < 2 else (1,)
    marks = [step * 10.0**power for power in range(floor(low), ceil(high) + 1) for step in steps]
    shown = [mark for mark in marks if low <= log10(mark) <= high]
    axes.set_xlim(10**low, 10**high)
    axes.set_xticks(shown, [f"{mark:,.6g}" for mark in shown])
    axes.minorticks_off()


def _keys(axes: Axes, colours: Mapping[str, str], markers: Mapping[str, str]) -> list[Line2D]:
    patches = [
        axes.plot([], [], "-", color=colour, linewidth=4, label=name)[0] for name, colour in colours.items()
    ]
    return patches + [
        axes.plot([], [], marker, color=TRUTH_COLOUR, markersize=5, linestyle="none", label=name)[0]
        for name, marker in markers.items()
    ]
