"""Configurations: seeds side by side, the best on val first whichever way the score goes."""

from collections.abc import Callable
from itertools import permutations
from math import nan, sqrt
from typing import Any

import pytest

from readouts.results.comparability import settings_of
from readouts.results.configurations import configurations, rows_by
from readouts.results.formatting import (
    format_mean,
    format_settings,
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
    assert format_mean(slow, "val") == "0.300 ± 0.141"
    assert (format_mean(fast, "val"), format_mean(fast, "test")) == ("0.500", None)


def test_a_precision_that_is_not_the_benchmarks_is_named(make_row: MakeRow) -> None:
    rows = [make_row(run="a"), make_row(run="b", recipe={"precision": "bfloat16"})]
    named = {str(one.best["run"]): format_settings(one) for one in configurations(rows)}
    assert named == {"a": "", "b": "precision bfloat16"}


def test_only_settings_that_differ_are_named(make_row: MakeRow) -> None:
    rows = [
        make_row(run="a", readout="attention", config={"width": 8, "n_frames": 3}),
        make_row(run="b", readout="attention", config={"width": 16, "n_frames": 4}),
        make_row(run="c", recipe={"lr": 0.1}),
    ]
    named = {str(one.best["run"]): format_settings(one) for one in configurations(rows)}
    assert named == {"a": "width 8", "b": "width 16", "c": ""}
    assert settings_of(rows[0]) == {"lr": 1e-3, "steps": 10, "width": 8}  # n_frames: the task's, not ours


def test_other_features_are_another_configuration(make_row: MakeRow) -> None:
    rows = [make_row(run="a"), make_row(run="b", train_fingerprint="other", seed=1)]
    assert len(configurations(rows)) == 2


def test_the_smaller_error_is_the_better_and_no_number_comes_last(make_row: MakeRow) -> None:
    errors = [make_row(run=str(i), val=val, higher_is_better=False) for i, val in enumerate((3.0, nan, 1.0))]
    assert [row["run"] for row in configurations(errors)[0].rows] == ["2", "0", "1"]
    (one,) = configurations([make_row(val=0.1), make_row(val=0.9)])
    assert one.scores("val") == [0.9, 0.1]


def test_what_is_first_of_equals_does_not_hang_on_the_order_of_the_rows(make_row: MakeRow) -> None:
    # Val is saturated; a run that is scored on test is written again, and then comes last in the table.
    rows = [make_row(run=f"{share}-{seed}", seed=seed, val=1.0, recipe={"train_fraction": share})
            for share in (1.0, 0.25) for seed in (0, 1)]  # fmt: skip
    orders = {
        tuple(row["run"] for one in configurations(some) for row in one.rows) for some in permutations(rows)
    }
    assert orders == {("0.25-0", "0.25-1", "1.0-0", "1.0-1")}
    tested = [{**row, "test": 0.0} if row["run"].startswith("0.25") else row for row in rows]
    assert configurations(tested)[0].mean("test") == 0.0


def test_rows_are_taken_apart(make_row: MakeRow) -> None:
    rows = [make_row(task="b"), make_row(task="a", backbone="other"), make_row(task="b", backbone="other")]
    assert [(task, len(ours)) for task, ours in rows_by("task", rows).items()] == [("b", 2), ("a", 1)]
    assert list(rows_by("backbone", rows)) == ["toy", "other"]
