"""Precision and recall by hand, and one truth about them: the legend's AP is that of the results table."""

import numpy as np
import pytest

from readouts.metrics.average_precision import average_precision
from readouts.report.figures import precision_recall
from readouts.report.figures.base import COLOURS
from readouts.report.figures.classification import precision_at

SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
LABELS = np.array([1, 0, 1, 1, 0])


def test_precision_is_that_of_the_first_threshold_that_reaches_the_recall() -> None:
    # hits after each clip: 1 1 2 3 3, precision 1, 1/2, 2/3, 3/4, 3/5
    recalls = np.array([0, 1 / 3, 0.34, 2 / 3, 1.0])
    assert precision_at(recalls, SCORES, LABELS) == pytest.approx([1, 1, 2 / 3, 2 / 3, 3 / 4])


def test_clips_of_one_score_are_one_threshold() -> None:
    assert precision_at(np.array([0, 0.5, 1.0]), np.zeros(5), LABELS) == pytest.approx([0.6] * 3)


@pytest.mark.parametrize("levels", [3, 1000])
def test_the_mean_over_all_recalls_is_the_average_precision(levels: int) -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(400) < 0.2).astype(np.uint8)
    scores = np.round(rng.normal(size=400) * levels / 4)
    recalls = np.arange(1, labels.sum() + 1) / labels.sum()
    expected = average_precision(scores[:, None], labels[:, None])[0]
    assert precision_at(recalls, scores, labels).mean() == pytest.approx(expected)


def test_a_panel_a_class_with_its_average_precision(svg_of) -> None:
    scores, labels = np.stack([SCORES, -SCORES], axis=1), np.stack([LABELS, LABELS], axis=1)
    # falling: (1 + 2/3 + 3/4) / 3 = 0.806; rising, hits 0 1 2 2 3: (1/2 + 2/3 + 3/5) / 3 = 0.589
    text = svg_of(precision_recall({"linear": scores, "attention": -scores}, labels, ["lunging", "circling"]))
    assert text.count('<g id="class-') == 2
    lunging, circling = text.split('<g id="class-')[1:]
    assert "<!-- linear  AP 0.81 -->" in lunging
    assert "<!-- attention  AP 0.59 -->" in lunging
    assert "<!-- linear  AP 0.59 -->" in circling
    assert "<!-- positive rate  0.6 -->" in circling
    assert lunging.count(f"stroke: {COLOURS['linear']}") == 2  # curve and legend


def test_a_class_without_clips_says_so(svg_of) -> None:
    labels = np.stack([LABELS, 0 * LABELS], axis=1)
    text = svg_of(precision_recall({"linear": np.stack([SCORES] * 2, axis=1)}, labels, ["there", "missing"]))
    assert text.count("<!-- no clip of this class -->") == 1


def test_many_clips_of_many_classes_stay_small_and_the_rest_is_owned_up_to(svg_of) -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((3000, 10)) < 0.3).astype(np.uint8)
    scores = {name: labels + rng.normal(size=labels.shape) for name in ("linear", "attention")}
    text = svg_of(precision_recall(scores, labels, [f"behaviour {i}" for i in range(10)]))
    assert text.count('<g id="class-') == 8
    assert "the first 8 of 10 classes" in text
