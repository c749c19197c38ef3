"""Rows that are no seeds of each other are not averaged, those that do not compare not ranked in silence."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from readouts.results.comparability import Grounds, seeds_together
from readouts.results.configurations import Configuration, configurations
from readouts.results.formatting import format_settings
from readouts.results.table import load_results

MakeRow = Callable[..., dict[str, Any]]

OF_A_NEW_ROW = {
    "targets": json.dumps({"train": "aa11", "val": "bb22", "test": "cc33"}),
    "task_identity": '{"classes": 7}',
    "n_train": 100, "n_val": 40, "n_test": 30, "test_fingerprint": "x", "test": 0.4, "metric": "mean_AP",
}  # fmt: skip


@pytest.fixture
def new_row(make_row: MakeRow) -> MakeRow:
    """Makes a row as this version writes it."""
    return lambda **given: make_row(**{**OF_A_NEW_ROW, **given})


def labelled(**of: str) -> str:
    return json.dumps({"train": "aa11", "val": "bb22", "test": "cc33", **of})


def groups(rows: list[dict[str, Any]]) -> set[frozenset[str]]:
    """The runs that are taken for seeds of each other, which must not depend on the order of the rows."""
    (found,) = {
        frozenset(frozenset(row["run"] for row in one.rows) for one in configurations(some))
        for some in permutations(rows)
    }
    return set(found)


@pytest.mark.parametrize(
    "other",
    [
        {"targets": labelled(train="dd44")},
        {"targets": labelled(val="dd44")},
        {"targets": labelled(test="dd44")},
        {"test_fingerprint": "y"},
        {"n_train": 99},
        {"n_val": 39},
        {"n_test": 29},
        {"task_identity": '{"classes": 8}'},
        {"metric": "accuracy"},
        {"task_spec": "my_task.py:TASK", "task_identity": '{"sha256": "1"}'},
        {"task_spec": "my_task.py:TASK", "task_identity": None},
    ],
    ids=lambda other: " ".join(other),
)
def test_rows_on_other_clips_labels_or_tasks_are_no_seeds(new_row: MakeRow, other: dict[str, Any]) -> None:
    rows = [new_row(run="a"), new_row(run="b", seed=1), new_row(run="c", seed=2, **other)]
    assert groups(rows) == {frozenset("ab"), frozenset("c")}
    kept, changed = sorted(configurations(rows), key=lambda one: one.best["run"])
    # And they do not look alike, but where the column of the task's score tells them apart.
    assert format_settings(kept) != format_settings(changed) or "metric" in other


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"targets": labelled(train="dd44")}, "train data dd44"),
        ({"targets": labelled(val="dd44")}, "val data dd44 (40 clips)"),
        ({"n_val": 39}, "val data bb22 (39 clips)"),
        ({"targets": labelled(test="dd44")}, "test data dd44 (30 clips)"),
        ({"task_spec": "focal.py:TASK", "task_identity": '{"sha256": "1"}'}, "task focal.py:TASK"),
        ({"val_fingerprint": "w" * 64}, "val store wwwwwwww"),
        ({"train_fingerprint": "w" * 64}, "train store wwwwwwww"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_rows_of_one_table_say_what_they_stand_on(new_row: MakeRow, other: dict[str, Any], says: str) -> None:
    every = configurations([new_row(run="a"), new_row(run="b", seed=1, **other)])
    (changed,) = [one for one in every if one.best["run"] == "b"]
    assert format_settings(changed) == says


def test_what_a_task_file_was_when_it_was_edited_is_told_by_digits(new_row: MakeRow) -> None:
    spec = {"task_spec": "my_task.py:TASK"}
    rows = [new_row(run=str(i), task_identity=json.dumps({"sha256": i}), **spec) for i in range(2)]
    marks = {one.marks["task"] for one in configurations(rows)}
    assert len(marks) == 2 and all(mark.startswith("my_task.py:TASK ") for mark in marks)


def test_a_seed_that_was_not_tested_is_one_of_those_that_were(new_row: MakeRow) -> None:
    untested = new_row(run="c", seed=2, test=None, test_fingerprint=None, n_test=None)
    tested = [new_row(run="a"), new_row(run="b", seed=1)]
    assert groups([*tested, untested]) == {frozenset("abc")}
    # Of two tests nobody knows which it goes with.
    other = new_row(run="d", seed=3, test_fingerprint="y")
    assert groups([*tested, untested, other]) == {frozenset("ab"), frozenset("c"), frozenset("d")}


@pytest.mark.parametrize(
    "lacks", ["task_identity", "n_train", "n_val", "n_test", "targets", "test_fingerprint"]
)
def test_a_row_of_an_older_version_goes_with_those_that_it_does_not_contradict(
    new_row: MakeRow, lacks: str
) -> None:
    assert groups([new_row(run="a"), new_row(run="b", seed=1, **{lacks: None})]) == {frozenset("ab")}


def test_rows_of_before_are_read(tmp_path: Path) -> None:
    earlier = Path(__file__).parents[2] / "earlier" / "results"
    every = configurations(load_results(earlier))
    assert [one.best["readout"] for one in every] == ["linear", "attention", "ridge"]
    assert {tuple(one.marks) for one in every} == {()}
    assert Grounds(groups=seeds_together(load_results(earlier))).sentences() == []


def at(day: int) -> datetime:
    return datetime(2026, 1, day, tzinfo=UTC)


def test_only_scores_on_the_same_val_are_ranked_and_the_newest_comes_first(new_row: MakeRow) -> None:
    old = {"targets": labelled(val="0ld0"), "n_val": 90, "finished": at(1)}
    rows = [
        new_row(run="old best", val=0.9, **old),
        new_row(run="old", val=0.1, readout="attention", **old),
        new_row(run="new", val=0.2, finished=at(2)),
        new_row(run="new best", val=0.3, finished=at(3), readout="attention"),
    ]
    every: list[Configuration] = configurations(rows)
    assert [(one.best["run"], one.rank) for one in every] == [
        ("new best", 0), ("new", 0), ("old best", 1), ("old", 1)
    ]  # fmt: skip
    (sentence,) = Grounds(groups=seeds_together(rows)).sentences()
    assert sentence == (
        "Not all rows were scored on the same clips and labels of val: bb22 (40 clips) in 2 rows (the "
        "newest, which come first); 0ld0 (90 clips) in 2 rows. Scores compare only within one."
    )
    # Of one backbone in a table of several the marks are those of the whole table.
    assert configurations(rows[2:], among=rows)[0].marks == {"val data": "bb22 (40 clips)"}
    assert configurations(rows[2:])[0].marks == {}


def test_a_smaller_share_of_the_same_clips_is_a_setting_and_no_other_data(new_row: MakeRow) -> None:
    rows = [new_row(run="a"), new_row(run="b", n_train=50, recipe={"train_fraction": 0.5})]
    assert {format_settings(one) for one in configurations(rows)} == {"", "train_fraction 0.5"}
    assert Grounds(groups=seeds_together(rows)).sentences() == []
