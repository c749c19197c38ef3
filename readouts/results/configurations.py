"""Rows of the results table as configurations: seeds side by side, the best on val, how many were tried.

Val selects and test reports, so whoever shows a best row has to show the number of rows it was chosen from;
and one seed is no result, so rows that differ in nothing else are read together.

A sweep chooses here what to score on test and a page what to show, at other times and from rows in another
order: equals are told apart by what they are.
"""

import json
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isnan
from statistics import fmean, stdev
from typing import Any, TypeVar

from readouts.heads import SHAPE_SETTINGS

Row = Mapping[str, Any]
"""A row of the results table; see `readouts.results.table.SCHEMA`."""

SEEDS = frozenset({"seed", "order_seed"})
"""Settings that may differ within a configuration."""


Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, kw_only=True, slots=True)
class Configuration:
    """Rows that differ in their seeds only."""

    rows: tuple[Row, ...]
    """One for each seed, the best on val first."""
    settings: Mapping[str, Any]
    """Those settings of recipe and head in which it differs from another configuration of its readout."""

    @property
    def best(self) -> Row:
        """The row of the seed that is best on val."""
        return self.rows[0]

    def scores(self, role: str) -> list[float]:
        """The score of every seed that was scored on `role` (val or test)."""
        return [row[role] for row in self.rows if row[role] is not None]

    def mean(self, role: str) -> float | None:
        """The mean score over seeds; None where none was scored on `role`."""
        scores = self.scores(role)
        return fmean(scores) if scores else None

    def spread(self, role: str) -> float | None:
        """The standard deviation over seeds (n - 1 in the denominator); None of a single one."""
        scores = self.scores(role)
        return stdev(scores) if len(scores) > 1 else None


def grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Key -> the items that have it, keys and items in the order in which they first came."""
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def rows_by(column: str, rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Value of a column -> the rows that have it, both in the order in which they first came."""
    return grouped(rows, lambda row: str(row[column]))


def configurations(rows: Iterable[Row]) -> list[Configuration]:
    """The rows of one task by configuration, the best mean on val first.

    Whatever the order of the rows; those without a number (a run that diverged) come last.
    """
    groups = grouped(rows, _identity).values()
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


def _identity(row: Row) -> str:
    named = ("task", "backbone", "layer", "readout", "exactness", "train_fingerprint", "val_fingerprint")
    return json.dumps([*(row[name] for name in named), settings_of(row)], sort_keys=True)


def _varying(rows: Sequence[Row]) -> dict[str, set[str]]:
    """Readout -> the settings in which its rows differ."""
    found = {}
    for readout, ours in rows_by("readout", rows).items():
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
