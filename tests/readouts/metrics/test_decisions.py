"""Thresholds, counts and F1 agree with scikit-learn, and with what a hand counts."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_curve, precision_score, recall_score

from readouts.metrics.decisions import Decisions, best_thresholds, confusion, macro_f1


@pytest.fixture
def some() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = (rng.random((300, 4)) < [0.5, 0.2, 0.05, 0.9]).astype(np.uint8)
    return np.round(labels + rng.normal(size=labels.shape), 1).astype(np.float32), labels


def test_no_other_threshold_is_better(some: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = some
    thresholds = best_thresholds(scores, labels)
    f1 = Decisions.of(scores >= thresholds, labels).f1
    for k in range(4):
        precision, recall, _ = precision_recall_curve(labels[:, k], scores[:, k])
        every = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        assert f1[k] == pytest.approx(every.max())


def test_a_threshold_lies_between_two_scores() -> None:
    scores = np.array([[0.9], [0.7], [0.3], [0.1]], np.float32)
    assert best_thresholds(scores, np.array([[1], [1], [0], [0]]))[0] == pytest.approx(0.5)
    assert best_thresholds(scores, np.ones((4, 1), int))[0] == pytest.approx(0.1)
    assert np.isnan(best_thresholds(scores, np.zeros((4, 1), int))[0])


def test_they_are_those_of_scikit_learn(some: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = some
    weights = np.random.default_rng(1).integers(0, 4, 300).astype(np.float64)
    for given in (None, weights):
        found = Decisions.of(scores > 0.5, labels, given)
        for ours, theirs in (
            (found.precision, precision_score), (found.recall, recall_score), (found.f1, f1_score),
        ):  # fmt: skip
            np.testing.assert_allclose(ours, theirs(labels, scores > 0.5, average=None, sample_weight=given))


def test_what_is_not_there_has_no_score() -> None:
    nothing = Decisions.of(np.zeros((3, 2), bool), np.array([[0, 1]] * 3))
    assert np.isnan(nothing.f1[0])
    assert nothing.f1[1] == 0
    assert macro_f1(nothing.f1) == 0
    assert np.isnan(macro_f1(nothing.f1, [1]))


def test_the_confusion_of_classes() -> None:
    rng = np.random.default_rng(0)
    true, said = rng.integers(3, size=50), rng.integers(3, size=50)
    np.testing.assert_array_equal(confusion(said, true, 4)[:3, :3], confusion_matrix(true, said))
