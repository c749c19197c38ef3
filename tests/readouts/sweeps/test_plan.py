from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.errors import CallError
from featcache.manifest import load_manifest
from featcache.store.feature_store import FeatureStore
from readouts.results.table import add_run
from readouts.sweeps.grid import parse_grid
from readouts.sweeps.plan import Folders, Plan, plan_sweep

TINY = "task=flyvsfly backbone=toy steps=4 batch=8 width=8 heads=2 "


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(
        cache_dir=tmp_path / "features", results_dir=tmp_path / "results", manifest=load_manifest()
    )


@pytest.fixture
def stores(make_split: Callable[..., FeatureStore]) -> None:
    """Of the task flyvsfly and the backbone `toy`, two views each."""
    rng = np.random.default_rng(0)
    for role, n in (("train", 12), ("val", 6)):
        make_split(role, rng.normal(size=(n, 2, 2, 2, 2, 4)), rng.integers(2, size=(n, 7)))


def planned(folders: Folders, text: str, together: int = 16) -> Plan:
    return plan_sweep([parse_grid(text)], folders, together=together)


@pytest.mark.usefixtures("stores")
def test_runs_that_draw_the_same_batches_share_a_pass(folders: Folders) -> None:
    plan = planned(folders, TINY + "readout=linear,attention seed=0,1 lr=1e-3,1e-2 train_fraction=0.5,1")
    assert [len(one) for one in plan.passes] == [8, 8]
    assert {t.cell.setting("train_fraction") for t in plan.passes[0]} == {"0.5"}
    assert (plan.recorded, plan.missing, plan.n_unknown) == ((), (), 2)
    assert plan.n_runs == 16


@pytest.mark.usefixtures("stores")
def test_a_pass_holds_no_more_runs_than_allowed(folders: Folders) -> None:
    plan = planned(folders, TINY + "readout=linear seed=0,1,2,3,4,5,6", together=3)
    # Three passes of about equal size, not 3 + 3 + 1.
    assert [len(one) for one in plan.passes] == [2, 2, 3]
    with pytest.raises(CallError, match="--together 0"):
        planned(folders, TINY, together=0)


@pytest.mark.usefixtures("stores")
def test_values_that_mean_the_same_are_one_run(folders: Folders) -> None:
    plan = planned(folders, TINY + "readout=linear lr=1e-3,0.001")
    assert plan.n_runs == 1
    assert "1 runs are the same as others in all that decides them: each is run once" in plan.notes


@pytest.mark.usefixtures("stores")
def test_a_run_in_the_table_is_not_run_again_and_says_how_long_its_like_takes(
    folders: Folders, make_row: Callable[..., dict[str, Any]]
) -> None:
    one = planned(folders, TINY + "readout=linear").passes[0][0]
    row = make_row(run=one.run.id, seconds=8.0, steps=4, together=2)
    add_run(folders.results_dir, one.run.id, [row])
    plan = planned(folders, TINY + "readout=linear seed=0,1,2")
    assert [trial.cell.seed for trial in plan.recorded] == [0]
    assert [trial.cell.seed for trial in plan.passes[0]] == [1, 2]
    # 8 s of 4 steps were shared by two: a second a step and run.
    assert (plan.seconds, plan.n_unknown) == (8.0, 0)


@pytest.mark.usefixtures("stores")
def test_a_command_repeats_one_run(folders: Folders) -> None:
    plan = planned(folders, TINY + "readout=linear,knn k=3 seed=5")
    commands = [trial.command for one in plan.passes for trial in one]
    assert "scivid train-readout --backbone toy --task flyvsfly --layer 1" in commands[0]
    assert "--seed 5 --readout linear --set steps=4 --set batch=8" in commands[0]
    assert commands[1].startswith("scivid sweep --grid 'backbone=toy task=flyvsfly layer=1 fingerprint=")
    assert "seed=0 readout=knn k=3'" in commands[1]  # fitted, whatever the seed


def test_a_missing_store_comes_with_its_command(folders: Folders) -> None:
    plan = planned(folders, "task=flyvsfly backbone=toy_shuffled layer=1,2 train_views=1,4 readout=linear")
    (missing,) = plan.missing
    assert (len(missing.cells), plan.n_runs, plan.passes) == (4, 4, ())
    # The one command for all of them stands below it, not another one in it.
    assert missing.problem == f"no train store of toy_shuffled for flyvsfly in {folders.cache_dir}."
    assert plan.sentences() == [
        "4 runs: 0 in the table, 4 without a store",
        f"4 runs of flyvsfly, toy_shuffled: {missing.problem}",
        f"  {missing.command}",
    ]
    assert missing.command == (
        f"scivid extract --backbone toy --task flyvsfly --shuffle-frames --layers 1,2 --views 4 "
        f"--cache-dir {folders.cache_dir}"
    )


@pytest.mark.usefixtures("stores")
def test_a_store_without_the_layer_serves_the_runs_of_the_others(folders: Folders) -> None:
    plan = planned(folders, TINY + "layer=1,3 readout=linear")
    assert [trial.cell.layer for one in plan.passes for trial in one] == ["1"]
    assert "holds layers 1, not 3" in plan.missing[0].problem
    assert "--layers 1,3" in plan.missing[0].command


@pytest.mark.usefixtures("stores")
def test_too_few_views_are_said_with_the_way_to_more(folders: Folders) -> None:
    plan = planned(folders, TINY + "train_views=1,2,8 readout=linear")
    assert [t.cell.setting("train_views") for one in plan.passes for t in one] == ["1", "2"]
    assert "2 views of a clip, too few" in plan.missing[0].problem
    assert "--views 8" in plan.missing[0].command


@pytest.mark.usefixtures("stores")
def test_all_layers_are_those_of_the_store(folders: Folders) -> None:
    plan = planned(folders, TINY + "layer=all readout=linear")
    assert [trial.cell.layer for one in plan.passes for trial in one] == ["1"]
    assert "holds one layer: for a curve over depth make more with" in plan.notes[0] + plan.notes[-1]


@pytest.mark.usefixtures("stores")
def test_the_store_is_the_one_that_holds_what_is_asked_for(
    folders: Folders, make_split: Callable[..., FeatureStore]
) -> None:
    rng = np.random.default_rng(0)
    for role, n in (("train", 12), ("val", 6)):
        make_split(role, rng.normal(size=(n, 3, 2, 2, 2, 4)), rng.integers(2, size=(n, 7)))
    plan = planned(folders, TINY + "train_views=1,3 readout=linear")
    assert plan.missing == () or "val stores fit" in plan.missing[0].problem
    ambiguous = planned(folders, TINY + "readout=linear").missing[0]
    assert "in a grid fingerprint=" in ambiguous.problem and ambiguous.command == ""


@pytest.mark.usefixtures("stores")
def test_a_value_that_cannot_be_is_refused_before_anything_runs(folders: Folders) -> None:
    with pytest.raises(CallError, match="lr=fast"):
        planned(folders, TINY + "readout=linear lr=fast")
