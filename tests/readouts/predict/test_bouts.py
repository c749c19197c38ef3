"""Bouts are runs of frames above a threshold, whatever blocks they come in; and their summary."""

import numpy as np
import pytest

from readouts.predict.bouts import Bout, Summary, bouts_of
from readouts.predict.frames import FrameScores

SCORES = np.array([[0, 9], [9, 9], [8, 9], [0, 0], [0, 0], [9, 0], [9, 0], [0, 9]], np.float32)


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_runs_of_frames(size: int) -> None:
    blocks = [FrameScores(first=k, scores=SCORES[k : k + size]) for k in range(0, 8, size)]
    found = sorted(bouts_of(blocks, np.array([8.0, 5.0])), key=lambda bout: (bout.output, bout.first))
    assert found == [
        Bout(output=0, first=1, stop=3, score=8.5), Bout(output=0, first=5, stop=7, score=9.0),
        Bout(output=1, first=0, stop=3, score=9.0), Bout(output=1, first=7, stop=8, score=9.0),
    ]  # fmt: skip


def test_no_threshold_no_bout() -> None:
    (only,) = bouts_of([FrameScores(first=0, scores=SCORES[:3])], np.array([np.nan, 5.0]))
    assert only.output == 1


def test_the_summary_counts_bouts_and_seconds() -> None:
    found = Summary.of(bouts_of([FrameScores(first=0, scores=SCORES)], np.array([8.0, 99.0])), 2)
    first, second = found.rows("a.mp4", ("run", "rest"), 2.0)
    assert first == {"video": "a.mp4", "class": "run", "bouts": 2, "seconds": 2.0, "mean bout": 1.0}
    assert (second["bouts"], second["mean bout"]) == (0, None)
