import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache.errors import CallError
from featcache.store.feature_store import FeatureStore
from readouts.results.table import SCHEMA, load_results, table_path
from readouts.sweeps import run as sweep
from readouts.sweeps.grid import parse_grid
from readouts.sweeps.plan import Folders, plan_sweep
from readouts.sweeps.run import Outcome, known_sweeps, run_sweep, summary, sweep_name

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
TINY = "task=flyvsfly backbone=toy steps=6 minival_every=3 batch=8 width=8 heads=2 "

OF_THE_CLOCK = {"finished", "seconds", "together"}
"""Columns in which a sweep that was killed may differ: when, how long, and in whose company it ended."""


pytestmark = pytest.mark.usefixtures("stores")


def swept(folders: Folders, *grids: str, **options: Any) -> Outcome:
    plan = plan_sweep([parse_grid(grid) for grid in grids], folders)
    return run_sweep(plan, folders, name="mine", device=CPU, **options)


def failures(folders: Folders) -> list[dict[str, Any]]:
    file = folders.results_dir / "sweeps" / "mine" / "failures.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_every_run_of_a_sweep_becomes_a_row(folders: Folders) -> None:
    told: list[tuple[int, int]] = []

    def progress(what: str, done: int, total: int) -> None:
        if what == "steps of the sweep":
            told.append((done, total))

    found = swept(folders, TINY + "readout=linear,attention,knn seed=0,1", progress=progress)
    rows = load_results(folders.results_dir)
    assert len(rows) == len(found.rows) == 5
    assert {row["sweep"] for row in rows} == {"mine"}
    assert {(row["readout"], row["together"]) for row in rows} == {
        ("linear", 4),
        ("attention", 4),
        ("knn", 1),
    }
    assert (found.failures, found.busy) == ([], [])
    assert told == [(step, 6) for step in range(1, 7)]
    about = json.loads((folders.results_dir / "sweeps" / "mine" / "sweep.json").read_text())
    assert sorted(about["runs"]) == sorted(row["run"] for row in rows)


def test_a_sweep_of_recorded_runs_trains_nothing(folders: Folders) -> None:
    first = swept(folders, TINY + "readout=linear seed=0,1")
    plan = plan_sweep([parse_grid(TINY + "readout=linear seed=0,1")], folders)
    assert (plan.passes, len(plan.recorded)) == ((), 2)
    again = run_sweep(plan, folders, name="other", device=CPU)
    assert again.rows == first.rows


def test_only_the_guilty_run_fails(folders: Folders) -> None:
    # Three heads do not divide a width of 8, which is found when the head is built.
    found = swept(folders, TINY.replace("heads=2", "heads=2,3") + "readout=linear,attention seed=0,1")
    assert len(found.rows) == 4
    assert [failure.label for failure in found.failures] == [
        f"flyvsfly toy attention steps=6 minival_every=3 batch=8 width=8 heads=3 seed {seed}"
        for seed in (0, 1)
    ]
    assert [(line["run"], line["error"]) for line in failures(folders)] == [
        (failure.run, failure.error) for failure in found.failures
    ]
    assert "8" in found.failures[0].error and "3" in found.failures[0].error


def test_a_run_that_diverges_takes_nothing_with_it(folders: Folders) -> None:
    found = swept(folders, TINY + "readout=linear lr=1e-2,1e38 warmup=1")
    assert [json.loads(row["recipe"])["lr"] for row in found.rows] == [1e-2]
    assert len(found.failures) == 1 and "lr=1e+38" in found.failures[0].error


def test_runs_without_a_store_are_failures_with_the_way_out(folders: Folders) -> None:
    found = swept(folders, TINY.replace("backbone=toy", "backbone=toy,none") + "readout=linear")
    assert len(found.rows) == 1
    assert "scivid extract --backbone none --task flyvsfly" in failures(folders)[0]["error"]


def test_a_run_in_another_process_is_left_to_it(folders: Folders) -> None:
    plan = plan_sweep([parse_grid(TINY + "readout=linear seed=0,1,2")], folders)
    folder = plan.passes[0][1].run.folder(folders.results_dir).path
    folder.mkdir(parents=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        found = run_sweep(plan, folders, name="mine", device=CPU)
    assert sorted(row["seed"] for row in found.rows) == [0, 2]
    assert len(found.busy) == 1 and found.busy[0].endswith("seed 1")
    assert found.failures == []


def test_val_selects_and_test_is_scored_for_what_was_selected(folders: Folders) -> None:
    grid = TINY + "readout=linear,attention lr=1e-5,1e-1 seed=0,1"
    found = swept(folders, grid, test=True)
    lines = summary(found.rows)
    assert [line["selected"] for line in lines] == ["best on val of 8 runs", None, None, None]
    assert [line["test"] is not None for line in lines] == [True, False, False, False]
    scored = [row for row in found.rows if row["test"] is not None]
    assert len(scored) == 2 and {row["seed"] for row in scored} == {0, 1}
    best = np.mean([row["val"] for row in scored])
    others = [row["val"] for row in found.rows if row["test"] is None]
    assert all(best >= np.mean(others[i : i + 2]) for i in range(0, 6, 2))
    # Eight shared the seconds of their training; what repeats the selected ones scores test as well.
    assert {row["together"] for row in found.rows} == {8}
    assert all((" --test " in row["command"]) == (row["test"] is not None) for row in found.rows)


def test_a_test_score_on_clips_that_were_replaced_is_not_taken_for_one_on_those_of_today(
    folders: Folders, make_split: Callable[..., FeatureStore]
) -> None:
    grid = TINY + "readout=linear,knn"
    before = swept(folders, grid, test=True).rows
    (store,) = (folders.cache_dir / "flyvsfly" / "test").glob("toy-*")
    store.rename(folders.cache_dir / "away.zarr")
    make_split("test", np.zeros((20, 1, 2, 2, 2, 8)), np.eye(7, dtype=int)[np.arange(20) % 7])
    after = swept(folders, grid, test=True).rows
    assert [row["n_test"] for row in before if row["test"] is not None] == [16]
    (now,) = [row for row in after if row["test"] is not None]
    (then,) = [row for row in before if row["test"] is not None]
    assert (now["run"], now["n_test"], now["val"]) == (then["run"], 20, then["val"])
    assert now["test_fingerprint"] != then["test_fingerprint"]


def test_a_backbone_on_another_val_is_told_in_the_summary(folders: Folders, make_row: Any) -> None:
    old, new = (
        {"n_val": n, "targets": json.dumps({"val": of}), "finished": datetime(2026, 1, day, tzinfo=UTC)}
        for n, of, day in ((90, "0ld0", 1), (108, "e3w0", 2))
    )
    rows = [
        make_row(run="a", backbone="videomae", val=0.9, **old),
        make_row(run="b", backbone="resize", val=0.2, **new),
    ]
    assert [line["settings"] for line in summary(rows)] == [
        "val data=0ld0 (90 clips)",
        "val data=e3w0 (108 clips)",
    ]
    assert [line.partition(": ")[0] for line in sweep.differences(rows)] == [
        "Not all rows were scored on the same clips and labels of val"
    ]


def test_a_run_belongs_to_the_sweep_that_trained_it_first(folders: Folders) -> None:
    swept(folders, TINY + "readout=linear,knn seed=0,1")
    plan = plan_sweep([parse_grid(TINY + "readout=linear,knn seed=1")], folders)
    found = run_sweep(plan, folders, name="other", device=CPU, test=True)
    assert sorted((row["readout"], row["together"], row["sweep"]) for row in found.rows) == [
        ("knn", 1, "mine"),
        ("linear", 2, "mine"),
    ]
    assert [row["test"] is not None for row in found.rows].count(True) == 1


def test_the_test_split_of_a_probe_is_scored_too(folders: Folders) -> None:
    found = swept(folders, TINY + "readout=knn", test=True)
    assert found.rows[0]["test"] is not None and found.rows[0]["steps"] == 0


def test_the_summary_is_mean_and_spread_over_seeds(folders: Folders) -> None:
    rows = swept(folders, TINY + "readout=linear seed=0,1,2").rows
    (line,) = summary(rows)
    vals = [row["val"] for row in rows]
    assert line["val"] == f"{np.mean(vals):.3f} ± {np.std(vals, ddof=1):.3f}"
    assert line["seeds"] == 3


def test_a_name_is_a_folder_and_follows_from_the_grid(folders: Folders) -> None:
    one, other = [parse_grid("task=flyvsfly")], [parse_grid("task=calms21")]
    assert sweep_name(one) == sweep_name([parse_grid("task=flyvsfly")]) != sweep_name(other)
    plan = plan_sweep([parse_grid(TINY)], folders)
    with pytest.raises(CallError, match="becomes a folder"):
        run_sweep(plan, folders, name="../x", device=CPU)


DRIVER = """
import sys
from pathlib import Path
import torch
from featcache.manifest import load_manifest
from readouts.sweeps.grid import parse_grid
from readouts.sweeps.run import run_sweep
from readouts.sweeps.plan import Folders, plan_sweep

torch.set_num_threads(1)
cache, results, *grids = sys.argv[1:]
folders = Folders(cache_dir=Path(cache), results_dir=Path(results), manifest=load_manifest())
plan = plan_sweep([parse_grid(grid) for grid in grids], folders, together=6)
run_sweep(plan, folders, name="mine", device=torch.device("cpu"))
"""

GRID = (
    "task=flyvsfly,calms21 backbone=toy readout=linear,attention,knn seed=0,1,2 lr=1e-2,3e-2 dropout=0.3 "
    "steps=60 minival_every=5 batch=8 width=8 heads=2 k=3"
)
"""2 tasks x (2 heads x 3 seeds x 2 rates + a probe, whatever the seeds) = 26 runs."""


def sweeping(folders: Folders, results: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(folders.cache_dir), str(results), GRID],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def table(results: Path) -> list[dict[str, Any]]:
    # Elsewhere on disk the same sweep has other commands.
    rows: Sequence[dict[str, Any]] = sorted(load_results(results), key=lambda row: str(row["run"]))
    return [
        {
            name: str(row[name]).replace(str(results), "RESULTS")
            for name in SCHEMA.names
            if name not in OF_THE_CLOCK
        }
        for row in rows
    ]


def kill_when(process: "subprocess.Popen[bytes]", results: Path, *, more_rows: int, more_states: int) -> None:
    """SIGKILL as soon as so many further runs have ended and so many further checkpoints been written."""
    written: set[tuple[str, int]] = set()
    ended = len(load_results(results))
    while process.poll() is None:
        states = results.glob("*/*/last.safetensors")
        for state in states:
            try:
                written.add((str(state), state.stat().st_mtime_ns))
            except FileNotFoundError:
                continue
        if len(load_results(results)) >= ended + more_rows and len(written) >= more_states:
            break
        time.sleep(0.01)
    assert process.poll() is None, "the sweep ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
def test_a_sweep_killed_twice_ends_as_if_undisturbed(folders: Folders, tmp_path: Path) -> None:
    calm, killed, rng = tmp_path / "calm", tmp_path / "killed", random.Random(0)
    undisturbed = sweeping(folders, calm)
    _, problem = undisturbed.communicate()
    assert undisturbed.returncode == 0, problem.decode()

    # Once in the middle of the first pass, once in the middle of a later one.
    kill_when(sweeping(folders, killed), killed, more_rows=0, more_states=rng.randint(14, 40))
    assert load_results(killed) == []
    kill_when(sweeping(folders, killed), killed, more_rows=6, more_states=rng.randint(20, 50))
    assert 0 < len(load_results(killed)) < 26
    last = sweeping(folders, killed)
    _, problem = last.communicate()
    assert last.returncode == 0, problem.decode()
    assert len(table(killed)) == 26
    assert table(killed) == table(calm)


@pytest.mark.slow
def test_two_processes_on_one_sweep_do_not_clash(folders: Folders, tmp_path: Path) -> None:
    results = tmp_path / "both"
    both = [sweeping(folders, results) for _ in range(2)]
    problems = [process.communicate()[1].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], problems
    assert not (results / "sweeps" / "mine" / "failures.jsonl").exists()
    # What one skipped because the other was at it, the other has finished.
    assert len(load_results(results)) == 26


def test_damaged_rows_of_one_run_cost_the_sweep_this_run(folders: Folders) -> None:
    first = swept(folders, TINY + "readout=linear seed=0,1")
    ours, other = first.rows
    file = table_path(folders.results_dir) / f"{ours['run']}.parquet"
    file.write_bytes(file.read_bytes()[:-1])
    again = swept(folders, TINY + "readout=linear seed=0,1,2")
    assert other in again.rows
    assert len(again.rows) == 2
    (failure,) = again.failures
    assert failure.run == ours["run"]
    assert f"{file} cannot be read as results" in failure.error
    file.unlink()
    assert len(swept(folders, TINY + "readout=linear seed=0,1,2").rows) == 3


def test_one_flipped_bit_of_what_a_sweep_was_is_noticed_and_the_others_are_known(
    tmp_path: Path, folders: Folders, flips: Callable[..., Iterator[int]]
) -> None:
    file = folders.results_dir / "sweeps" / "mine" / "sweep.json"
    swept(folders, TINY + "readout=knn")
    shutil.copytree(file.parent, file.parent.with_name("other"))
    for _ in flips(file):
        known, (problem,) = known_sweeps(folders.results_dir)
        assert list(known) == ["other"]
        assert f"{file} cannot be read as a sweep's" in str(problem)
    assert known_sweeps(folders.results_dir)[0].keys() == {"mine", "other"}


def test_a_sweep_whose_record_is_gone_is_told(tmp_path: Path) -> None:
    assert known_sweeps(tmp_path) == ({}, [])
    folder = tmp_path / "sweeps" / "gone"
    folder.mkdir(parents=True)
    for damage in (lambda: None, lambda: (folder / "sweep.json").symlink_to("sweep.json")):
        damage()
        found, (problem,) = known_sweeps(tmp_path)
        assert found == {}
        assert f"{folder}/sweep.json cannot be read as a sweep's" in str(problem)
