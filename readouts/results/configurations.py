"""Rows of the results table as configurations: seeds side by side, the best on val, how many were tried.

Val selects and test reports, so whoever shows a best row has to show the number of rows it was chosen from;
and one seed is no result, so rows that differ in nothing else are read together.

A sweep chooses here what to score on test and a page what to show, at other times and from rows in another
order: equals are told apart by what they are.
"""

import json
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, isnan
from statistics import fmean, stdev
from typing import Any, TypeVar

from featcache.manifest import ModelKind
from readouts.results.comparability import Ground, Grounds, Row, kind_of, seeds_together, settings_of

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, kw_only=True, slots=True)
class Configuration:
    """Rows that differ in their seeds only."""

    rows: tuple[Row, ...]
    """One for each seed, the best on val first."""
    ground: Ground
    """What they were trained and scored on."""
    rank: int
    """0 of those scored on the newest val of the table; only those of one rank compete."""
    settings: Mapping[str, Any]
    """Those settings of recipe and head in which it differs from another configuration of its readout, and
    its `marks`."""
    marks: Mapping[str, str]
    """What else it stands on than others of the table: a name in words -> a value."""

    @property
    def best(self) -> Row:
        """The row of the seed that is best on val."""
        return self.rows[0]

    @property
    def kind(self) -> ModelKind:
        """What was trained: only those of one kind make a ranking."""
        return kind_of(self.best)

    def scored(self, role: str) -> list[Row]:
        """The rows of the seeds that were scored on `role` (val or test)."""
        return [row for row in self.rows if row[role] is not None]

    def scores(self, role: str) -> list[float]:
        """The score of each of them."""
        return [row[role] for row in self.scored(role)]

    def mean(self, role: str) -> float | None:
        """The mean score over seeds; None where none was scored on `role`."""
        scores = self.scores(role)
        return fmean(scores) if scores else None

    def spread(self, role: str) -> float | None:
        """The standard deviation over seeds (n - 1 in the denominator); None of a single one."""
        scores = self.scores(role)
        return stdev(scores) if len(scores) > 1 else None


def of_kind(kind: ModelKind, every: Iterable[Configuration]) -> list[Configuration]:
    """Those of which the same was trained, in their order."""
    return [one for one in every if one.kind == kind]


def grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Key -> the items that have it, keys and items in the order in which they first came."""
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def rows_by(column: str, rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Value of a column -> the rows that have it, both in the order in which they first came."""
    return grouped(rows, lambda row: str(row[column]))


def configurations(rows: Iterable[Row], among: Sequence[Row] | None = None) -> list[Configuration]:
    """The rows of one task by configuration: those scored on the newest val first, the best mean first.

    Whatever the order of the rows; those without a number (a run that diverged) come after the others.

    Args:
        rows: of one task.
        among: all rows of the table that the configurations are shown in, to say in what they differ; None:
            there are no others.
    """
    groups = seeds_together(rows)
    grounds = Grounds(groups=groups if among is None else seeds_together(among))
    varying = _varying([group[0] for _, group in groups])
    found = [
        Configuration(
            rows=tuple(sorted(group, key=lambda row: (_badness(row), row["run"], row["readout"]))),
            ground=ground,
            rank=grounds.rank(ground),
            settings={
                name: value
                for name, value in settings_of(group[0]).items()
                if name in varying[str(group[0]["readout"])]
            },
            marks=grounds.marks(ground),
        )
        for ground, group in groups
    ]
    found.sort(key=lambda one: (one.rank, fmean(map(_badness, one.rows)), _name(one)))
    return _told_apart(found)


def _name(one: Configuration) -> str:
    """Something to sort equals by, whatever came first."""
    features = [one.best[name] for name in ("backbone", "layer", "readout", *_FEATURES)]
    return json.dumps([*features, settings_of(one.best), one.ground.said], sort_keys=True)


_FEATURES = ("train_fingerprint", "val_fingerprint")


def _told_apart(every: Sequence[Configuration]) -> list[Configuration]:
    """With their marks among the settings, and of those that would look alike the stores they are of."""

    def shown(one: Configuration) -> str:
        cells = [one.best[name] for name in ("backbone", "layer", "readout", "exactness")]
        return json.dumps([*cells, {**one.settings, **one.marks}], sort_keys=True)

    found = list(every)
    for column, words in zip((*_FEATURES, "run"), ("train store", "val store", "run"), strict=True):
        for alike in grouped(range(len(found)), lambda i: shown(found[i])).values():
            if len({found[i].best[column] for i in alike}) > 1:
                for i in alike:
                    mark = {words: str(found[i].best[column])[:8]}
                    found[i] = replace(found[i], marks={**found[i].marks, **mark})
    return [replace(one, settings={**one.settings, **one.marks}) for one in found]


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
