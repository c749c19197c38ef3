"""The matrix: the best on val with what test says of it, how many there were, published rows below."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from featcache.manifest import load_manifest
from readouts.report.overview import Overview, overview
from readouts.results.table import add_run
from readouts.results.task_results import load_task_results

MakeRow = Callable[..., dict[str, Any]]


@pytest.fixture
def matrix(make_row: MakeRow, tmp_path: Path) -> Overview:
    storms = {"task": "typhoon", "task_spec": "typhoon", "metric": "pressure/rmse", "higher_is_better": False}
    rows = [
        make_row(run="a", val=0.3, test=0.9),
        make_row(run="b", val=0.4, test=0.2, readout="attention"),
        make_row(run="c", val=0.1, backbone="resize", control="no model"),
        make_row(run="d", val=9.0, test=12.34, **storms),
        make_row(run="e", val=8.0, test=16.0, seed=1, **storms),
        make_row(run="f", val=8.25, test=7.0, readout="attention", **storms),
    ]
    for row in rows:
        add_run(tmp_path, row["run"], [row])
    return overview(load_task_results(tmp_path, [], load_manifest())[0])


def test_val_selects_and_test_is_shown(matrix: Overview) -> None:
    resize, toy = matrix.groups[0].ours
    fly, storm = toy.scores
    assert fly is not None
    assert storm is not None
    assert (fly.score, fly.readout, fly.tried, fly.best) == ("0.200", "attention", "best of 2", True)
    # Seeds e and d: e is the best row, f the best configuration, which is what a sweep scores on test.
    assert (storm.score, storm.readout, storm.tried) == ("7.000", "attention", "best of 2")
    assert (resize.control, resize.scores[1]) == ("no model", None)


def test_a_row_without_test_says_so(matrix: Overview) -> None:
    cell = matrix.groups[0].ours[0].scores[0]
    assert cell is not None
    assert (cell.score, cell.readout, cell.tried, cell.best) == ("0.100", "on val, linear", "1 run", False)


def test_published_rows_are_the_best_readout_of_each(matrix: Overview) -> None:
    published = {line.name: line.scores for line in matrix.groups[0].published}
    fly, storm = published["4DS-e"]
    assert fly is not None
    assert storm is not None
    assert (fly.score, fly.readout) == ("0.894", "attention")
    assert (storm.score, storm.readout) == ("4.23", "attention")  # linear: 7.45, and lower is better
    assert published["4DS-L"][0] is None


def test_what_was_trained_makes_a_group_and_a_table_a_figure(make_row: MakeRow, tmp_path: Path) -> None:
    mice, tissue = {"task": "calms21", "task_spec": "calms21"}, {"task": "stir", "task_spec": "stir"}
    add_run(tmp_path, "a", [make_row(run="a", **mice, test=0.5)])
    add_run(tmp_path, "b", [make_row(run="b", **tissue, val=0.5)])
    found = overview(load_task_results(tmp_path, [], load_manifest())[0])
    frozen, tuned, domain = found.groups
    assert [group.title for group in found.groups] == [
        "readouts of frozen backbones", "backbones trained on the task", "models of the domain",
    ]  # fmt: skip
    assert [len(group.ours) for group in found.groups] == [1, 0, 0]
    of = {line.name: line.scores for line in frozen.published}
    jepa = of["V-JEPA-H"][0]
    assert jepa is not None
    comparison = "SciVid, ICCV 2025, comparison with models of the domain"
    # Two tables disagree: both are shown, neither as the other's split.
    assert (jepa.score, jepa.readout) == ("0.828", "attention")
    assert jepa.others == [f"0.924: split not said, {comparison}"]
    # Ours were scored on val only: the published val comes first, and test is called so.
    tracked = of["4DS-e"][1]
    assert tracked is not None
    assert (tracked.score, tracked.readout) == ("0.578", "tracking")
    assert tracked.others == ["0.513: test, SciVid, ICCV 2025, table of frozen backbones"]
    elsewhere = of["DINOv2-g"][1]
    assert elsewhere is not None
    assert (elsewhere.score, elsewhere.readout, elsewhere.others) == ("0.215", "on test, tracking", [])
    assert [(line.name, [one and one.score for one in line.scores]) for line in tuned.published] == [
        ("4DS-e", [None, "0.692"])
    ]
    (tracker,) = (line.scores[1] for line in domain.published if line.name == "MFT")
    assert tracker is not None
    assert (tracker.readout, tracker.others) == ("", ["0.685: test"])  # of the same table
    assert [(line.name, [one and one.score for one in line.scores]) for line in domain.published] == [
        ("VideoPrism-g", ["0.915", None]),
        ("MFT", [None, "0.776"]),
    ]


def test_seeds_are_their_mean_as_in_the_tasks_own_table(make_row: MakeRow, tmp_path: Path) -> None:
    for seed, (val, test) in enumerate(((0.9, 0.1), (0.5, 0.3))):
        add_run(tmp_path, str(seed), [make_row(run=str(seed), seed=seed, val=val, test=test)])
    (line,) = overview(load_task_results(tmp_path, [], load_manifest())[0]).groups[0].ours
    (cell,) = line.scores
    assert cell is not None
    assert (cell.score, cell.tried) == ("0.200 ± 0.141", "2 runs")


@pytest.mark.parametrize(
    ("higher_is_better", "name", "score"), [(True, "middle", "0.500"), (False, "last", "0.125")]
)
def test_the_best_baseline_is_the_highest_or_the_lowest_on_the_reported_split(
    make_row: MakeRow, tmp_path: Path, higher_is_better: bool, name: str, score: str
) -> None:
    add_run(tmp_path, "a", [make_row(run="a", test=0.7, higher_is_better=higher_is_better)])
    (task,), _ = load_task_results(tmp_path, [], load_manifest())
    values = {"first": (9.0, 0.25), "middle": (0.3, 0.5), "last": (0.4, 0.125)}
    roles = {
        role: {name: {"mean_AP": both[i], "other": 99.0 * i} for name, both in values.items()}
        for i, role in enumerate(("val", "test"))
    }
    (cell,) = overview([replace(task, baselines=roles)]).baselines.scores
    assert cell is not None
    assert (cell.readout, cell.score) == (name, score)
