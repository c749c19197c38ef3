"""All frames of a video in order are the frames of its clips; what is damaged is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from featcache.data.readers.base import UnreadableError, WholeFileError
from featcache.data.readers.video.in_order import frames_in_order
from featcache.data.readers.video.reader import VideoFileReader
from tests.featcache.data.readers.video.small_videos import KINDS, N_FRAMES, dataset


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_the_frames_of_clips(videos: Callable[[str], Path], kind: str) -> None:
    path = videos(kind)
    reader = VideoFileReader(dataset(files=kind), "all", path.parent)
    (clip,) = (reader.scan().index.clip(i) for i in range(1))
    frames = list(frames_in_order(path, 3))
    assert len(frames) == clip.n_source == N_FRAMES
    np.testing.assert_array_equal(np.stack(frames), reader.read(clip, range(N_FRAMES)))


def test_a_file_that_was_cut_is_refused(videos: Callable[[str], Path], tmp_path: Path) -> None:
    whole = videos("mpeg4.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(UnreadableError):
        list(frames_in_order(tmp_path / "cut.avi", 3))
    (tmp_path / "none.mp4").write_bytes(b"no video at all")
    with pytest.raises(WholeFileError):
        list(frames_in_order(tmp_path / "none.mp4", 3))


def test_damage_inside_is_refused(videos: Callable[[str], Path], tmp_path: Path) -> None:
    content = bytearray(videos("h264.mp4").read_bytes())
    middle = content.index(b"mdat") + len(content) // 4
    content[middle : middle + 400] = b"\xff" * 400
    (tmp_path / "hurt.mp4").write_bytes(content)
    with pytest.raises(UnreadableError):
        list(frames_in_order(tmp_path / "hurt.mp4", 3))
