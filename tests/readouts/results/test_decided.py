"""Thresholds of a run are those of the best F1 over the clips of val that it kept."""

import numpy as np
import pytest

from featcache.errors import StoreError
from readouts.metrics.decisions import Decisions
from readouts.results.decided import evaluated, val_thresholds
from readouts.results.per_clip import read_predictions
from tests.readouts.conftest import Trained


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
