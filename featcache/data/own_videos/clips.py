"""Which clips a labelled video gives, and which labels each has.

A clip has the labels of its middle frame, or those that cover a share of its frames, and those of the points
that it holds, wherever in it. A clip that touches a frame of which anything is unknown is none: it would be a
negative of what nobody looked at.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from statistics import median

import numpy as np

from featcache.data.labels.base import UNKNOWN, YES, VideoLabels
from featcache.data.labels.videos import Videos
from featcache.errors import CallError

_LONGEST_STRIDE = 8
_BLOCK = 1 << 16
"""Frames whose clips are labelled at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipRule:
    """How clips are cut and labelled."""

    n_frames: int = 16
    stride: int = 1
    """Source frames from one frame of a clip to the next."""
    every: int | None = None
    """Source frames from one clip's first to the next's; None for one clip a video, over all of it."""
    share: float | None = None
    """Of a clip's frames that a label must cover; None for the label of its middle frame."""

    def __post_init__(self) -> None:
        if min(self.n_frames, self.stride, 1 if self.every is None else self.every) < 1:
            raise CallError("frames, stride and step of clips are at least 1: give other numbers.")
        if self.share is not None and not 0 < self.share <= 1:
            raise CallError(f"share={self.share} of a clip must be above 0 and at most 1.")

    @classmethod
    def of_a_second(
        cls,
        videos: Videos,
        *,
        n_frames: int,
        stride: int | None,
        every: int | None,
        share: float | None = None,
        seconds: float = 1.0,
    ) -> "ClipRule":
        """Clips of about so many seconds of the usual video, one after the other, unless told otherwise."""
        rate = median(float(video.rate) for video in videos)
        stride = stride or min(_LONGEST_STRIDE, max(1, round(seconds * rate / n_frames)))
        return cls(n_frames=n_frames, stride=stride, every=every or n_frames * stride, share=share)

    @property
    def span(self) -> int:
        """Source frames from a clip's first to its last."""
        return (self.n_frames - 1) * self.stride + 1

    def starts(self, n_frames: int) -> range:
        """First frames of the whole clips of a video; a shorter video has one, which repeats its end."""
        if self.every is None or n_frames <= self.span:
            return range(1)
        return range(0, n_frames - self.span + 1, self.every)

    def __str__(self) -> str:
        if self.every is None:
            cut = f"one clip a video, {self.n_frames} frames over all of it"
        else:
            cut = f"{self.n_frames} frames with stride {self.stride}, a clip every {self.every} frames"
        if self.share is None:
            return f"{cut}; a clip has the labels of its middle frame"
        return f"{cut}; a clip has the labels that cover {self.share:.0%} of its frames"


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedClip:
    """A row of a clip list."""

    source: str
    first_frame: int
    labels: tuple[str, ...]


def of_subject(labels: VideoLabels, subject: str | None) -> VideoLabels:
    """With one subject's bouts, points and unknown spans alone, where one is named."""
    if subject is None:
        return labels
    return replace(
        labels,
        bouts=tuple(bout for bout in labels.bouts if bout.subject == subject),
        points=tuple(point for point in labels.points if point.subject == subject),
        unknown=tuple(span for span in labels.unknown if span.subject in (None, subject)),
    )


def clips_of(
    labels: VideoLabels, classes: Sequence[str], rule: ClipRule, *, starts: Iterable[int] | None = None
) -> Iterator[ListedClip]:
    """The clips of a video of which all is known, in order; ten hours take the memory of a minute.

    Args:
        labels: what is known of the video.
        classes: names of labels that count.
        rule: how to cut and label.
        starts: their first frames, in order; None for those that the rule gives.
    """
    n_frames = labels.video.n_frames
    span = n_frames if rule.every is None else min(rule.span, n_frames)
    of_rule = rule.starts(n_frames) if starts is None else starts
    for _, block in groupby(of_rule, lambda start: start // _BLOCK):
        begins = [*block]
        first, stop = begins[0], min(n_frames, begins[-1] + span)
        states = labels.states(classes, first=first, stop=stop)
        pointed = labels.pointed(classes, first=first, stop=stop)
        for start in begins:
            shown = slice(start - first, start - first + span)
            clip = states[:, shown]
            if (clip == UNKNOWN).any():
                continue
            yes = clip == YES
            middle = min(span // 2, clip.shape[1] - 1)
            has = yes[:, middle] if rule.share is None else yes.mean(axis=1) >= rule.share
            has |= pointed[:, shown].any(axis=1)
            yield ListedClip(
                source=labels.video.source,
                first_frame=start,
                labels=tuple(classes[int(k)] for k in np.flatnonzero(has)),
            )
