"""Words choose runs: a name, a value, name=value; of several configurations the best on val."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from featcache.errors import CallError
from readouts.results.choice import apart, choose, find_run, listed_runs
from readouts.results.run_folder import RunFolder
from readouts.results.table import add_run, name_of

MakeRow = Callable[..., dict[str, Any]]


@pytest.fixture
def rows(make_row: MakeRow) -> list[dict[str, Any]]:
    every = [
        ("aaaa00000000", "resize", "linear", 0, 0.2),
        ("aaab00000000", "resize", "linear", 1, 0.3),
        ("bbbb00000000", "resize", "attention", 0, 0.4),
        ("cccc00000000", "videomae", "linear", 0, 0.1),
    ]
    made = [
        make_row(run=run, backbone=backbone, readout=readout, seed=seed, val=val)
        for run, backbone, readout, seed, val in every
    ]
    return [*made, make_row(run="dddd00000000", task="typhoon", backbone="resize", recipe={"lr": 0.01})]


def test_words_name_configurations_and_the_best_on_val_is_meant(rows: list[dict[str, Any]]) -> None:
    both = choose(rows, "resize", "flyvsfly")
    assert (both.configuration.best["readout"], both.n_others) == ("attention", 1)
    seeds = choose(rows, "backbone=resize, linear task=flyvsfly")
    assert [row["seed"] for row in seeds.configuration.rows] == [1, 0]
    assert str(seeds) == "resize, layer 1, linear, 2 seeds"
    one = choose(rows, "resize linear seed=0 flyvsfly")
    assert [row["run"] for row in one.configuration.rows] == ["aaaa00000000"]
    assert choose(rows, "lr=1e-2").configuration.best["task"] == "typhoon"


def test_a_name_or_digits_choose_a_run(rows: list[dict[str, Any]]) -> None:
    name = name_of("cccc00000000")
    for words in (name, name[:5], "cccc", "run=cccc", f"{name}/linear"):
        assert choose(rows, words).configuration.best["run"] == "cccc00000000"
    assert str(choose(rows, name)) == f"videomae, layer 1, linear, seed 0 ({name[:11]})"


def test_all_of_a_name_comes_before_its_beginning_and_a_beginning_is_of_one_run(make_row: MakeRow) -> None:
    rows = [make_row(run=run, val=val) for run, val in (("abc", 0.1), ("abcd", 0.2), ("abce", 0.3))]
    assert choose(rows, "abc").configuration.best["run"] == "abc"
    for words in ("poza", "run=poza"):
        with pytest.raises(
            CallError, match="'poza' begins the names of several runs: write one of pozat, pozav"
        ):
            choose(rows[1:], words)


def test_the_folder_of_a_run_that_was_trained_is_found(tmp_path: Path, make_row: MakeRow) -> None:
    trained = {"finished": datetime(2026, 1, 1, tzinfo=UTC), "steps": 10}
    both = [make_row(run="abc", readout=kind, val=val, **trained) for kind, val in (("x", 0.3), ("y", 0.4))]
    add_run(tmp_path, "abc", both)
    add_run(tmp_path, "probe", [make_row(**{**trained, "run": "probe", "val": 0.9, "steps": 0})])
    folder = tmp_path / "flyvsfly" / "toy-abc"
    for words, readout in (("abc", "y"), ("abc/x", "x"), ("flyvsfly", "y"), ("toy steps=10", "y")):
        assert find_run(tmp_path, words) == (RunFolder(folder), readout)
    with pytest.raises(CallError, match="no run is, or is of"):
        find_run(tmp_path, str(folder))
    folder.mkdir(parents=True)
    assert find_run(tmp_path / "elsewhere", str(folder)) == (RunFolder(folder), "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("resize", r"'resize' fits runs of flyvsfly, typhoon: say which with --task"),
        ("videoma", r"no run is, or is of, 'videoma': .* Did you mean 'videomae'"),
        ("videomae attention", r"no run among those of 'videomae' is, or is of, 'attention'"),
        ("videomae seed=3", r"no run among those of 'videomae' has seed=3: there are 0\."),
        ("backbon=resize", r"no run has 'backbon': known are .* Did you mean 'backbone'"),
        ("cccc00000000/attention", r"no run is, or is of, 'cccc00000000/attention'"),
    ],
)
def test_what_fits_nothing_is_told_with_what_there_is(
    rows: list[dict[str, Any]], words: str, message: str
) -> None:
    with pytest.raises(CallError, match=message):
        choose(rows, words)


def test_an_unknown_task_and_an_empty_table_are_told(rows: list[dict[str, Any]]) -> None:
    with pytest.raises(CallError, match="no run is of task stir: there are some of flyvsfly, typhoon"):
        choose(rows, "resize", "stir")
    with pytest.raises(CallError, match="there are no runs yet"):
        choose([], "")


def test_what_differs_between_two_is_listed(rows: list[dict[str, Any]]) -> None:
    first, second = (choose(rows, words).configuration for words in ("bbbb", "dddd"))
    assert apart(first, second) == ["readout: attention, linear", "lr: 0.001, 0.01"]
    assert apart(first, first) == []


def test_runs_are_listed_newest_first_and_of_one_task(rows: list[dict[str, Any]]) -> None:
    table = [{**row, "n_train": 2_000, "n_val": 10, "targets": '{"val": "abcdef"}'} for row in rows]
    listed = listed_runs(table)
    assert [row["task"] for row in listed][:2] == ["typhoon", "flyvsfly"]
    assert listed[0]["run"] == name_of("dddd00000000")[:11]
    shown = [listed[0][name] for name in ("labels", "train, val clips", "test")]
    assert shown == ["abcd", "2,000, 10", None]
    assert len(listed_runs(table, "typhoon")) == 1
