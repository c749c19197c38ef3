"""Thresholds of classes: of val, or given; what they lead to is said."""

import numpy as np
import pytest

from featcache.errors import CallError
from readouts.predict.kinds.labels import thresholds_of
from tests.readouts.own_lab import Lab


def test_thresholds_are_of_val_or_given(lab: Lab) -> None:
    run = lab.load()
    np.testing.assert_array_equal(thresholds_of(run, "attention", "0.3"), [0.3, 0.3])
    assert (((found := thresholds_of(run, "attention", "val")) >= 0) & (found <= 1)).all()
    for text in ("high", "1.5", "nan"):
        with pytest.raises(CallError, match="from 0 to 1"):
            thresholds_of(run, "attention", text)


def test_thresholds_are_said(lab: Lab) -> None:
    first, second, third = lab.labels(np.array([0.25, np.nan])).sentences(lab.watcher(every=4))
    assert "16 frames with stride 1, a window every 4 frames; a frame has the mean" in first
    assert second.endswith("dig 0.25")
    assert third.endswith("rest")
