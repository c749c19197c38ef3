"""Scores of frames are means over windows, smoothed ones means over frames, in blocks of any size."""

import numpy as np
import pytest

from readouts.predict import frames
from readouts.predict.frames import FrameScores, WindowScores, frame_scores, smoothed


def windows(n: int, span: int, every: int) -> list[WindowScores]:
    rng, firsts = np.random.default_rng(0), [0]
    while firsts[-1] + span < n:
        firsts.append(firsts[-1] + every)
    return [
        WindowScores(first=k, stop=min(k + span, n), scores=rng.random(3).astype(np.float32)) for k in firsts
    ]


def joined(blocks: list[FrameScores]) -> np.ndarray:
    ends = [block.first + len(block.scores) for block in blocks]
    assert [block.first for block in blocks] == [0, *ends[:-1]], "one after the other"
    return np.concatenate([block.scores for block in blocks])


@pytest.mark.parametrize("rows", [1, 7, 1000])
@pytest.mark.parametrize(("n", "span", "every"), [(5, 10, 5), (40, 10, 5), (101, 10, 3), (30, 10, 10)])
def test_a_frame_has_the_mean_of_its_windows(
    monkeypatch: pytest.MonkeyPatch, n: int, span: int, every: int, rows: int
) -> None:
    monkeypatch.setattr(frames, "ROWS", rows)
    given = windows(n, span, every)
    found = joined(list(frame_scores(iter(given))))
    wanted = [np.mean([w.scores for w in given if w.first <= k < w.stop], axis=0) for k in range(n)]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize("size", [1, 3, 50])
@pytest.mark.parametrize("width", [1, 2, 3, 9, 200])
def test_smoothing_does_not_see_blocks(width: int, size: int) -> None:
    scores = np.random.default_rng(0).random((50, 2)).astype(np.float32)
    blocks = [FrameScores(first=k, scores=scores[k : k + size]) for k in range(0, 50, size)]
    half = width // 2
    wanted = [scores[max(0, k - half) : k + half + 1].mean(axis=0) for k in range(50)]
    np.testing.assert_allclose(joined(list(smoothed(iter(blocks), width))), wanted, rtol=1e-5)
