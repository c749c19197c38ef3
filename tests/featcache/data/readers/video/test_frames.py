"""Where the frames of a video are: their times, and the keyframes that decoding can start from."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from featcache.data.readers.video.frames import FrameTimes, frame_times
from tests.featcache.data.readers.video.small_videos import N_FRAMES


def test_keyframes_and_runs_by_hand() -> None:
    times = FrameTimes(np.array([0, 10, 25, 30, 47]), np.array([0, 3]))
    assert [times.number(pts) for pts in (0, 25, 26, 47, 48, None)] == [0, 2, None, 4, None, None]
    assert times.runs({1, 2, 3, 4}) == {0: {1, 2}, 3: {3, 4}}


def test_times_are_of_every_frame(videos: Callable[[str], Path]) -> None:
    times = frame_times(videos("h264.mp4"))
    assert times is not None
    assert len(times.pts) == N_FRAMES
    assert (np.diff(times.pts) > 0).all()
    assert times.keyframes[0] == 0
    assert np.diff(times.keyframes).max() <= 24
