"""Scores against the reference's results and scikit-learn's, and by hand."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from featcache.errors import CallError, ScividError
from readouts.metrics.average_precision import average_precision, join, per_clip, scores


def batches(golden: Any) -> list[dict[str, np.ndarray]]:
    inputs = golden.under("in/")
    numbers = sorted({int(name.partition("/")[0]) for name in inputs})
    names = {name.partition("/")[2] for name in inputs}
    return [{name: inputs[f"{number}/{name}"] for name in names} for number in numbers]


def assert_is_the_references(found: dict[str, float], golden: Any) -> None:
    expected = {name.replace("|", "/"): float(value) for name, value in golden.under("out/").items()}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name


def scored(parts: list[tuple[np.ndarray, np.ndarray]], **settings: Any) -> dict[str, float]:
    """The scores of a split, given outputs and labels of its batches."""
    batches = [per_clip(torch.from_numpy(found), torch.from_numpy(labels)) for found, labels in parts]
    return scores(join(batches), **settings)


@pytest.mark.golden("metric_map*")
def test_mean_average_precision_is_the_references(golden: Any) -> None:
    settings = dict(golden.meta["module_kwargs"])
    column = settings.pop("background_class_index", -1)
    if settings.pop("skip_background", False):
        settings["background"] = column
    found = scored([(batch["predictions"], batch["labels"]) for batch in batches(golden)], **settings)
    assert_is_the_references(found, golden)


def test_average_precision_by_hand() -> None:
    # Ranked 1 0 1: precision 1/1 at the first positive, 2/3 at the second, each worth half the recall.
    outputs = np.array([[3.0], [2.0], [1.0]], np.float32)
    labels = np.array([[1], [0], [1]])
    assert average_precision(outputs, labels) == pytest.approx([0.5 * 1 + 0.5 * 2 / 3])
    # All tied: one threshold, whose precision is the positive rate.
    assert average_precision(0 * outputs, labels) == pytest.approx([2 / 3])


def test_average_precision_is_scikit_learns() -> None:
    random = np.random.default_rng(0)
    outputs = random.normal(size=(200, 5)).round(1).astype(np.float32)
    labels = (random.random((200, 5)) < 0.3).astype(np.int32)
    expected = average_precision_score(labels, outputs, average=None)
    np.testing.assert_allclose(average_precision(outputs, labels), expected, rtol=1e-12)


def test_a_class_without_positives_counts_0_in_silence() -> None:
    # pytest turns any warning into an error.
    outputs = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    labels = np.array([[1, 0], [0, 0]], np.uint8)
    assert scored([(outputs, labels)]) == {"mean_AP": 0.5, "count": 2.0}


def test_skipped_classes_are_columns_of_what_the_background_leaves() -> None:
    # Background first: class 1 of what is left is `c`. Only `b` is ranked right.
    outputs = np.array([[0, 1, 0], [0, 0, 1]], np.float32)
    labels = np.array([[0, 1, 1], [1, 0, 0]])
    results = scored([(outputs, labels)], background=0, skip_classes=(1,))
    assert results["mean_AP"] == pytest.approx((1.0 + 0.5) / 2)
    assert results["mean_AP_when_skipping_classes:1"] == pytest.approx(1.0)


def test_a_clip_that_counts_twice_is_as_two_clips() -> None:
    random, counts = np.random.default_rng(1), np.array([2, 0, 1, 3, 1, 1, 0, 2])
    outputs = random.normal(size=(8, 3)).round(1).astype(np.float32)
    labels = random.integers(2, size=(8, 3))
    batch = per_clip(torch.from_numpy(outputs), torch.from_numpy(labels))
    found = scores(join([batch]), counts.astype(np.float64))
    assert found == scored([(np.repeat(outputs, counts, axis=0), np.repeat(labels, counts, axis=0))])
    assert found["count"] == 10


def test_mistakes_are_told() -> None:
    with pytest.raises(CallError, match="no clips"):
        join([])
    with pytest.raises(ScividError, match="outputs are not finite"):
        scored([(np.array([[np.nan]], np.float32), np.array([[1]]))])
