"""Runs of probes: better than chance, fitted once, recorded as a trained run is."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache.errors import CallError
from featcache.manifest import load_manifest
from featcache.store.feature_store import FeatureStore
from featcache.system.console import silent
from featcache.system.locks import Lock
from readouts.features.find import open_task_splits
from readouts.features.splits import FeatureSplit
from readouts.results.per_clip import load_per_clip, read_predictions
from readouts.results.run_folder import RunFolder
from readouts.results.table import load_results
from readouts.tasks import load_task
from readouts.tasks.base import Task
from readouts.tasks.regression import Regression
from readouts.training import loop
from readouts.training.fitting import Pooled, fit_run, pool_split, targets_of
from readouts.training.loop import train_together
from readouts.training.probes import fit_probe
from readouts.training.run import Run
from readouts.training.settings import configure

CPU = torch.device("cpu")
Splits = dict[str, FeatureSplit]


@pytest.fixture
def task() -> Task:
    """Seven labels, of which the first is the background."""
    return load_task("flyvsfly", load_manifest())


@pytest.fixture
def splits(make_split: Callable[..., FeatureStore], tmp_path: Path) -> Splits:
    """Tokens whose channel c says class c, in noise ten times a label's part in a single token."""
    rng = np.random.default_rng(0)
    for role, n in (("train", 96), ("val", 48)):
        labels = rng.integers(2, size=(n, 7))
        labels[:, 3] = 0
        tokens = rng.normal(scale=2.0, size=(n, 2, 4, 3, 3, 8))
        tokens[..., :7] += labels[:, None, None, None, None] * 2.0
        make_split(role, tokens, labels)
    return open_task_splits(tmp_path / "features", "flyvsfly", "toy", roles=("train", "val"))


def probe(splits: Splits, *settings: str, kind: str = "knn", seed: int = 0) -> Run:
    task = load_task("flyvsfly", load_manifest())
    return configure(task, splits, readouts=[kind], settings=settings, seed=seed)


def pooled(split: FeatureSplit, task: Task, seed: int | None = None) -> Pooled:
    return pool_split(split, task, seed=seed, device=CPU, progress=silent)


def outputs(run: Run) -> np.ndarray:
    (found,) = fit_run(run, CPU, silent)["val"].outputs.values()
    return found


def record(run: Run, results: Path, **options: Any) -> dict[str, Any]:
    (row,) = train_together([run], results_dir=results, device=CPU, **{"sweep_name": "mine", **options})
    return row


@pytest.mark.parametrize("kind", ["knn", "logistic"])
def test_labels_are_predicted_better_than_by_chance(kind: str, splits: Splits) -> None:
    steps = []
    found = fit_run(
        probe(splits, kind=kind), CPU, lambda what, done, total: steps.append((what, done, total))
    )
    assert found["val"].outputs[kind].shape == (48, 7)
    assert steps[-1] == ("pooling", 48, 48) and ("pooling", 96, 96) in steps
    run, split = probe(splits), splits["val"]
    assert split.targets is not None
    labels = torch.from_numpy(split.targets.read("labels"))
    guessed = run.task.per_clip(torch.zeros(48, 7), {"labels": labels})
    chance = run.task.scores(run.task.join([guessed]))[run.task.score]
    # One of the six classes that are scored has no positive clip, which counts 0.
    assert found["val"].scores[kind][run.task.score] > (chance + 5 / 6) / 2


def test_a_seed_names_the_views_and_so_the_outputs(splits: Splits) -> None:
    np.testing.assert_array_equal(outputs(probe(splits, seed=1)), outputs(probe(splits, seed=1)))
    assert not np.array_equal(outputs(probe(splits, seed=1)), outputs(probe(splits, seed=2)))


def test_a_pass_takes_each_clip_once(task: Task, splits: Splits) -> None:
    """One view of all channels is unlike any other clip's, so equal rows are equal clips."""
    train = replace(splits["train"], fraction=0.75, first_views=1)
    drawn, in_order = pooled(train, task, seed=3), pooled(train, task)
    assert len(drawn.features) == len(train.usable) == 72
    assert not np.array_equal(drawn.features, in_order.features)
    sort = np.lexsort(drawn.features.T), np.lexsort(in_order.features.T)
    np.testing.assert_allclose(drawn.features[sort[0]], in_order.features[sort[1]], rtol=1e-6)
    tokens = splits["val"].store.read([5], views=[0], layer=splits["val"].layer)
    np.testing.assert_allclose(
        pooled(splits["val"], task).features[5],
        tokens.astype(np.float64)[0].mean(axis=(0, 1, 2)),
        rtol=1e-4,
        atol=1e-5,
    )


class Series(Regression):
    """A regression to which the labels of a store are its values."""

    def select(self, targets: Any, clips: Any, views: Any, rng: Any) -> dict[str, np.ndarray]:
        return {"future": targets.rows("labels", clips).astype(np.float32) + 900.0}


class Ends(Regression):
    """A task without labels or values."""

    def select(self, targets: Any, clips: Any, views: Any, rng: Any) -> dict[str, np.ndarray]:
        return {"ends": np.zeros((len(clips), 3))}


@pytest.mark.parametrize("kind", ["knn", "ridge"])
def test_values_are_predicted_relative_to_the_offset(kind: str, splits: Splits) -> None:
    task = Series(name="series", n_inputs=1, n_outputs=7, offset=900.0)
    found = outputs(configure(task, splits, readouts=[kind]))
    true = pooled(splits["val"], task).targets
    assert true is not None and set(np.unique(true)) == {0.0, 1.0}
    kept = [0, 1, 2, 4, 5, 6]
    assert ((found - true)[:, kept] ** 2).mean() < 0.8 * true[:, kept].var(axis=0).mean()
    np.testing.assert_allclose(found[:, 3], 0.0, atol=1e-6)


def test_a_task_without_labels_or_values_is_refused(splits: Splits) -> None:
    ends = Ends(name="ends", n_inputs=1, n_outputs=7)
    with pytest.raises(CallError, match="task ends has ends: train a readout for it"):
        pooled(splits["val"], ends)


def test_the_benchmarks_pressures_are_relative_to_their_mean() -> None:
    rows = {"future": torch.full((2, 12), 1000.0), "past": torch.zeros(2, 12)}
    kind, targets = targets_of(rows, load_task("typhoon", load_manifest()))
    assert kind == "values"
    torch.testing.assert_close(targets, torch.full((2, 12), 1000.0 - 983.9111856685796))


def test_its_row_is_what_the_fit_and_the_tasks_scores_say(splits: Splits, tmp_path: Path) -> None:
    run = probe(splits, "k=3")
    row = record(run, tmp_path)
    train, val = (pooled(splits[role], run.task, seed) for role, seed in (("train", 0), ("val", None)))
    expected = fit_probe(
        "knn", train.features, train.targets, "labels", val.features, settings={"k": 3}, device=CPU
    )
    targets = splits["val"].targets
    assert targets is not None
    labels = torch.from_numpy(targets.read("labels"))
    batch = run.task.per_clip(torch.from_numpy(expected), {"labels": labels})
    assert row["val"] == row["best_val"] == run.task.scores(run.task.join([batch]))["mean_AP"]
    assert (row["steps"], row["readout"], row["n_train"], row["sweep"]) == (0, "knn", 96, "mine")
    assert (row["batch"], row["parameters"], row["best_step"], row["together"]) == (None, 0, 0, 1)
    assert json.loads(str(row["readout_config"])) == {"k": 3, "temperature": 0.07}
    assert json.loads(str(row["recipe"])) == {"train_fraction": 1.0, "train_views": 0}
    _, kept = read_predictions(run.folder(tmp_path), "val")
    np.testing.assert_array_equal(kept["knn"], expected)


def test_its_statistics_give_its_score(splits: Splits, tmp_path: Path) -> None:
    run = probe(splits)
    row = record(run, tmp_path)
    clips, per_clip = load_per_clip(tmp_path, row, "val")
    assert clips.tolist() == splits["val"].usable.tolist()
    assert run.task.scores(per_clip)["mean_AP"] == row["val"]


def test_it_is_fitted_once(splits: Splits, tmp_path: Path) -> None:
    assert record(probe(splits), tmp_path) == record(probe(splits, "k=20"), tmp_path)
    assert len(load_results(tmp_path)) == 1


def test_its_costs_stay_those_of_the_first_fit_when_test_is_scored_later(
    splits: Splits, tmp_path: Path
) -> None:
    first = record(probe(splits), tmp_path)
    run = probe({**splits, "test": splits["val"]})
    row = record(run, tmp_path, sweep_name="other", commands={run.id: "again"})
    assert (row["run"], row["test"]) == (first["run"], first["val"])
    assert (row["sweep"], row["seconds"], row["command"]) == ("mine", first["seconds"], "again")


def test_a_probe_that_another_process_just_fitted_is_not_fitted_again(
    splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, hold = probe(splits), RunFolder.hold

    def hold_after_another(folder: RunFolder) -> Lock:
        monkeypatch.setattr(RunFolder, "hold", hold)
        record(run, tmp_path)
        monkeypatch.delattr(loop, "fit_run")
        return hold(folder)

    monkeypatch.setattr(RunFolder, "hold", hold_after_another)
    assert record(run, tmp_path)["run"] == run.id


def test_whatever_changes_its_numbers_changes_its_name(splits: Splits) -> None:
    runs = [
        probe(splits),
        probe(splits, "k=3"),
        probe(splits, "train_fraction=0.5"),
        probe(splits, seed=1),
        probe(splits, kind="logistic"),
    ]
    assert len({run.id for run in runs}) == len({run.pass_key for run in runs}) == 5


def test_a_share_of_the_training_clips_is_fitted(splits: Splits, tmp_path: Path) -> None:
    assert record(probe(splits, "train_fraction=0.5"), tmp_path)["n_train"] == 48
