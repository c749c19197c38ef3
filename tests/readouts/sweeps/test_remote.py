import json
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch

from featcache.errors import StoreError
from featcache.system.cluster.client import Where, open_cluster
from featcache.system.console import silent
from readouts.results.table import SCHEMA, load_results
from readouts.sweeps.grid import parse_grid
from readouts.sweeps.plan import Folders, plan_sweep
from readouts.sweeps.remote import _in_words, train_in_words
from readouts.sweeps.run import Outcome, run_sweep

pytestmark = pytest.mark.usefixtures("stores")
CPU = torch.device("cpu")
GRID = (
    "task=flyvsfly,calms21 backbone=toy readout=linear,attention,knn seed=0 dropout=0.3 steps=30 "
    "minival_every=10 batch=8 width=8 heads=2,3 k=3"
)
"""Passes of heads and of one probe each, of two tasks; three heads do not divide a width of 8."""
OF_THE_CLOCK = {"finished", "seconds"}


def swept(folders: Folders, grid: str, cluster: Any = None, **options: Any) -> Outcome:
    plan = plan_sweep([parse_grid(grid)], folders, together=3)
    return run_sweep(plan, folders, name="mine", device=CPU, test=True, cluster=cluster, **options)


def table(folders: Folders) -> list[dict[str, str]]:
    """All that is in it, but for the clock and for where it is."""
    rows = sorted(load_results(folders.results_dir), key=lambda row: str(row["run"]))
    names = [name for name in SCHEMA.names if name not in OF_THE_CLOCK]
    return [
        {name: str(row[name]).replace(str(folders.results_dir), "HERE") for name in names} for row in rows
    ]


def kill_one(log: list[int]) -> None:
    """SIGKILL to a worker of this process, soon after it has begun to train."""
    children = Path(f"/proc/{os.getpid()}/task")
    while not log:
        time.sleep(0.01)
        for task in children.glob("*/children"):
            for pid in map(int, task.read_text().split()):
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                if b"spawn_main" in command and not log:
                    log.append(pid)
    time.sleep(0.5)
    os.kill(log[0], signal.SIGKILL)


@pytest.mark.slow
def test_two_workers_one_of_them_killed_leave_the_table_of_one_process(folders: Folders) -> None:
    calm = replace(folders, results_dir=folders.results_dir.with_name("calm"))
    alone = swept(calm, GRID)
    said: list[str] = []
    told: list[tuple[str, int, int]] = []
    killed: list[int] = []
    with open_cluster(
        Where(local_workers=2),
        on_gpu=False,
        folders=[folders.results_dir, folders.cache_dir],
        say=said.append,
    ) as cluster:
        killer = Thread(target=kill_one, args=(killed,))
        killer.start()
        both = swept(folders, GRID, cluster, progress=lambda *words: told.append(words))
        killer.join()
        assert swept(folders, GRID, cluster).rows == both.rows  # nothing is trained twice
    assert table(folders) == table(calm)
    assert len(both.rows) == len(alone.rows) == 6 and len(both.failures) == len(alone.failures)
    assert {one.label for one in both.failures} == {one.label for one in alone.failures}
    assert "3" in both.failures[0].error
    lines = (folders.results_dir / "sweeps" / "mine" / "failures.jsonl").read_text().splitlines()
    assert len([json.loads(line) for line in lines]) == 2 * len(both.failures)
    assert told[-1][0] == "steps of the sweep" and told[-1][1] == told[-1][2]
    assert said[0].startswith("workers: 2") and any("is gone" in line for line in said)


def test_a_worker_that_finds_other_stores_says_so(folders: Folders) -> None:
    plan = plan_sweep([parse_grid(GRID)], folders)
    words = _in_words(plan.passes[0], folders, "mine", CPU)
    assert words.runs == tuple(trial.run.id for trial in plan.passes[0])
    shutil.rmtree(folders.cache_dir / "flyvsfly" / "val")
    with pytest.raises(StoreError, match="no val store of toy for flyvsfly"):
        train_in_words(words, silent)
    with pytest.raises(StoreError, match="where the sweep was begun"):
        other = _in_words(plan.passes[-1], folders, "mine", CPU)
        train_in_words(replace(other, runs=words.runs), silent)
