"""What a row of the results table stands on: which rows are seeds of each other, which scores compare.

Rows are seeds of one configuration where all but a seed is the same: task, features, readout and settings,
and the clips and labels that they were trained and scored on. Labels that were corrected, other clips in val,
an edited task file make other configurations, of which a table has to say so.

Older versions wrote fewer columns, and a run may not be scored on test: what a row does not say agrees with
whatever other rows say, as long as that is one thing.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import cached_property
from hashlib import sha256
from typing import Any

from featcache.manifest import ModelKind
from readouts.heads import SHAPE_SETTINGS

Row = Mapping[str, Any]
"""A row of the results table; see `readouts.results.table.SCHEMA`."""

SEEDS = frozenset({"seed", "order_seed"})
"""Settings that may differ within a configuration."""

ROLES = ("train", "val", "test")

_ALWAYS_SAID = (
    "task", "metric", "backbone", "layer", "readout", "exactness", "train_fingerprint", "val_fingerprint"
)  # fmt: skip

DIGITS = 4
"""Of a digest, in tables: enough to tell a handful apart."""


def settings_of(row: Row) -> dict[str, Any]:
    """Recipe and head in one dict, without seeds and without what follows from the task's data."""
    every = {**json.loads(row["recipe"] or "{}"), **json.loads(row["readout_config"] or "{}")}
    every |= tuning_of(row)
    return {name: value for name, value in every.items() if name not in SEEDS | SHAPE_SETTINGS}


def tuning_of(row: Row) -> dict[str, Any]:
    """What was trained of the backbone, by the names of the options; empty where it was frozen."""
    if row["tuned"] in (None, "frozen"):
        return {}
    blocks = "all" if row["tuned"] == "whole" else row["tuned_blocks"]
    return {"tune": blocks, "backbone_lr": row["backbone_lr"]}


def seconds_of(row: Row) -> float:
    """Seconds of training: runs that were trained in one pass share them; 0 where they are not known."""
    return (row["seconds"] or 0.0) / (row.get("together") or 1)


def is_fitted(row: Row) -> bool:
    """Whether a row's readout was fitted at once (a probe), so that no seed would change it."""
    return not row["steps"]


def kind_of(row: Row) -> ModelKind:
    """What was trained: readouts alone, or a backbone, or a part of it, with them."""
    return "fine-tuned" if tuning_of(row) else "frozen"


@dataclass(frozen=True, kw_only=True, slots=True)
class Ground:
    """What some rows were trained and scored on; None where they do not say."""

    task: str | None
    """What defines loss and score: the digest of the task's identity."""
    train: str | None
    """Fingerprint of the targets, which follow from clips and labels; None of a task without any."""
    val: str | None
    test: str | None
    n_train: int | None
    n_val: int | None
    n_test: int | None
    test_fingerprint: str | None

    @property
    def said(self) -> tuple[Any, ...]:
        """All of it, in the order of the fields."""
        numbers = (self.n_train, self.n_val, self.n_test)
        return self.task, self.train, self.val, self.test, *numbers, self.test_fingerprint

    def agrees(self, other: "Ground") -> bool:
        """Whether nothing that both say differs."""
        return _agree(self.said, other.said)

    def filled(self, other: "Ground") -> "Ground":
        """With what the other says where this one does not."""
        mine = {name: value for name, value in asdict(self).items() if value is not None}
        return replace(other, **mine)

    def data(self, role: str) -> tuple[str | None, int | None]:
        """The targets, and how many clips, that the rows have of a split.

        Of training no number: a smaller share of the same clips is a setting.
        """
        of = {"train": (self.train, None), "val": (self.val, self.n_val), "test": (self.test, self.n_test)}
        return of[role]


def ground_of(row: Row) -> Ground:
    """What a row says that it was trained and scored on."""
    targets, tested = json.loads(row["targets"] or "{}"), row["test"] is not None
    of = {role: targets.get(role) for role in ROLES} | ({} if tested else {"test": None})
    n = {role: row[f"n_{role}"] for role in ROLES} | ({} if tested else {"test": None})
    return Ground(
        task=task_digest(row),
        **of,
        **{f"n_{role}": number for role, number in n.items()},
        test_fingerprint=row["test_fingerprint"] if tested else None,
    )


def identity_text(identity: Mapping[str, Any]) -> str:
    """What a row keeps of `Task.identity`: the same text for the same task."""
    return json.dumps(dict(identity), sort_keys=True)


def task_digest(row: Row) -> str | None:
    """The digest of what defines a row's loss and score; None where an older version did not write it.

    Of a user's file nobody knows then what was in it: such a row agrees with those of its kind only.
    """
    spec = row["task_spec"] or row["task"]
    if row["task_identity"] is None:
        return f"unknown {spec}" if ".py:" in spec else None
    return sha256(str(row["task_identity"]).encode()).hexdigest()


def seeds_together(rows: Iterable[Row]) -> list[tuple[Ground, list[Row]]]:
    """The rows in groups that differ in their seeds only, each with what its rows stand on."""
    alike: dict[str, dict[Ground, list[Row]]] = {}
    for row in rows:
        named = json.dumps([*(row[name] for name in _ALWAYS_SAID), settings_of(row)], sort_keys=True)
        alike.setdefault(named, {}).setdefault(ground_of(row), []).append(row)
    found: list[tuple[Ground, list[Row]]] = []
    for of_ground in alike.values():
        groups: list[tuple[Ground, list[Row]]] = []
        # Those that say most come first, whatever the order of the rows.
        for ground in sorted(of_ground, key=lambda one: (one.said.count(None), str(one.said))):
            fitting = [i for i, (known, _) in enumerate(groups) if known.agrees(ground)]
            if len(fitting) == 1:
                known, ours = groups[fitting[0]]
                groups[fitting[0]] = (known.filled(ground), [*ours, *of_ground[ground]])
            else:
                groups.append((ground, of_ground[ground]))
        found += groups
    return found


@dataclass(frozen=True, kw_only=True)
class Grounds:
    """What all rows of a table stand on, to say in which they differ."""

    groups: Sequence[tuple[Ground, Sequence[Row]]]

    def marks(self, ground: Ground) -> dict[str, str]:
        """What tells rows of `ground` from others of the table: a name in words -> a value."""
        marks = {}
        if len(self._tasks) > 1 and ground.task is not None:
            marks["task"] = self._tasks[ground.task]
        for role in ROLES:
            known = self.data(role)
            if len(known) > 1 and (named := _known(ground.data(role), known)) is not None:
                marks[f"{role} data"] = _data_text(named)
        return marks

    def rank(self, ground: Ground) -> int:
        """0 where val is the clips and labels of the newest rows: only scores on the same val are ranked."""
        known = list(self.data("val"))
        named = _known(ground.data("val"), known)
        return known.index(named) if named is not None else len(known)

    def data(self, role: str) -> Mapping[tuple[str | None, int | None], int]:
        """Clips and labels of a split that rows stand on -> how many do, those of the newest rows first."""
        return self._data[role]

    @cached_property
    def _data(self) -> dict[str, dict[tuple[str | None, int | None], int]]:
        # Once: every configuration of a table asks for its rank and its marks.
        return {role: self._counted(role) for role in ROLES}

    def _counted(self, role: str) -> dict[tuple[str | None, int | None], int]:
        said = [(ground.data(role), rows) for ground, rows in self.groups if any(ground.data(role))]
        newest: dict[tuple[str | None, int | None], datetime] = {}
        counted: dict[tuple[str | None, int | None], int] = {}
        fullest = sorted(said, key=lambda one: (one[0].count(None), str(one[0])))
        for data, rows in fullest:
            named = _known(data, counted) or data
            last = max(row["finished"] for row in rows)
            newest[named] = max(last, newest.get(named, last))
            counted[named] = counted.get(named, 0) + len(rows)
        return {data: counted[data] for data in sorted(counted, key=lambda one: newest[one], reverse=True)}

    def sentences(self) -> list[str]:
        """A line for each thing in which rows of the table differ; none where all of them compare."""
        lines = []
        if len(tasks := self._tasks) > 1:
            lines.append(
                f"Not all rows are of the same task: {'; '.join(tasks.values())}. Their scores compare only "
                "where these count alike."
            )
        what = {
            "train": "were trained on the same clips and labels",
            "val": "were scored on the same clips and labels of val",
            "test": "that have a test score have it of the same clips and labels",
        }
        for role, text in what.items():
            if len(known := self.data(role)) > 1:
                listed = "; ".join(
                    f"{_data_text(data)} in {n} row{'s' if n != 1 else ''}" for data, n in known.items()
                )
                only = "" if role == "train" else " Scores compare only within one."
                first = " (the newest, which come first)" if role == "val" else " (the newest)"
                lines.append(f"Not all rows {text}: {listed.replace(';', first + ';', 1)}.{only}")
        return lines

    @cached_property
    def _tasks(self) -> dict[str, str]:
        """Digest of each task -> what it is called, with digits where two have one name."""
        specs = {
            ground.task: str(rows[0]["task_spec"] or rows[0]["task"])
            for ground, rows in self.groups
            if ground.task is not None
        }
        names = list(specs.values())
        return {
            digest: f"{spec} {digest[:DIGITS]}" if names.count(spec) > 1 else spec
            for digest, spec in specs.items()
        }


def _agree(ours: Sequence[Any], others: Sequence[Any]) -> bool:
    return all(a is None or b is None or a == b for a, b in zip(ours, others, strict=True))


def _known(data: tuple[Any, ...], among: Iterable[tuple[Any, ...]]) -> tuple[Any, ...] | None:
    """The one of several that some data are or may be; None where that is none, or more than one."""
    known = list(among)
    fitting = [data] if data in known else [one for one in known if _agree(one, data)]
    return fitting[0] if len(fitting) == 1 and any(data) else None


def _data_text(data: tuple[str | None, int | None]) -> str:
    targets, n_clips = data
    clips = "" if n_clips is None else f"{n_clips} clips"
    if targets is None:
        return clips
    return f"{targets[:DIGITS]} ({clips})" if clips else targets[:DIGITS]
