"""Where the frames of a video are: their times, and the keyframes that decoding can start from."""

from collections.abc import Callable
from pathlib import Path

import av  # noqa: TID253  (for the tests of the modules that may)
import numpy as np
import pytest

from featcache.data.readers.base import WholeFileError
from featcache.data.readers.video.frames import FrameTimes, frame_times, opened, oriented, pixels_of
from tests.featcache.data.readers.video.small_videos import N_FRAMES, picture, remuxed


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


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((1, 0, 0, 1), [[1, 2, 3], [4, 5, 6]]),
        ((0, 1, -1, 0), [[4, 1], [5, 2], [6, 3]]),
        ((-1, 0, 0, -1), [[6, 5, 4], [3, 2, 1]]),
        ((0, -1, 1, 0), [[3, 6], [2, 5], [1, 4]]),
        ((-1, 0, 0, 1), [[3, 2, 1], [6, 5, 4]]),
        ((1, 0, 0, -1), [[4, 5, 6], [1, 2, 3]]),
        ((0, 1, 1, 0), [[1, 4], [2, 5], [3, 6]]),
        ((0, -1, -1, 0), [[6, 3], [5, 2], [4, 1]]),
    ],
)
def test_each_display_matrix_turns_and_mirrors_as_it_says(
    tmp_path: Path, matrix: tuple[int, ...], shown: list[list[int]]
) -> None:
    # x' = ax + cy and y' = bx + dy, y counted downwards: (0, 1, -1, 0) turns clockwise.
    stored = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)[..., None]
    turned = oriented(stored, np.array(matrix, np.int32) << 16)
    np.testing.assert_array_equal(turned[..., 0], shown)
    a, b, c, d = (n << 16 for n in matrix)
    upright = picture(tmp_path / "upright.mkv", np.repeat(np.repeat(stored * 40, 16, 0), 16, 1)[..., 0])
    path = remuxed(upright, tmp_path / "turned.mkv", matrix=[a, b, 0, c, d, 0, 0, 0, 1 << 30])
    with opened(path) as (container, stream):
        pixels = pixels_of(next(container.decode(stream)), 1)
    np.testing.assert_array_equal(pixels[8::16, 8::16, 0] // 40, shown)


def test_a_file_of_sound_holds_no_video(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    with av.open(path, "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux([*stream.encode(frame), *stream.encode()])
    with pytest.raises(WholeFileError, match="it holds no video"), opened(path):
        pass
