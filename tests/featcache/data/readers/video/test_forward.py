"""Videos that stay open: the next frames without the first ones again, never of a file that has changed."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from featcache.data.readers.base import WholeFileError
from featcache.data.readers.video import forward
from featcache.data.readers.video.forward import OpenVideos
from tests.featcache.data.readers.video.small_videos import write_video


def level(videos: OpenVideos, path: Path, *numbers: int) -> list[int]:
    """Those of some frames that have the grey of their number, 2 levels a frame, as the codec rounds it."""
    found = videos.decode(path, set(numbers), 3, go_on=False, keep=True)
    return [number for number in numbers if abs(found[number].mean() - 2 * number) < 3]


def test_clips_one_after_the_other_cost_one_pass(
    videos: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []

    def counted(path: Path) -> object:
        opened.append(path)
        return open_video(path)

    open_video = forward.open_video
    monkeypatch.setattr(forward, "open_video", counted)
    path, at_hand = videos("lossless.mkv"), OpenVideos()
    assert level(at_hand, path, 3, 20) == [3, 20]
    assert level(at_hand, path, 10, 40) == [10, 40]  # frames of before are at hand
    assert level(at_hand, path, 119) == [119]
    assert len(opened) == 1
    monkeypatch.setattr(forward, "_RECENT_BYTES", 0)
    bare = OpenVideos()
    assert [level(bare, path, k) for k in (30, 40, 30)] == [[30], [40], [30]]
    assert len(opened) == 3


def test_a_file_that_was_replaced_is_opened_anew(tmp_path: Path) -> None:
    at_hand, path = OpenVideos(), write_video(tmp_path / "lossless.mkv", 30)
    assert level(at_hand, path, 5) == [5]
    path.unlink()
    with pytest.raises(WholeFileError, match="cannot open"):
        level(at_hand, path, 6)
    write_video(path, 8)
    with pytest.raises(WholeFileError, match="ends before frame 9"):
        level(at_hand, path, 9)


def test_a_copy_in_another_process_has_its_own(videos: Callable[[str], Path]) -> None:
    at_hand = OpenVideos()
    level(at_hand, videos("lossless.mkv"), 5)
    assert level(pickle.loads(pickle.dumps(at_hand)), videos("lossless.mkv"), 4) == [4]


def test_no_more_than_a_few_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "_MOST_OPEN", 2)
    at_hand = OpenVideos()
    paths = [write_video(tmp_path / str(i) / "lossless.mkv", 10) for i in range(4)]
    for path in (*paths, *paths):
        assert level(at_hand, path, 3) == [3]
    assert len(at_hand._idle) == 2
