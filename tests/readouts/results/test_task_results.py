"""What is known of a task: rows ranked, stores matched by fingerprint, problems said and not raised."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from featcache.manifest import load_manifest
from featcache.store.feature_store import FeatureStore, find_stores
from readouts.results.baselines import score_baselines
from readouts.results.table import add_run
from readouts.results.task_results import finished_stores, load_task_results, stores_of

MakeRow = Callable[..., dict[str, Any]]
MakeSplit = Callable[..., FeatureStore]
LABELS = np.eye(7, dtype=int)[np.arange(6) % 7]
TOKENS = np.random.default_rng(0).normal(size=(6, 1, 2, 2, 2, 8))


def test_rows_with_their_stores_and_baselines(
    make_row: MakeRow, make_split: MakeSplit, tmp_path: Path
) -> None:
    train, val = (make_split(role, TOKENS, LABELS) for role in ("train", "val"))
    of = {"train_fingerprint": train.fingerprint, "val_fingerprint": val.fingerprint}
    rows = [make_row(run="a", val=0.2, **of), make_row(run="b", val=0.7, test=0.6, **of)]
    for row in rows:
        add_run(tmp_path, row["run"], [row])
    stores, problems = finished_stores(tmp_path / "features")
    (found,), _ = load_task_results(tmp_path, stores, load_manifest())
    assert (found.best.best["run"], found.role, found.metric, problems) == ("b", "test", "mean_AP", [])
    assert {role: store.path for role, store in stores_of(found.best.best, found.stores).items()} == {
        "train": train.path,
        "val": val.path,
    }
    assert list(found.baseline_scores()) == ["label frequency"]
    assert list(found.baseline_scores()["label frequency"]) == ["val"]
    assert found.interval(found.best.rows, "test") is None
    assert found.difference(found.rows[:1], found.rows[1:]) is None


def test_baselines_are_of_the_clips_that_the_readouts_are_scored_on(
    make_row: MakeRow, make_split: MakeSplit, tmp_path: Path
) -> None:
    train = make_split("train", TOKENS, LABELS)
    # Clip 1, the only one of its class, was torn and skipped: a baseline does not see it either.
    val = make_split("val", TOKENS, LABELS, skipped={1: "torn", 4: "torn too"})
    add_run(tmp_path, "a", [make_row(train_fingerprint=train.fingerprint, val_fingerprint=val.fingerprint)])
    (found,), _ = load_task_results(tmp_path, [train, val], load_manifest())
    assert found.task is not None and train.targets is not None and val.targets is not None
    usable = np.array([0, 2, 3, 5])
    wanted = score_baselines(found.task, train.targets, val.targets, usable)
    assert found.baselines == {"val": wanted}
    assert wanted != score_baselines(found.task, train.targets, val.targets, np.arange(6))


def test_an_unknown_task_is_a_problem_and_its_rows_stay(make_row: MakeRow, tmp_path: Path) -> None:
    add_run(tmp_path, "a", [make_row(task="moths", task_spec=None, higher_is_better=False)])
    (found,), _ = load_task_results(tmp_path, [], load_manifest())
    assert "moths" in (found.problem or "")
    assert (found.title, found.role, found.higher_is_better, len(found.rows)) == ("moths", "val", False, 1)
    assert (found.baseline_scores(), found.interval(found.rows, "val")) == ({}, None)


def test_a_store_of_another_fingerprint_is_not_the_rows(make_row: MakeRow, make_split: MakeSplit) -> None:
    store = make_split("val", TOKENS, LABELS)
    assert stores_of(make_row(), [store]) == {}
    assert list(stores_of(make_row(val_fingerprint=store.fingerprint), [store])) == ["val"]


def test_a_broken_store_is_said(make_split: MakeSplit, tmp_path: Path) -> None:
    store = make_split("val", TOKENS, LABELS)
    store.shard_path(store.spec.layers[0], 0).unlink()
    assert len(find_stores(tmp_path / "features")) == 1
    found, (problem,) = finished_stores(tmp_path / "features")
    assert found == []
    assert str(store.path) in problem
