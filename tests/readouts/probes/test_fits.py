"""Training-free probes: neighbours and ridge by hand, better than chance on features that say something."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from featcache.errors import CallError
from featcache.manifest import load_manifest
from readouts.features.splits import FeatureSplit, split_of
from readouts.probes.fits import PROBES, Pooled, check_probe, fit_pooled, fit_probe, pool_split, truth_of
from readouts.tasks import load_task
from readouts.tasks.base import Task
from readouts.tasks.regression import Regression

CPU = torch.device("cpu")
Splits = dict[str, FeatureSplit]


@pytest.fixture
def task() -> Task:
    """Seven labels, of which the first is the background."""
    return load_task("flyvsfly", load_manifest())


@pytest.fixture
def splits(make_split: Callable[..., Any]) -> Splits:
    """Tokens whose channel c says class c, in noise ten times a label's part in a single token."""
    rng = np.random.default_rng(0)
    made = {}
    for role, n in (("train", 96), ("val", 48)):
        labels = rng.integers(2, size=(n, 7))
        labels[:, 3] = 0
        tokens = rng.normal(scale=2.0, size=(n, 2, 4, 3, 3, 8))
        tokens[..., :7] += labels[:, None, None, None, None] * 2.0
        made[role] = split_of(make_split(role, tokens, labels))
    return made


def of(features: Any, truth: Any = None, kind: str | None = None) -> Pooled:
    x = np.asarray(features, np.float32)
    y = None if truth is None else np.asarray(truth, np.float32)
    return Pooled(clips=np.arange(len(x)), features=x, truth=y, kind=kind)


def test_neighbours_by_hand() -> None:
    # Mean 0 and deviation 1 in both channels: standardised as they are. At 45 degrees from the query are two.
    known = [[1, 1], [1, -1], [-1, 1], [-1, -1]]
    labels = [[1, 1], [1, 0], [0, 1], [0, 0]]
    found = fit_pooled("knn", of(known, labels, "labels"), of([[3, 0]]), settings={"k": 2}, device=CPU)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[-np.log(1e-6), 0.0]], atol=1e-3)
    # All four, at cosines +-0.5**0.5, temperature 0.5: the nearer two weigh exp(2 * 2**0.5) times the others.
    wider = fit_pooled(
        "knn", of(known, labels, "labels"), of([[3, 0]]), settings={"k": 9, "temperature": 0.5}, device=CPU
    )
    np.testing.assert_allclose(wider, [[2 * 2**0.5, 0.0]], atol=1e-5)
    values = of(known, [[10, 0], [20, 4], [0, 0], [0, 0]], "values")
    np.testing.assert_allclose(
        fit_pooled("knn", values, of([[3, 0]]), settings={"k": 2}, device=CPU), [[15.0, 2.0]], rtol=1e-6
    )


def test_ridge_by_hand() -> None:
    # x = +-1 (twice each), y - mean = +-2: weight = sum xy / (sum xx + alpha) = 8 / (4 + 4).
    train = of([[1], [-1], [1], [-1]], [[7], [3], [7], [3]], "values")
    found = fit_pooled("ridge", train, of([[3]]), settings={"alpha": 4}, device=CPU)
    np.testing.assert_allclose(found, [[8.0]])


def test_a_constant_class_and_a_constant_channel_are_no_obstacle() -> None:
    x = np.array([[1.0, 5.0], [-1.0, 5.0], [1.0, 5.0], [-1.0, 5.0]])
    train = of(x, [[1, 1, 0], [0, 1, 0], [1, 1, 0], [0, 1, 0]], "labels")
    for kind in ("logistic", "knn"):
        settings = {"k": 1} if kind == "knn" else {}
        found = fit_pooled(kind, train, of([[2, 5], [-2, 5]]), settings=settings, device=CPU)
        assert found[0, 0] > 0 > found[1, 0]
        np.testing.assert_allclose(found[:, 1:], [[13.8155, -13.8155]] * 2, rtol=1e-4)


@pytest.mark.parametrize("kind", ["knn", "logistic"])
def test_labels_are_predicted_better_than_by_chance(kind: str, task: Task, splits: Splits) -> None:
    steps = []
    found = fit_probe(
        kind, splits["train"], splits["val"], task, settings={}, seed=0, device=CPU,
        progress=lambda what, done, total: steps.append((what, done, total)),
    )  # fmt: skip
    assert found.shape == (48, 7)
    assert steps[-1] == ("pooling", 48, 48) and ("pooling", 96, 96) in steps
    chance = score(task, splits["val"], torch.zeros(48, 7))
    # One of the six classes that are scored has no positive clip, which counts 0.
    assert score(task, splits["val"], torch.from_numpy(found)) > (chance + 5 / 6) / 2


def score(task: Task, split: FeatureSplit, outputs: Tensor) -> float:
    targets = split.targets
    assert targets is not None
    rows = task.select(targets, split.usable, np.zeros_like(split.usable), None)
    batch = task.per_clip(outputs, {name: torch.from_numpy(values) for name, values in rows.items()})
    return task.scores(task.join([batch]))[task.score]


def test_a_seed_names_the_views_and_so_the_outputs(task: Task, splits: Splits) -> None:
    def outputs(seed: int) -> np.ndarray:
        return fit_probe("knn", splits["train"], splits["val"], task, settings={}, seed=seed, device=CPU)

    np.testing.assert_array_equal(outputs(1), outputs(1))
    assert not np.array_equal(outputs(1), outputs(2))


def test_a_pass_takes_each_clip_once(task: Task, splits: Splits) -> None:
    train = replace(splits["train"], fraction=0.75)
    drawn = pool_split(train, task, seed=3, device=CPU)
    np.testing.assert_array_equal(np.sort(drawn.clips), train.usable)
    in_order = pool_split(splits["val"], task, seed=None, device=CPU)
    np.testing.assert_array_equal(in_order.clips, np.arange(48))
    tokens = splits["val"].store.read([5], views=[0], layer=splits["val"].layer)
    np.testing.assert_allclose(
        in_order.features[5], tokens.astype(np.float64)[0].mean(axis=(0, 1, 2)), rtol=1e-4, atol=1e-5
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
    found = fit_probe(kind, splits["train"], splits["val"], task, settings={}, seed=0, device=CPU)
    true = pool_split(splits["val"], task, seed=None, device=CPU).truth
    assert true is not None and set(np.unique(true)) == {0.0, 1.0}
    kept = [0, 1, 2, 4, 5, 6]
    assert ((found - true)[:, kept] ** 2).mean() < 0.8 * true[:, kept].var(axis=0).mean()
    np.testing.assert_allclose(found[:, 3], 0.0, atol=1e-6)


def test_what_a_probe_cannot_do_is_refused(splits: Splits) -> None:
    values = of([[0.0], [1.0]], [[1.0], [2.0]], "values")
    with pytest.raises(CallError, match=r"logistic probe predicts labels, .* are values: .* are knn, ridge"):
        fit_pooled("logistic", values, values, device=CPU)
    labels = replace(values, kind="labels")
    with pytest.raises(CallError, match=r"ridge probe predicts values, .* are labels: .* are knn, logistic"):
        fit_pooled("ridge", labels, labels, device=CPU)
    with pytest.raises(CallError, match="needs the targets of the training split"):
        fit_pooled("knn", of([[0.0]]), values, device=CPU)
    ends = Ends(name="ends", n_inputs=1, n_outputs=7)
    with pytest.raises(CallError, match="task ends has ends: train a readout for it"):
        pool_split(splits["val"], ends, seed=None, device=CPU)


@pytest.mark.parametrize(
    ("kind", "settings", "told"),
    [
        ("mean", {}, "no probe is called 'mean': known are knn, logistic, ridge"),
        ("ridge", {"C": 1.0}, "ridge probe has no setting C: it has alpha"),
        ("knn", {"k": 2.5}, "k=2.5 must be a whole number"),
        ("knn", {"temperature": "hot"}, "temperature='hot' must be a number"),
        ("logistic", {"C": 0}, "C=0 must be above 0"),
    ],
)
def test_wrong_settings_are_refused(kind: str, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(CallError, match=told):
        check_probe(kind, settings)


def test_wrong_settings_are_refused_before_anything_is_read(task: Task, splits: Splits) -> None:
    read: list[int] = []
    with pytest.raises(CallError, match="has no setting depth"):
        fit_probe(
            "knn", splits["train"], splits["val"], task, settings={"depth": 1}, device=CPU,
            progress=lambda what, done, total: read.append(done),
        )  # fmt: skip
    assert not read


def test_probes_say_what_they_predict() -> None:
    taken = {name: probe.takes for name, probe in PROBES.items()}
    assert taken == {"knn": ("labels", "values"), "logistic": ("labels",), "ridge": ("values",)}


def test_the_benchmarks_pressures_are_relative_to_their_mean() -> None:
    rows = {"future": torch.full((2, 12), 1000.0), "past": torch.zeros(2, 12)}
    kind, truth = truth_of(rows, load_task("typhoon", load_manifest()))
    assert kind == "values"
    torch.testing.assert_close(truth, torch.full((2, 12), 1000.0 - 983.9111856685796))
