"""Rows of the page: all configurations with their runs; the script's differences are the library's."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache.manifest import load_manifest
from featcache.store.feature_store import FeatureStore
from featcache.store.targets import Targets
from readouts.report import rows as rows_module
from readouts.report.rows import SHOWN, ConfigurationRow, comparison_data, row_groups
from readouts.results.per_clip import write_per_clip
from readouts.results.run_folder import RunFolder
from readouts.results.significance import kept
from readouts.results.table import add_run, short_name_of
from readouts.results.task_results import TaskResults, load_task_results
from readouts.tasks import load_task

MakeRow = Callable[..., dict[str, Any]]


def results_of(rows: list[dict[str, Any]], folder: Path, *stores: FeatureStore) -> TaskResults:
    for run in {row["run"] for row in rows}:
        add_run(folder, run, [row for row in rows if row["run"] == run])
    (task,), _ = load_task_results(folder, stores, load_manifest())
    return task


def ours(task: TaskResults) -> list[ConfigurationRow]:
    return [row for group in row_groups(task) for row in group.ours]


def test_many_configurations_are_folded_but_for_the_best_of_the_other_backbones(
    make_row: MakeRow, tmp_path: Path
) -> None:
    rows = [make_row(run=f"r{i}", recipe={"lr": i / 10}, val=0.9 - i / 100) for i in range(SHOWN + 5)]
    rows.append(make_row(run="resize", backbone="resize", control="no model", val=0.1))
    found = ours(results_of(rows, tmp_path))
    assert [row.cells["backbone"] for row in found if not row.hidden] == ["toy"] * SHOWN + ["resize"]
    assert [row.place for row in found] == list(range(SHOWN + 6))
    assert (found[1].cells["settings"], found[1].sort_by) == ("lr 0.1", {"val": 0.89})


def test_a_configuration_unfolds_into_its_runs(make_row: MakeRow, tmp_path: Path) -> None:
    scores = {"val": {"mean_AP": 0.5, "walk_AP": 0.25}, "test": {"mean_AP": 0.75}}
    shared = {"command": "scivid sweep ...", "seconds": 32.0, "together": 16, "scores": json.dumps(scores)}
    rows = [make_row(run=run * 12, seed=seed, **shared) for seed, run in enumerate("ab")]
    folder = RunFolder.of(tmp_path, rows[0])
    folder.path.mkdir(parents=True)
    folder.predictions("val").touch()
    (found,) = ours(results_of(rows, tmp_path))
    first, second = found.runs
    assert (first.name, first.seed, first.seconds, second.seed) == (short_name_of("a" * 12), 0, "2", 1)
    assert (first.command, first.val, first.test, first.about) == ("scivid sweep ...", "0.500", "", "")
    assert list(first.predictions) == [f"flyvsfly/toy-{'a' * 12}/predictions_val.parquet"]
    assert second.predictions == []
    assert found.scores == [("mean_AP", "0.500", "0.750"), ("walk_AP", "0.250", "")]


def test_one_command_that_made_two_scores_is_told_with_what_differed(
    make_row: MakeRow, make_split: Callable[..., FeatureStore], tmp_path: Path
) -> None:
    val = make_split("val", np.zeros((6, 1, 2, 2, 2, 8)), np.eye(7, dtype=int)[:6])
    stores = {"val_fingerprint": val.fingerprint, "n_val": 6}
    assert val.header.targets is not None
    now = val.header.targets.fingerprint
    rows = [
        make_row(run="a", val=0.25, targets=json.dumps({"val": "0ld0"}), **stores),
        make_row(run="b", val=0.75, targets=json.dumps({"val": now}), **stores),
    ]
    task = results_of(rows, tmp_path, val)
    found = {row.runs[0].val: row.runs[0].about for row in ours(task)}
    assert found == {
        "0.250": "val data 0ld0 (6 clips); not to be repeated: the labels of val are others now",
        "0.750": f"val data {now[:4]} (6 clips)",
    }
    assert [note.partition(": ")[0] for note in task.notes] == [
        "Not all rows were scored on the same clips and labels of val"
    ]


N = 30


@pytest.fixture
def compared(
    make_row: MakeRow, make_targets: Callable[..., Targets], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> TaskResults:
    """Three configurations scored on the same clips of test: two, two and one seeds; another kept nothing."""
    monkeypatch.setattr(kept, "RESAMPLES", 200)
    task, rng = load_task("calms21", load_manifest()), np.random.default_rng(0)
    labels = np.eye(4, dtype=np.uint8)[np.arange(N) % 4]
    targets = make_targets(N, labels=labels, video=(np.arange(N) % 6).astype("<i4"))
    rows = []
    for noise, readout, n_seeds in ((0.4, "linear", 2), (1.0, "attention", 2), (1.5, "pooled_mlp", 1)):
        for seed in range(n_seeds):
            row = make_row(run=f"{readout}{seed}", task="calms21", readout=readout, seed=seed, steps=5)
            outputs = torch.from_numpy((labels + rng.normal(scale=noise, size=(N, 4))).astype(np.float32))
            per_clip = task.join([task.per_clip(outputs, {"labels": torch.from_numpy(labels)})])
            row["val"] = row["test"] = task.scores(per_clip)["mean_AP"]
            RunFolder.of(tmp_path, row).path.mkdir(parents=True)
            write_per_clip(RunFolder.of(tmp_path, row), "test", np.arange(N), {readout: per_clip})
            rows.append(row)
    rows.append(make_row(run="lost", task="calms21", readout="knn", val=0.01, test=0.01))
    found = results_of(rows, tmp_path)
    return TaskResults(
        **{
            **{name: getattr(found, name) for name in found.__dataclass_fields__},
            "intervals": kept.Intervals(task, {"test": targets}, tmp_path),
        }
    )


SCRIPT = Path(rows_module.__file__).with_name("page.js")
ASKED = """
const vm = require("vm"), fs = require("fs");
const page = {querySelectorAll: () => [], getElementById: () => null};
const context = vm.createContext({document: page, location: {hash: ""}, atob, URLSearchParams});
const Task = vm.runInContext(fs.readFileSync(process.argv[1], "utf8") + ";Task", context);
const floats = vm.runInContext("floats", context), data = JSON.parse(fs.readFileSync(0));
const at = new Map(data.rows.map((row, i) => [row.place, i]));
const task = {data, at, covariances: floats(data.covariances)};
const places = [0, 1, 2, 3];
console.log(JSON.stringify(places.map(a => places.map(b => Task.prototype.difference.call(task, a, b)))));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node, to run the page's script")
def test_the_script_computes_what_the_library_does(compared: TaskResults) -> None:
    data = comparison_data(compared)
    answer = subprocess.run(
        ["node", "-e", ASKED, str(SCRIPT)], input=json.dumps(data), text=True, capture_output=True, check=True
    )
    found, every = json.loads(answer.stdout), compared.configurations
    for a, b in ((0, 1), (1, 0), (0, 2), (2, 1)):
        wanted = compared.difference(every[a].rows, every[b].rows)
        assert wanted is not None
        assert found[a][b]["value"] == pytest.approx(wanted.value, abs=1e-6)
        ends = (found[a][b]["low"], found[a][b]["high"])
        assert ends == pytest.approx((wanted.interval.low, wanted.interval.high), rel=1e-4, abs=1e-6)
        assert found[a][b]["verdict"] == wanted.verdict("test")
    assert found[0][3] is None


def test_what_the_script_is_given_is_small_and_says_what_differs(compared: TaskResults) -> None:
    data = comparison_data(compared)
    assert (data["role"], data["better"], data["clusters"], data["kind"]) == ("test", 1, 6, "videos")
    assert [row["place"] for row in data["rows"]] == [0, 1, 2]
    assert [row["n"] for row in data["rows"]] == [2, 2, 1]
    assert data["words"][0]["readout"] == "linear"
    assert len(data["t"]) == 5  # degrees of freedom of six videos
    json.dumps(data)
