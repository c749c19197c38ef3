"""Standings: seeds side by side, the best on val first whichever way the score goes."""

from collections.abc import Callable
from math import nan, sqrt
from typing import Any

import pytest

from readouts.standings import (
    by_backbone,
    by_task,
    configurations,
    ranked,
    settings_of,
    written,
    written_mean,
    written_settings,
)

MakeRow = Callable[..., dict[str, Any]]


def test_seeds_of_one_setting_are_one_configuration(make_row: MakeRow) -> None:
    rows = [make_row(run=str(seed), seed=seed, val=val) for seed, val in enumerate((0.2, 0.4))]
    rows.append(make_row(run="c", recipe={"lr": 0.1}, val=0.5))
    slow, fast = reversed(configurations(rows))
    assert [row["run"] for row in slow.rows] == ["1", "0"]
    assert slow.best["run"] == "1"
    assert slow.mean("val") == pytest.approx(0.3)
    assert slow.spread("val") == pytest.approx(sqrt(0.02))
    assert (fast.mean("val"), fast.spread("val"), fast.mean("test")) == (0.5, None, None)
    assert written_mean(slow, "val") == "0.300 ± 0.141"
    assert (written_mean(fast, "val"), written_mean(fast, "test")) == ("0.500", None)


def test_only_settings_that_differ_are_named(make_row: MakeRow) -> None:
    rows = [
        make_row(run="a", readout="attention", config={"width": 8, "n_frames": 3}),
        make_row(run="b", readout="attention", config={"width": 16, "n_frames": 4}),
        make_row(run="c", recipe={"lr": 0.1}),
    ]
    named = {str(one.best["run"]): written_settings(one) for one in configurations(rows)}
    assert named == {"a": "width 8", "b": "width 16", "c": ""}
    assert settings_of(rows[0]) == {"lr": 1e-3, "steps": 10, "width": 8}  # n_frames: the task's, not ours


def test_other_features_are_another_configuration(make_row: MakeRow) -> None:
    rows = [make_row(run="a"), make_row(run="b", train_fingerprint="other", seed=1)]
    assert len(configurations(rows)) == 2


def test_the_smaller_error_is_the_better_and_no_number_comes_last(make_row: MakeRow) -> None:
    errors = [make_row(run=str(i), val=val, higher_is_better=False) for i, val in enumerate((3.0, nan, 1.0))]
    assert [row["run"] for row in ranked(errors)] == ["2", "0", "1"]
    assert [row["val"] for row in ranked([make_row(val=0.1), make_row(val=0.9)])] == [0.9, 0.1]


def test_rows_are_taken_apart(make_row: MakeRow) -> None:
    rows = [make_row(task="b"), make_row(task="a", backbone="other"), make_row(task="b", backbone="other")]
    assert [(task, len(ours)) for task, ours in by_task(rows).items()] == [("b", 2), ("a", 1)]
    assert list(by_backbone(rows)) == ["toy", "other"]


def test_digits() -> None:
    assert [written(value) for value in (None, 0.12345, -9.9996, 12.34)] == [None, "0.123", "-10.000", "12.3"]
