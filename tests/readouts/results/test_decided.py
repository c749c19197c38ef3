"""Thresholds of a run are those of the best F1 over the clips of val that it kept."""

from dataclasses import replace

import numpy as np
import pytest

from featcache.errors import StoreError
from featcache.store.feature_store import find_stores
from readouts.metrics.decisions import Decisions, best_thresholds, macro_f1
from readouts.results.decided import (
    decision_scores,
    evaluated,
    found_bouts,
    probabilities,
    val_thresholds,
    weighted_macro_f1,
)
from readouts.results.per_clip import read_predictions
from readouts.results.significance.bootstrap import Clusters
from tests.readouts.conftest import Trained
from tests.readouts.own_lab import Lab


def test_clips_come_with_scores_and_labels(trained: Trained) -> None:
    folder, val = trained.run.folder(trained.results), trained.run.splits["val"]
    found = evaluated(folder, "attention", "val")
    assert val.targets is not None
    np.testing.assert_array_equal(found.labels, val.targets.rows("labels", found.clips))
    logits = read_predictions(folder, "val")[1]["attention"]
    np.testing.assert_allclose(found.scores, 1 / (1 + np.exp(-logits)), rtol=1e-5)
    assert found.ids[3] == "val-3"


def test_the_thresholds_part_the_classes(trained: Trained) -> None:
    folder = trained.run.folder(trained.results)
    found, thresholds = evaluated(folder, "attention", "val"), val_thresholds(folder, "attention")
    f1 = Decisions.of(found.scores >= thresholds, found.labels).f1
    for other in (0.3, 0.5, 0.7):
        assert (f1 >= Decisions.of(found.scores >= other, found.labels).f1 - 1e-9).all()


def test_what_was_not_kept_is_refused(trained: Trained) -> None:
    with pytest.raises(StoreError, match="kept no statistics"):
        evaluated(trained.run.folder(trained.results), "attention", "test")
    with pytest.raises(StoreError, match="holds nothing of readout dpt"):
        evaluated(trained.run.folder(trained.results), "dpt", "val")


def test_f1_is_chosen_on_val_and_counted_on_both() -> None:
    rng = np.random.default_rng(0)
    labels = {role: (rng.random((200, 3)) < [0.4, 0.2, 0.0]).astype(np.uint8) for role in ("val", "test")}
    given = {role: (3 * of + rng.normal(size=of.shape).astype(np.float32), of) for role, of in labels.items()}
    found = decision_scores(given, ["a", "b", "none"], "b")
    thresholds = best_thresholds(probabilities(given["val"][0]), labels["val"])
    for role, (logits, true) in given.items():
        f1 = Decisions.of(probabilities(logits) >= thresholds, true).f1
        assert found[role] == {"a_F1": f1[0], "b_F1": f1[1], "macro_F1": f1[0]}


def test_resamples_of_clusters_are_those_of_their_clips(trained: Trained) -> None:
    found = evaluated(trained.run.folder(trained.results), "linear", "val")
    clusters = Clusters(of_clip=np.arange(len(found.clips)) // 4, kind="videos")
    thresholds = np.full(7, 0.6)
    score = weighted_macro_f1(found, thresholds, clusters, [0])
    weights = np.repeat([0.0, 2.0, 1.0, 0.0, 3.0, 1.0], 4)
    wanted = macro_f1(Decisions.of(found.said(thresholds), found.labels, weights).f1, [0])
    assert score(weights) == pytest.approx(wanted)


def test_clips_of_no_video_have_no_bouts(trained: Trained) -> None:
    found = evaluated(trained.run.folder(trained.results), "linear", "val")
    assert found_bouts(found, np.full(7, 0.5), trained.run.splits["val"].store) is None


def test_bouts_of_a_video_do_not_go_on_in_the_next(lab: Lab) -> None:
    found = evaluated(lab.folder, "attention", "test")
    (store,) = find_stores(lab.cache, "mice", "test")
    always = found_bouts(found, np.zeros(2), store)
    assert always is not None
    assert (always.hits + always.false_alarms).tolist() == [2, 2], "one a video"
    perfect = found_bouts(replace(found, scores=found.labels.astype(np.float32)), np.full(2, 0.5), store)
    assert perfect is not None
    assert perfect.f1.tolist() == [1, 1]
