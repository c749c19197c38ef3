"""Windows that slide over a video are the clips that begin there, and each frame is made once."""

from collections import Counter

import numpy as np
import pytest
import torch

from featcache.data.sampling import frame_indices
from featcache.data.views import stretched
from featcache.errors import CallError
from featcache.extract.pixels.windows import Window, WindowRule, sliding_windows, whole_video
from featcache.spec import ClipSpec


def rule(every: int, n_frames: int = 4, stride: int = 3, **spec: object) -> WindowRule:
    return WindowRule(spec=ClipSpec(n_frames=n_frames, stride=stride, **spec), every=every)


def frames(n: int) -> list[np.ndarray]:
    return [np.full((1, 1, 3), k, np.uint8) for k in range(n)]


class Pixels:
    def __init__(self) -> None:
        self.made = Counter[int]()

    def __call__(self, frame: np.ndarray) -> torch.Tensor:
        self.made[int(frame[0, 0, 0])] += 1
        return torch.from_numpy(frame).permute(2, 0, 1).float()


@pytest.mark.parametrize("every", [1, 2, 3, 5, 10])
@pytest.mark.parametrize("n", [1, 4, 9, 10, 11, 37, 40])
def test_windows_are_clips(n: int, every: int) -> None:
    asked, pixels = rule(every), Pixels()
    found = list(sliding_windows(frames(n), asked, pixels))
    assert [w.first for w in found] == list(range(0, found[-1].first + 1, every))
    for window in found:
        numbers = window.first + frame_indices(asked.spec, n - window.first)
        wanted = stretched(torch.tensor(numbers).float()[:, None, None, None].expand(-1, 3, 1, 1))
        torch.testing.assert_close(window.pixels, wanted)
        assert window.stop == min(window.first + 10, n)
    assert found[-1].stop == n
    assert all(w.stop < n for w in found[:-1]), "the last is the first that reaches the end"
    assert max(pixels.made.values()) == 1


def test_no_more_is_held_than_a_window_needs() -> None:
    alive: list[int] = []

    class Held(torch.Tensor):
        pass

    import weakref

    held: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()

    def pixels(frame: np.ndarray) -> torch.Tensor:
        made = torch.full((3, 1, 1), float(frame[0, 0, 0]))
        held.add(made)
        return made

    for window in sliding_windows(iter(frames(200)), rule(5), pixels):
        alive.append(len(held))
        del window
    assert max(alive) <= 10


def test_a_whole_video_is_one_window() -> None:
    asked = rule(1, n_frames=4, sampling="linspace_clip")
    found: Window = whole_video(frames(10), asked, Pixels(), 10)
    assert (found.first, found.stop) == (0, 10)
    assert found.pixels[::4, 0, 0, 0].tolist() == [0.0, 3.0, 6.0, 9.0]


@pytest.mark.parametrize("every", [0, 11])
def test_windows_that_leave_frames_out_are_refused(every: int) -> None:
    with pytest.raises(CallError, match="write 1 to 10"):
        rule(every)
