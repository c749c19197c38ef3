"""Scores of yes and no: chosen on val, counted on both, with the clips that are wrong."""

import csv
import json
from base64 import b64decode
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from featcache.manifest import load_manifest
from readouts.report.behaviours import NONE, Behaviours, _confusion, behaviours_of
from readouts.report.gaps import Gaps
from readouts.report.page import write_report
from readouts.results.decided import evaluated, val_thresholds
from readouts.results.table import load_results
from readouts.results.task_results import TaskResults, finished_stores, load_task_results
from readouts.tasks.classification import Classification
from tests.own_recordings import RATE
from tests.readouts.own_lab import Lab


@pytest.fixture
def results(lab: Lab) -> TaskResults:
    stores, _ = finished_stores(lab.cache)
    (found,), _ = load_task_results(lab.results, stores, load_manifest(lab.videos / "scivid.yaml"))
    return found


def found(results: TaskResults, lab: Lab) -> Behaviours:
    of = behaviours_of(results, lab.results, Gaps())
    assert of is not None
    return of


def test_counts_are_those_of_the_labels(results: TaskResults, lab: Lab) -> None:
    of = found(results, lab)
    rows = {row["name"]: row for row in of.counts}
    assert list(rows) == ["dig", "rest", NONE, "all clips"]
    readout = str(results.best.best["readout"])
    labels = evaluated(lab.folder, readout, "test").labels
    assert rows["dig"]["test"] == str(labels[:, 0].sum())
    assert rows[NONE]["test"] == str((labels.sum(axis=1) == 0).sum())
    assert rows["all clips"]["test"] == str(len(labels))


def test_scores_are_those_of_the_table(results: TaskResults, lab: Lab) -> None:
    of = found(results, lab)
    row = next(row for row in load_results(lab.results) if row["readout"] == results.best.best["readout"])
    kept = json.loads(row["scores"])
    assert of.roles == ["val", "test"]
    for number, role in enumerate(of.roles):
        assert of.macro[role].split()[0] == f"{kept[role]['macro_F1']:.3f}"
        for cells in of.classes:
            f1 = kept[role].get(f"{cells['name']}_F1")
            assert cells["roles"][number]["f1"] == ("" if f1 is None else f"{f1:.2f}")
            assert "found)" in cells["roles"][number]["bouts"]


def test_wrong_clips_come_with_video_time_and_both_labels(results: TaskResults, lab: Lab) -> None:
    of, readout = found(results, lab), str(results.best.best["readout"])
    text = b64decode(of.table.partition(",")[2]).decode()
    rows = list(csv.DictReader(text.splitlines()))
    assert len(rows) == of.n_listed
    thresholds = val_thresholds(lab.folder, readout)
    for role in ("val", "test"):
        split = evaluated(lab.folder, readout, role)
        wrong = (split.said(thresholds) != (split.labels > 0)).any(axis=1)
        listed = [row for row in rows if row["split"] == role]
        ids = {f"{row['video']}/{row['first frame']}" for row in listed}
        assert ids == {split.ids[i] for i in np.flatnonzero(wrong)}
        losses = [float(row["loss"]) for row in listed]
        assert losses == sorted(losses, reverse=True)
    for row in rows:
        assert row["true"] != row["said"]
        minutes, _, seconds = row["time"].partition(":")
        assert 60 * int(minutes) + float(seconds) == pytest.approx(
            float(int(row["first frame"]) / RATE), abs=0.006
        )
    assert of.confusion is not None


def test_clips_with_several_labels_are_not_in_the_confusion(results: TaskResults, lab: Lab) -> None:
    one = evaluated(lab.folder, "attention", "val")
    names, thresholds = ["dig", "rest"], val_thresholds(lab.folder, "attention")
    whole = _confusion({"val": one}, thresholds, names)
    assert whole is not None
    assert whole.caption.startswith("All clips of val")
    labels = one.labels.copy()
    labels[0] = 1
    some = _confusion({"val": replace(one, labels=labels)}, thresholds, names)
    assert some is not None
    n = len(labels)
    assert some.caption.startswith(f"The {n - 1} of {n} clips with one label at most of val")
    assert _confusion({"val": replace(one, labels=np.ones_like(labels))}, thresholds, names) is None


def test_other_tasks_have_none(results: TaskResults, lab: Lab) -> None:
    assert isinstance(results.task, Classification)
    assert behaviours_of(replace(results, task=None), lab.results, Gaps()) is None


def test_it_is_on_the_page(lab: Lab, tmp_path: Path) -> None:
    manifest = load_manifest(lab.videos / "scivid.yaml")
    missing = write_report(
        tmp_path / "r.html", results_dir=lab.results, cache_dir=lab.cache, manifest=manifest
    )
    page = (tmp_path / "r.html").read_text()
    assert not missing
    for said in ("Classes and F1", "What is taken for what", "F1 of bouts", 'download="worst_clips.csv"'):
        assert said in page
