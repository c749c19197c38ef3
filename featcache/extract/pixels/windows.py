"""A video as windows that slide over it: each frame decoded and resized once, whatever windows show it.

A window is a clip like any other: its frames are those of a clip that begins there, and behind the video's
end its last frame is repeated. The first begins at frame 0, one more every so many frames, and the last is
the first that reaches the end.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from featcache.data.sampling import frame_indices
from featcache.data.views import stretched
from featcache.errors import CallError
from featcache.spec import ClipSpec

Frame = UInt8[np.ndarray, "Y X C"]
FramePixels = Float[Tensor, "C height width"]


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowRule:
    """Which windows of a video there are."""

    spec: ClipSpec
    every: int
    """Frames from the first of a window to the first of the next; without meaning for whole videos."""

    def __post_init__(self) -> None:
        if self.slides and not 1 <= self.every <= self.span:
            raise CallError(
                f"--every {self.every}: windows of {self.span} frames would leave frames out between them, "
                f"or never move: write 1 to {self.span}."
            )

    @property
    def slides(self) -> bool:
        """Whether windows slide; else there is one, with frames of all of the video."""
        return self.spec.sampling == "clip"

    @property
    def span(self) -> int:
        """Frames of the video from the first to the last of a window."""
        return (self.spec.n_frames - 1) * self.spec.stride + 1

    def is_shown(self, number: int) -> bool:
        """Whether any window samples a frame."""
        first = max(0, -(-(number - self.span + 1) // self.every)) * self.every
        starts = range(first, number + 1, self.every)
        return any((number - start) % self.spec.stride == 0 for start in starts)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Window:
    """A stretch of a video, and the frames of it that a model sees."""

    first: int
    stop: int
    """The frame after the last that it stands for; at the video's end fewer than its span."""
    pixels: Float[Tensor, "frames 3 height width"]


def sliding_windows(
    frames: Iterable[Frame], rule: WindowRule, pixels: Callable[[Frame], FramePixels]
) -> Iterator[Window]:
    """The windows of a video in order; no more is held than the pixels of one window's frames.

    Args:
        frames: all of the video, in order.
        rule: which windows; of one that slides.
        pixels: makes those of one frame.
    """
    held, first, n, last = dict[int, FramePixels](), 0, 0, None
    for n, last in enumerate(frames, 1):
        if rule.is_shown(n - 1):
            held[n - 1] = pixels(last)
        if n == first + rule.span:
            yield _window(held, rule, first, n)
            first += rule.every
            held = {number: of for number, of in held.items() if number >= first}
    while last is not None and (first == 0 or first - rule.every + rule.span < n):
        if n - 1 not in held:
            held[n - 1] = pixels(last)
        yield _window(held, rule, first, n)
        first += rule.every


def whole_video(
    frames: Iterable[Frame], rule: WindowRule, pixels: Callable[[Frame], FramePixels], n_frames: int
) -> Window:
    """The one window of a video of so many frames, of those frames that its rule takes of all."""
    wanted = frame_indices(rule.spec, n_frames).tolist()
    held = {number: pixels(frame) for number, frame in enumerate(frames) if number in set(wanted)}
    return Window(first=0, stop=n_frames, pixels=_stacked(held, wanted))


def _window(held: dict[int, FramePixels], rule: WindowRule, first: int, n: int) -> Window:
    wanted = (first + frame_indices(rule.spec, n - first)).tolist()
    return Window(first=first, stop=min(first + rule.span, n), pixels=_stacked(held, wanted))


def _stacked(held: dict[int, FramePixels], wanted: Sequence[int]) -> Float[Tensor, "frames 3 height width"]:
    return stretched(torch.stack([held[number] for number in wanted]))
