"""Rows of the results table as configurations: seeds side by side, the best on val, how many were tried.

Val selects and test reports, so whoever shows a best row has to show the number of rows it was chosen from;
and one seed is no result, so rows that differ in nothing else are read together.

A sweep chooses here what to score on test and a page what to show, at other times and from rows in another
order: equals are told apart by what they are.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isnan
from statistics import fmean, stdev
from typing import Any

from readouts.heads import SHAPE_SETTINGS

Row = Mapping[str, Any]
"""Of the results table; see `readouts.results.table.SCHEMA`."""

SEEDS = frozenset({"seed", "order_seed"})
"""What may differ within a configuration."""

METRICS = {
    "mean_AP": "mAP",
    "average_over_thresholds": "accuracy",
    "pressure/rmse": "RMSE (hPa)",
    "Z500/rmwse": "RMSE of Z500 (m2/s2)",
}
"""The benchmark's scores as its paper calls them, with their units."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Configuration:
    """Rows that differ in their seeds only."""

    rows: tuple[Row, ...]
    """The best on val first."""
    settings: Mapping[str, Any]
    """Of recipe and head: those in which it differs from another configuration of its readout."""

    @property
    def best(self) -> Row:
        """The best seed on val."""
        return self.rows[0]

    def scores(self, role: str) -> list[float]:
        """The score of every seed that was scored on `role` (val or test)."""
        return [row[role] for row in self.rows if row[role] is not None]

    def mean(self, role: str) -> float | None:
        """Over seeds; None where none was scored on `role`."""
        scores = self.scores(role)
        return fmean(scores) if scores else None

    def spread(self, role: str) -> float | None:
        """Standard deviation over seeds (n - 1 in the denominator); None of a single one."""
        scores = self.scores(role)
        return stdev(scores) if len(scores) > 1 else None


def by_task(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Task -> its rows, both in the order in which they first came."""
    return _grouped(rows, lambda row: str(row["task"]))


def by_backbone(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Backbone -> its rows, both in the order in which they first came."""
    return _grouped(rows, lambda row: str(row["backbone"]))


def configurations(rows: Iterable[Row]) -> list[Configuration]:
    """The rows of one task by configuration, the best mean on val first.

    Whatever the order of the rows; those without a number (a run that diverged) come last.
    """
    groups = _grouped(rows, _identity).values()
    varying = _varying([group[0] for group in groups])
    found = [
        Configuration(
            rows=tuple(sorted(group, key=lambda row: (_badness(row), row["run"], row["readout"]))),
            settings={
                name: value
                for name, value in settings_of(group[0]).items()
                if name in varying[str(group[0]["readout"])]
            },
        )
        for group in groups
    ]
    return sorted(found, key=lambda one: (fmean(_badness(row) for row in one.rows), _identity(one.best)))


def settings_of(row: Row) -> dict[str, Any]:
    """Recipe and head in one dict, without seeds and without what follows from the task's data."""
    every = {**json.loads(row["recipe"] or "{}"), **json.loads(row["readout_config"] or "{}")}
    return {name: value for name, value in every.items() if name not in SEEDS | SHAPE_SETTINGS}


def written(value: float | None, like: float | None = None) -> str:
    """A score as tables have it: three digits after the point, or one where it is 10 and more.

    Args:
        value: the score, or what stands beside one; nothing is written of None.
        like: the score beside which it stands, whose digits it has.
    """
    if value is None:
        return ""
    return f"{value:.{3 if abs(value if like is None else like) < 10 else 1}f}"


def written_mean(one: Configuration, role: str) -> str | None:
    """Mean over seeds and, where there are several, their standard deviation; None where none was scored."""
    mean, spread = one.mean(role), one.spread(role)
    if mean is None:
        return None
    return written(mean) if spread is None else f"{written(mean)} ± {written(spread, like=mean)}"


def metric_title(metric: str) -> str:
    """What a heading calls a score."""
    return METRICS.get(metric, metric)


def as_published(value: float) -> str:
    """A score with the digits of its paper, three at least: a number does not know that 0.28 was 0.280."""
    before, _, after = f"{value:.10g}".partition(".")
    return f"{value:.{max(len(after), 3 - len(before.lstrip('-0')))}f}"


def counted(n: int, what: str) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def written_settings(one: Configuration) -> str:
    """The settings in which a configuration differs from others of its readout."""
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in sorted(one.settings.items())
        if value is not None
    )


def _identity(row: Row) -> str:
    named = ("task", "backbone", "layer", "readout", "exactness", "train_fingerprint", "val_fingerprint")
    return json.dumps([*(row[name] for name in named), settings_of(row)], sort_keys=True)


def _varying(rows: Sequence[Row]) -> dict[str, set[str]]:
    """Readout -> the settings in which its rows differ."""
    found = {}
    for readout, ours in _grouped(rows, lambda row: str(row["readout"])).items():
        every = [settings_of(row) for row in ours]
        names = {name for one in every for name in one}
        found[readout] = {name for name in names if len({json.dumps(one.get(name)) for one in every}) > 1}
    return found


def _badness(row: Row) -> float:
    """Smaller is better, whichever way the score goes."""
    score = row["val"]
    if score is None or isnan(score):
        return inf
    return float(score) if row["higher_is_better"] is False else -float(score)


def _grouped(rows: Iterable[Row], key: Callable[[Row], str]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups
