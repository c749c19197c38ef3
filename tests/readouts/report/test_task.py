"""A task's section: rows that count, nothing that is not there."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from featcache.manifest import load_manifest
from featcache.store.feature_store import FeatureStore
from readouts.report.overview import overview
from readouts.report.tables import comparison_of, csv_of
from readouts.report.task import TaskSection, task_section
from readouts.results.published import KINDS
from readouts.results.run_folder import RunFolder
from readouts.results.table import add_run
from readouts.results.task_results import load_task_results

MakeRow = Callable[..., dict[str, Any]]


def section_of(rows: list[dict[str, Any]], results: Path) -> TaskSection:
    for run in {row["run"] for row in rows}:
        add_run(results, run, [row for row in rows if row["run"] == run])
    (task,), _ = load_task_results(results, [], load_manifest())
    return task_section(task, results)


TUNED = {"tuned": "partial", "tuned_blocks": 2, "backbone_lr": 0.1, "val": 0.9}


def test_what_was_tuned_stands_apart_on_the_page_and_in_every_table(
    make_row: MakeRow, tmp_path: Path
) -> None:
    """Never in one ranking with readouts of frozen backbones, each of which groups has a best of its own."""
    section = section_of(
        [make_row(run="a", val=0.5), make_row(run="b", val=0.4, seed=1), make_row(run="c", **TUNED)], tmp_path
    )
    results = section.results
    frozen, tuned, _ = section.groups
    assert (frozen.title, [row.cells["val"] for row in frozen.ours]) == (KINDS["frozen"], ["0.450 ± 0.071"])
    assert (tuned.title, [row.cells["val"] for row in tuned.ours]) == (KINDS["fine-tuned"], ["0.900"])
    of_page = {group.title: group.ours for group in overview([results]).groups}
    for kind, score in (("frozen", "0.450 ± 0.071"), ("fine-tuned", "0.900")):
        ((cell,),) = (line.scores for line in of_page[KINDS[kind]])
        assert cell is not None
        assert (cell.score, cell.best) == (score, True)
    of_table = [(row["group"], row["val"]) for row in comparison_of(results) if row.get("seeds")]
    assert of_table == [(KINDS["frozen"], "0.450 ± 0.071"), (KINDS["fine-tuned"], "0.900")]
    rows = csv.DictReader(csv_of([results]).splitlines())
    assert {row["run"]: row["kind"] for row in rows if row["run"]} == {
        "a": "frozen", "b": "frozen", "c": "fine-tuned",
    }  # fmt: skip


def test_a_backbone_whose_best_row_is_a_probe_has_the_curve_of_its_best_run(
    make_row: MakeRow, tmp_path: Path
) -> None:
    rows = [make_row(run="probe", readout="knn", val=0.9), make_row(run="head", seed=7, steps=10)]
    point = {"step": 10, "readout": "linear", "train_loss": 1.0, "mean_AP": 0.5}
    folder = RunFolder.of(tmp_path, rows[1]).path
    folder.mkdir(parents=True)
    (folder / "history.jsonl").write_text(json.dumps(point) + "\n")
    section = section_of(rows, tmp_path)
    assert section.missing == []
    assert [curve.title for curve in section.curves] == ["toy, layer 1, seed 7"]


def test_without_intervals_the_reason_is_given(
    make_row: MakeRow, make_split: Callable[..., FeatureStore], tmp_path: Path
) -> None:
    val = make_split("val", np.zeros((6, 1, 2, 2, 2, 8)), np.eye(7, dtype=int)[:6])
    add_run(tmp_path, "a", [make_row(val_fingerprint=val.fingerprint)])
    (task,), _ = load_task_results(tmp_path, [val], load_manifest())
    section = task_section(task, tmp_path)
    assert section.independent == ""
    assert section.no_intervals.startswith("run a kept no statistics of single clips of val")


def test_without_stores_there_are_rows_and_published_rows(make_row: MakeRow, tmp_path: Path) -> None:
    section = section_of([make_row()], tmp_path)
    assert (section.results.title, section.results.metric_title, section.results.better) == (
        "Fly behaviour",
        "mAP",
        "higher is better",
    )
    assert not any((section.figures, section.clips, section.curves, section.differences, section.problem))
    assert section.independent == ""
    assert ("Resize", 0.095) in {(row.backbone, row.value) for row in section.results.published.rows}
