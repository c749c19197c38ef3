"""The one form that every label file becomes: bouts, points and unknown spans of a video, in its frames.

A frame of a video that was labelled and lies in no bout of a class is a negative of it. What nobody looked
at, what was never closed and what a split has no labels for is *unknown*: it is a negative of nothing.
Times of the file are kept beside the frames, so that the form can be written back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int8

from featcache.data.labels.remarks import Remark
from featcache.data.labels.videos import Video, Videos
from featcache.errors import CallError

YES, NO, UNKNOWN = 1, 0, -1


@dataclass(frozen=True, kw_only=True, slots=True)
class Bout:
    """A stretch of a video that has a label."""

    label: str
    first: int
    """The first frame, from 0."""
    stop: int
    """The frame after the last."""
    subject: str = ""
    """Whose it is; empty where the file does not tell subjects apart."""
    modifiers: tuple[str, ...] = ()
    """What more was said of it, in the file's order; an open one is empty."""
    seconds: tuple[Fraction, Fraction] | None = None
    """Start and stop in the video's time as the file has them; None where it counts frames."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """An event that has a time and no length."""

    label: str
    frame: int
    """The first frame that is not shown before it."""
    subject: str = ""
    modifiers: tuple[str, ...] = ()
    seconds: Fraction | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Unknown:
    """Frames of which the file does not tell whether they have a label."""

    first: int
    stop: int
    reason: str
    label: str | None = None
    """The only label that is unknown there; None for all."""
    subject: str | None = None
    """The only subject of whom it is unknown; None for all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoLabels:
    """What a file says of one video."""

    video: Video
    bouts: tuple[Bout, ...] = ()
    points: tuple[Point, ...] = ()
    unknown: tuple[Unknown, ...] = ()
    split: str | None = None
    group: str = ""
    """What a split should keep together (the animal), where a column of the file names it."""
    rows: int | None = None
    """Rows of a file that has one a frame."""
    rate: Fraction | None = None
    """Frames a second by the file, where it names a rate."""
    file: Path | None = None
    """Where it stands."""

    @property
    def events(self) -> "tuple[Bout | Point, ...]":
        """Bouts and points."""
        return (*self.bouts, *self.points)

    @property
    def is_labelled(self) -> bool:
        """Whether anything is known of any frame."""
        spans = sorted((u.first, u.stop) for u in self.unknown if u.label is None and u.subject is None)
        end = 0
        for first, stop in spans:
            if first > end:
                break
            end = max(end, stop)
        return end < self.video.n_frames

    def states(
        self, classes: Sequence[str], *, subject: str | None = None, first: int = 0, stop: int | None = None
    ) -> Int8[np.ndarray, "K F"]:
        """For each of `classes` and each frame YES, NO or UNKNOWN.

        Args:
            classes: names of labels; bouts of others do not count.
            subject: whose bouts count; None for those of all.
            first: the first frame.
            stop: the frame after the last; None for the video's end.
        """
        stop = self.video.n_frames if stop is None else stop
        states = np.full((len(classes), stop - first), NO, np.int8)
        row_of = {name: row for row, name in enumerate(classes)}

        def fill(rows: int | slice, event: Bout | Unknown, state: int) -> None:
            states[rows, max(0, event.first - first) : max(0, event.stop - first)] = state

        for span in self.unknown:
            if span.label in row_of and (subject is None or span.subject in (None, subject)):
                fill(row_of[span.label], span, UNKNOWN)
        for bout in self.bouts:
            if bout.label in row_of and subject in (None, bout.subject):
                fill(row_of[bout.label], bout, YES)
        # What nobody looked at stays so, whatever bout reaches into it.
        for span in self.unknown:
            if span.label is None and (subject is None or span.subject in (None, subject)):
                fill(slice(None), span, UNKNOWN)
        return states

    def pointed(
        self, classes: Sequence[str], *, first: int = 0, stop: int | None = None
    ) -> Bool[np.ndarray, "K F"]:
        """For each of `classes` and each frame whether a point is there; arguments are those of `states`."""
        stop = self.video.n_frames if stop is None else stop
        pointed = np.zeros((len(classes), stop - first), np.bool_)
        row_of = {name: row for row, name in enumerate(classes)}
        for point in self.points:
            if point.label in row_of and first <= point.frame < stop:
                pointed[row_of[point.label], point.frame - first] = True
        return pointed


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotations:
    """What one or more label files say of the videos at hand, and what the user has to know of it."""

    format: str
    """Name of the importer."""
    classes: tuple[str, ...]
    """Names of labels, in the file's order; of point events too."""
    videos: tuple[VideoLabels, ...]
    background: str | None = None
    """The class that stands for nothing, where there is one."""
    missing: tuple[str, ...] = ()
    """Videos that the file names and that are not at hand."""
    remarks: tuple[Remark, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Choices:
    """What belongs to the user to decide; each has an option of `scivid data init`."""

    observations: tuple[str, ...] = ()
    """BORIS: which to take where several code one video; several are added up."""
    modifiers: bool = False
    """BORIS: whether a behaviour with its modifiers is a class of its own, `groom (head)`."""
    channel: str | None = None
    """MARS and Bento, CalMS21: which annotator or view."""
    tiers: tuple[str, ...] = ()
    """ELAN: the tiers that hold labels."""
    tier_is: Literal["subject", "class"] = "subject"
    """ELAN: whether a tier's name tells who, and its values what; or the name what."""
    unclosed: Literal["unknown", "end"] = "unknown"
    """What becomes of a state without a stop: unknown to the video's end, or a bout up to there."""
    uncoded: Literal["unknown", "nothing"] = "unknown"
    """What a video without an event is: not coded, or coded and nothing happened."""
    unit: Literal["seconds", "frames", "milliseconds"] | None = None
    """Interval tables, `.annot`: where the file does not tell."""
    first_frame: Literal[0, 1] | None = None
    """The number of a video's first frame, where the file does not tell."""
    last_included: bool | None = None
    """Whether a bout's last frame is part of it, where the file does not tell."""
    video: str | None = None
    """The video of a file that names none."""
    column: str | None = None
    """Tables of values: the column, where several hold numbers."""
    value_unit: str | None = None
    """Tables of values: their unit, where the heading does not tell it."""
    confidence: float = 0.6
    """Tracked points: what a point needs to be seen."""


def choices_of(*, last_included: str | None, **words: Any) -> Choices:
    """What the user decided, from the words of a command line.

    Args:
        last_included: `in` or `out`.
        words: the other fields of `Choices`.

    Raises:
        CallError: a word is none of those that its field knows.
    """
    known = {
        "tier_is": ("subject", "class"),
        "unclosed": ("unknown", "end"),
        "uncoded": ("unknown", "nothing"),
        "unit": ("seconds", "frames", "milliseconds"),
        "last_frame": ("in", "out"),
    }
    for key, value in {**words, "last_frame": last_included}.items():
        if value is not None and value not in known.get(key, (value,)):
            option = "--" + key.replace("_", "-")
            raise CallError(f"{option} {value!r} is none of {', '.join(known[key])}: say one of these.")
    return Choices(last_included=None if last_included is None else last_included == "in", **words)


@runtime_checkable
class Importer(Protocol):
    """What a module of `featcache.data.labels.formats` offers."""

    @staticmethod
    def recognises(path: Path, head: str) -> bool:
        """Whether a file is of this format, by its name and first characters."""
        ...

    @staticmethod
    def read(path: Path, videos: Videos, choices: Choices) -> Annotations:
        """What the file says.

        What is wrong with a row or a video is left out and stands in `remarks` as asked or refused.

        Raises:
            DataError: the whole file cannot be read as this format; names it and the way out.
        """
        ...


@runtime_checkable
class Writer(Protocol):
    """What a format that is also written offers beside."""

    @staticmethod
    def write(labels: Sequence[VideoLabels], classes: Sequence[str]) -> bytes:
        """A file that its program opens, and from which `read` gives the same bouts to the frame.

        Args:
            labels: of videos, each with bouts in the order of their starts.
            classes: names of labels, in the order they are to have.

        Raises:
            CallError: the format does not hold that.
        """
        ...
