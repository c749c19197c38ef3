"""A task's section: rows that count, commands of every run, nothing that is not there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from featcache.manifest import load_manifest
from readouts.page_task import ROWS_SHOWN, TaskSection, task_section
from readouts.results import add_run
from readouts.task_results import load_task_results

MakeRow = Callable[..., dict[str, Any]]


def section_of(rows: list[dict[str, Any]], results: Path) -> TaskSection:
    for run in {row["run"] for row in rows}:
        add_run(results, run, [row for row in rows if row["run"] == run])
    (task,) = load_task_results(results, [], load_manifest())
    return task_section(task, results)


def test_many_configurations_leave_room_for_the_other_backbones(make_row: MakeRow, tmp_path: Path) -> None:
    rows = [make_row(run=f"r{i}", recipe={"lr": i / 10}, val=0.9 - i / 100) for i in range(ROWS_SHOWN + 5)]
    rows.append(make_row(run="resize", backbone="resize", control="no model", val=0.1))
    section = section_of(rows, tmp_path)
    assert [row["backbone"] for row in section.rows] == ["toy"] * ROWS_SHOWN + ["resize"]
    assert (section.n_left_out, section.n_tried) == (5, ROWS_SHOWN + 6)
    assert section.rows[1]["settings"] == "lr 0.1"
    assert len(section.commands) == ROWS_SHOWN + 6


def test_a_run_of_two_heads_is_one_command_and_shared_seconds_are_shared(
    make_row: MakeRow, tmp_path: Path
) -> None:
    shared = {"command": "scivid sweep ...", "seconds": 32.0, "together": 16}
    section = section_of([make_row(**shared), make_row(readout="attention", val=0.75, **shared)], tmp_path)
    assert section.commands == [
        {
            "name": "toy, layer 1, seed 0: attention 0.750, linear 0.500",
            "command": "scivid sweep ...",
            "seconds": "2",
        }
    ]


def test_without_stores_there_are_rows_and_published_rows(make_row: MakeRow, tmp_path: Path) -> None:
    section = section_of([make_row()], tmp_path)
    assert (section.title, section.metric, section.better) == (
        "Fly behaviour",
        "mean_AP",
        "higher is better",
    )
    assert not any((section.pictures, section.clips, section.curves, section.differences, section.problem))
    assert section.units == ""
    assert {"backbone": "Resize", "readout": "attention", "value": "0.095"} in section.published
