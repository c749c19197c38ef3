"""A sweep as curves: which axis runs along the bottom, which lines there are, what each seed scored.

Nothing but the rows says what a sweep varied, so a grid from the command line and a named study are drawn
alike. Up to two axes make a figure (one along the bottom, one as lines); more make a table.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from readouts.report.figures import SweepCurve, SweepPoint
from readouts.results.comparability import Row, settings_of
from readouts.results.configurations import configurations
from readouts.results.formatting import format_value

NUMBERS_FIRST = ("layer", "train_fraction", "train_views", "views", "lr", "width", "steps")
"""Axes that lie along the bottom before all others."""
LOGARITHMIC = frozenset({"lr", "weight_decay", "train_fraction"})
MAX_LINES = 8
"""More are a table: nobody tells nine colours apart."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One sweep on one task: a figure's worth of curves, or none and a table instead."""

    axis: str
    """Along the bottom; empty where a table says it better."""
    curves: Sequence[SweepCurve]
    logarithmic: bool = False


def panel_of(
    rows: Sequence[Row],
    *,
    role: str,
    bounds_of: Callable[[Row], tuple[float, float] | None],
    along: str | None = None,
) -> Panel:
    """The rows of one sweep on one task as curves.

    Args:
        rows: of one sweep and one task, at least one.
        role: val or test, whose scores are drawn; rows without one are skipped.
        bounds_of: the ends of a row's interval, asked for where a point has one seed; None: it has none.
        along: the axis that the study names; None chooses one.
    """
    scored = [row for row in rows if row[role] is not None]
    axes = varied(scored)
    bottom = _bottom(axes, along)
    lines = [name for name in axes if name != bottom]
    others = [name for name in lines if name not in ("backbone", "readout")]
    if not bottom or len(others) > 1 or prod(len(axes[name]) for name in lines) > MAX_LINES:
        return Panel(axis="", curves=[])
    names: dict[str, list[SweepPoint]] = {}
    for one in configurations(scored):
        have = _values(one.best)
        point = SweepPoint(
            at=have.get(bottom),
            scores=tuple(one.scores(role)),
            bounds=bounds_of(one.best) if len(one.rows) == 1 else None,
        )
        marks = "".join(f", {name} {value}" for name, value in one.marks.items() if name not in axes)
        names.setdefault(_label(have, lines) + marks, []).append(point)
    curves = [
        SweepCurve(
            label=label,
            readout=label.split(",")[0].strip(),
            points=tuple(sorted(points, key=lambda point: _sortable(point.at))),
        )
        for label, points in sorted(names.items())
    ]
    return Panel(axis=bottom, curves=curves, logarithmic=bottom in LOGARITHMIC and _spans(axes[bottom]))


def varied(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Axis -> its values, of the axes on which the rows differ; seeds are none.

    An axis that follows from another one is skipped: the last layer of each backbone varies with the
    backbone and says no more. Of two that follow from each other the earlier stays.
    """
    every = [_values(row) for row in rows]
    groups = {name: [json.dumps(one.get(name)) for one in every] for one in every for name in one}
    names = [name for name in groups if len({json.dumps(one[name]) for one in every if name in one}) > 1]
    kept = list(names)
    for name in reversed(names):
        if any(_follows(groups[name], groups[other]) for other in kept if other != name):
            kept.remove(name)
    return {
        name: sorted({_hashable(one[name]) for one in every if name in one}, key=_sortable) for name in kept
    }


def _values(row: Row) -> dict[str, Any]:
    """Where a row lies on every axis that it has."""
    own = {"backbone": row["backbone"], "readout": row["readout"], "layer": row["layer"]}
    return {**own, "views": row["views"], **settings_of(row)}


def _bottom(axes: Mapping[str, Sequence[Any]], along: str | None) -> str:
    if along in axes:
        return str(along)
    wanted = [name for name in NUMBERS_FIRST if name in axes]
    settings = [name for name in axes if name not in ("backbone", "readout")]
    most_values_first = sorted(settings, key=lambda name: -len(axes[name]))
    names = [name for name in ("backbone", "readout") if name in axes]
    return next(iter([*wanted, *most_values_first, *names]), "")


def _label(have: Mapping[str, Any], lines: Sequence[str]) -> str:
    """A line's name: its readout first, whose colour it has."""
    rest = [
        str(have[name]) if name == "backbone" else f"{name} {format_value(have[name])}"
        for name in lines
        if name != "readout" and name in have
    ]
    return ", ".join([str(have["readout"]), *rest])


def _follows(ours: Sequence[str], others: Sequence[str]) -> bool:
    """Whether the other axis says what ours is."""
    return len(set(zip(ours, others, strict=True))) == len(set(others))


def _spans(values: Sequence[Any]) -> bool:
    """Whether positive numbers spread over more than one power of ten, or near it."""
    numbers = [value for value in values if isinstance(value, int | float)]
    return len(numbers) == len(values) and min(numbers) > 0 and max(numbers) >= 5 * min(numbers)


def _hashable(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict) else value


def _sortable(value: Any) -> tuple[bool, Any]:
    return (not isinstance(value, int | float), value if isinstance(value, int | float) else str(value))
