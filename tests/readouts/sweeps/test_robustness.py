"""Readouts trained on clean tokens, scored on stores of corrupted clips."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from featcache.spec import Corruption
from featcache.store.feature_store import FeatureStore
from readouts.sweeps.grid import parse_grid
from readouts.sweeps.plan import Folders, plan_sweep
from readouts.sweeps.robustness import EVERY, missing_stores, robustness, severities_in_words
from readouts.sweeps.run import add_to_record, known_sweeps, run_sweep

CPU = torch.device("cpu")
GRID = "task=flyvsfly backbone=toy readout=linear seed=0 steps=12 minival_every=12 batch=8 lr=0.05"


@pytest.fixture
def corrupted(make_split: Callable[..., FeatureStore], stores: None) -> None:
    """Of two severities of blur: the first loses half of what the tokens say, the second all of it."""
    rng = np.random.default_rng(1)
    labels = rng.integers(2, size=(16, 7))
    for severity, share in ((1, 0.5), (2, 0.0)):
        tokens = rng.normal(scale=0.1, size=(16, 1, 2, 2, 2, 8))
        tokens[..., :7] += share * labels[:, None, None, None, None]
        make_split("val", tokens, labels, backbone=f"toy_blur{severity}", model="toy")


def test_runs_are_trained_once_and_scored_on_every_corrupted_store(
    corrupted: None, folders: Folders, tmp_path: Path, silent_progress: Callable[..., None]
) -> None:
    plan = plan_sweep([parse_grid(GRID)], folders)
    outcome = run_sweep(plan, folders, name="robustness", device=CPU)
    lines = robustness(plan.trials, outcome.rows, folders, role="val", device=CPU, progress=silent_progress)
    of_blur = {
        (line["run"], line["severity"]): line["score"] for line in lines if line["corruption"] == "blur"
    }
    runs = {trial.run.id for trial in plan.trials}
    assert of_blur.keys() == {(run, severity) for run in runs for severity in (1, 2)}
    clean = {line["run"]: line["score"] for line in lines if not line["severity"]}
    assert clean == {str(row["run"]): row["val"] for row in outcome.rows}
    for run in runs:
        assert clean[run] > of_blur[run, 2] and of_blur[run, 1] > of_blur[run, 2]
    (row,) = severities_in_words(lines)
    assert row["corruption"] == "blur" and float(str(row["severity 1"])) > float(str(row["severity 2"]))
    # No row of the results table is of a corrupted clip, and the record keeps what was found.
    assert {str(one["backbone"]) for one in outcome.rows} == {"toy"}
    add_to_record(folders.results_dir, "robustness", {"robustness": lines})
    assert known_sweeps(folders.results_dir)[0]["robustness"]["robustness"] == lines
    (said,) = missing_stores(plan.trials, "val", folders)
    assert said.startswith(f"{len(EVERY) - 2} of 18 corrupted val stores are missing: scivid extract")
    assert "blur:3" in said and "blur:2" not in said and Corruption("blur", 3) in EVERY


def test_without_corrupted_stores_there_is_what_the_table_says(
    stores: None, folders: Folders, silent_progress: Callable[..., None]
) -> None:
    plan = plan_sweep([parse_grid(GRID)], folders)
    assert "--corruption all" in missing_stores(plan.trials, "val", folders)[0]
    outcome = run_sweep(plan, folders, name="robustness", device=CPU)
    lines = robustness(plan.trials, outcome.rows, folders, role="val", device=CPU, progress=silent_progress)
    assert [line["severity"] for line in lines] == [0] and severities_in_words(lines) == []


@pytest.fixture
def silent_progress() -> Callable[..., None]:
    return lambda *_: None
