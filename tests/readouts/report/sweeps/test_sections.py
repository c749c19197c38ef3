"""Sweeps: a section a sweep, a panel a task, a table where three settings vary."""

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from featcache.manifest import load_manifest
from readouts.report.gaps import Gaps
from readouts.report.sweeps.sections import CONFIGURATIONS_SHOWN, SweepSection, sweep_sections
from readouts.results.table import add_run
from readouts.results.task_results import load_task_results
from readouts.sweeps.studies import STUDIES

MakeRow = Callable[..., dict[str, Any]]


@pytest.fixture
def sections(make_row: MakeRow, tmp_path: Path) -> list[SweepSection]:
    rows = [make_row(run="alone"), make_row(run="single", sweep="grid-2", task="calms21")]
    rows += [
        make_row(run=f"{task}{lr}", sweep="grid-1", task=task, recipe={"lr": lr})
        for task, lr in product(("flyvsfly", "calms21"), (0.1, 0.01))
    ]
    rows += [
        make_row(run=f"g{i}", sweep="grid-2", recipe={"lr": lr, "steps": steps}, config={"width": width})
        for i, (lr, steps, width) in enumerate(product((0.1, 0.2), (1, 2, 3), (8, 16, 32)))
    ]
    rows += [make_row(run=f"d{layer}", sweep="depth-flyvsfly-toy", layer=layer) for layer in ("1", "2")]
    for row in rows:
        add_run(tmp_path, row["run"], [row])
    # What `scivid sweep --study` leaves, and a sweep all of whose runs were there: it trained none of them.
    study = STUDIES["depth"]
    asked = {"title": study.title, "question": study.question, "along": study.along}
    for name, about in {
        "depth-flyvsfly-toy": {**asked, "runs": ["d1", "d2"]},
        "later": {"runs": ["alone", "flyvsfly0.1", "gone"]},
        "nothing": {"runs": ["gone"]},
    }.items():
        (tmp_path / "sweeps" / name).mkdir(parents=True)
        (tmp_path / "sweeps" / name / "sweep.json").write_text(json.dumps(about))
    (tmp_path / "sweeps" / "later" / "failures.jsonl").touch()
    (tmp_path / "sweeps" / "torn").mkdir()
    (tmp_path / "sweeps" / "torn" / "sweep.json").write_text("{")
    return sweep_sections(load_task_results(tmp_path, [], load_manifest())[0], tmp_path, Gaps())


def test_rows_of_a_sweep_are_together(sections: list[SweepSection]) -> None:
    found = {section.name: (section.rows, [one.title for one in section.tasks]) for section in sections}
    assert found == {
        "Depth (depth-flyvsfly-toy)": ("2 rows", ["Fly behaviour"]),
        "grid-1": ("4 rows", ["Fly behaviour", "Mouse behaviour"]),
        "grid-2": ("19 rows", ["Fly behaviour"]),  # one row on mice varies nothing
        "later": ("2 rows", ["Fly behaviour"]),
    }


def test_a_study_asks_its_question(sections: list[SweepSection]) -> None:
    assert [section.question for section in sections] == [STUDIES["depth"].question, "", "", ""]


def test_curves_or_a_table(sections: list[SweepSection]) -> None:
    _, curves, table, _ = sections
    assert curves.tasks[0].image.startswith("data:image/svg+xml")
    assert curves.tasks[0].varied == "lr: 0.01, 0.1"
    assert not curves.tasks[0].table
    assert not table.tasks[0].image
    assert table.tasks[0].score == "mAP on val, higher is better"
    assert (len(table.tasks[0].table), table.tasks[0].n_configurations) == (CONFIGURATIONS_SHOWN, 18)
