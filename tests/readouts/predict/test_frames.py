"""Scores of frames are means over windows, smoothed ones means over frames, in blocks of any size."""

import numpy as np
import pytest

from readouts.predict import frames
from readouts.predict.frames import FrameScores, WindowScores, frame_scores, of_every_frame, smoothed


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


def test_frames_of_a_window_have_their_own_rows() -> None:
    first = WindowScores(first=0, stop=3, scores=np.array([[1.0], [2.0], [3.0]]))
    second = WindowScores(first=2, stop=4, scores=np.array([[5.0], [6.0]]))
    assert joined(list(frame_scores([first, second])))[:, 0].tolist() == [1, 2, 4, 6]


def test_frames_between_two_that_are_shown_lie_on_a_line() -> None:
    # A stride of 3 in a video that ends with frame 7: the last frame is shown twice, and counts once.
    found = of_every_frame(np.array([0, 3, 6, 7, 7]), np.array([[0.0], [3.0], [9.0], [4.0], [100.0]]), 8)
    assert found[:, 0].tolist() == [0, 1, 2, 3, 5, 7, 9, 4]
