"""Scores against the reference's results and scikit-learn's, and by hand."""

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from featcache.errors import CallError, ScividError
from readouts.metrics.average_precision import (
    LabelCounts,
    MeanAveragePrecision,
    average_precision,
    frequency_scores,
)


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


@pytest.mark.golden("metric_map*")
def test_mean_average_precision_is_the_references(golden: Any) -> None:
    metric = MeanAveragePrecision(**golden.meta["module_kwargs"])
    for batch in batches(golden):
        metric.update(batch["predictions"], batch["labels"])
    assert_is_the_references(metric.compute(), golden)


@pytest.mark.golden("metric_count*")
def test_counts_are_the_references(golden: Any) -> None:
    metric = LabelCounts(**golden.meta["module_kwargs"])
    for batch in batches(golden):
        metric.update(batch["labels"])
    assert_is_the_references(metric.compute(), golden)


def test_average_precision_by_hand() -> None:
    # Ranked 1 0 1: precision 1/1 at the first positive, 2/3 at the second, each worth half the recall.
    scores = np.array([[3.0], [2.0], [1.0]], np.float32)
    labels = np.array([[1], [0], [1]])
    assert average_precision(scores, labels) == pytest.approx([0.5 * 1 + 0.5 * 2 / 3])
    # All tied: one threshold, whose precision is the positive rate.
    assert average_precision(0 * scores, labels) == pytest.approx([2 / 3])


def test_average_precision_is_scikit_learns() -> None:
    random = np.random.default_rng(0)
    scores = random.normal(size=(200, 5)).round(1).astype(np.float32)
    labels = (random.random((200, 5)) < 0.3).astype(np.int32)
    expected = average_precision_score(labels, scores, average=None)
    np.testing.assert_allclose(average_precision(scores, labels), expected, rtol=1e-12)


def test_a_class_without_positives_counts_0_in_silence() -> None:
    # pytest turns any warning into an error.
    scores = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    metric = MeanAveragePrecision()
    metric.update(scores, np.array([[1, 0], [0, 0]], np.uint8))
    assert metric.compute() == {"mean_AP": 0.5, "count": 2.0}


def test_skipped_classes_are_columns_of_what_the_background_leaves() -> None:
    # Background first: class 1 of what is left is `c`. Only `b` is ranked right.
    scores = np.array([[0, 1, 0], [0, 0, 1]], np.float32)
    labels = np.array([[0, 1, 1], [1, 0, 0]])
    metric = MeanAveragePrecision(skip_background=True, background_class_index=0, skip_classes=(1,))
    metric.update(scores, labels)
    results = metric.compute()
    assert results["mean_AP"] == pytest.approx((1.0 + 0.5) / 2)
    assert results["mean_AP_when_skipping_classes:1"] == pytest.approx(1.0)


def test_mistakes_are_told() -> None:
    with pytest.raises(CallError, match="no clips"):
        MeanAveragePrecision().compute()
    with pytest.raises(CallError, match="2 outputs cannot be scored as the classes a, b, c"):
        MeanAveragePrecision(class_names=("a", "b", "c")).update(np.zeros((1, 2)), np.zeros((1, 2), int))
    with pytest.raises(ScividError, match="not finite"):
        MeanAveragePrecision().update(np.array([[np.nan]]), np.array([[1]]))


def test_the_control_row_scores_the_positive_rate_of_what_is_evaluated() -> None:
    labels = np.array([[1, 0], [0, 0], [0, 1], [0, 1]])
    scores = frequency_scores([6827, 23497], counted_over=1_067_008, n_clips=4)
    assert scores.shape == (4, 2)
    assert scores[0] == pytest.approx([6827 / 1_067_008, 23497 / 1_067_008])
    assert average_precision(scores, labels) == pytest.approx([0.25, 0.5])
