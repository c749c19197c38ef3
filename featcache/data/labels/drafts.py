"""Rows of a label file put on the frames of the videos they name, and what is to be said of that.

An importer knows its format's words. Which video a name means, where a time falls, what lies past the end and
what rows a frame add up to is the same for all, and stands here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import Int8

from featcache.data.labels.base import UNKNOWN, YES, Annotations, Bout, Point, Unknown, VideoLabels
from featcache.data.labels.remarks import Remarks
from featcache.data.labels.timing import frame_at, same_rate, shown
from featcache.data.labels.videos import Video, Videos, meant_by
from featcache.errors import did_you_mean, few


@dataclass(slots=True)
class Draft:
    """What has been read of one video so far."""

    video: Video
    remarks: Remarks
    file: Path
    bouts: list[Bout] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    unknown: list[Unknown] = field(default_factory=list)
    split: str | None = None
    group: str = ""
    rows: int | None = None
    rate: Fraction | None = None

    def add_seconds(
        self,
        where: str,
        label: str,
        start: Fraction,
        stop: Fraction,
        *,
        subject: str = "",
        modifiers: tuple[str, ...] = (),
    ) -> None:
        """A bout from `start` to `stop`, in seconds of the video."""
        rate, end = self.video.rate, self.video.n_frames
        times = f"{label!r} from {shown(start)} to {shown(stop)} s"
        if stop < start:
            self.remarks.add(
                "backwards",
                where,
                f"{times} of {self.video.source} stops before it starts: correct the row, or leave it out.",
            )
            self.add_unknown(
                frame_at(stop, rate), frame_at(start, rate) + 1, "a row goes backwards", label=label
            )
        elif self._begins_before(where, times, start):
            self.add_unknown(0, frame_at(stop, rate), "a row begins before the video", label=label)
        elif stop == start:
            self.remarks.add(
                "zero_length",
                where,
                f"{times} of {self.video.source} has no length: it is kept as a point; a clip that holds it "
                "has its label.",
            )
            self.add_point(where, label, start, subject=subject, modifiers=modifiers)
        elif not self._begins_after_end(where, times, frame_at(start, rate)):
            if stop * rate - end >= Fraction(1, 2):
                self._say_cut(where, times)
            first, after = frame_at(start, rate), min(end, frame_at(stop, rate))
            if first == after:
                self.remarks.add(
                    "zero_length",
                    where,
                    f"{times} of {self.video.source} lies between two frames: it is kept as a point; a clip "
                    "that holds it has its label.",
                )
                self.add_point(where, label, start, subject=subject, modifiers=modifiers)
                return
            self.bouts.append(
                Bout(
                    label=label,
                    first=first,
                    stop=after,
                    subject=subject,
                    modifiers=modifiers,
                    seconds=(start, stop),
                )
            )

    def add_frames(self, where: str, label: str, first: int, stop: int, *, subject: str = "") -> None:
        """A bout of the frames `first` up to, not including, `stop`, counted from 0."""
        frames = f"{label!r}, frames {first} to {stop - 1} counted from 0,"
        if stop <= first or first < 0:
            self.remarks.add(
                "backwards",
                where,
                f"{frames} of {self.video.source} stops before it starts, or starts before the video: "
                "correct "
                "the row, or leave it out.",
            )
            self.add_unknown(stop, first + 1, "a row goes backwards", label=label)
        elif not self._begins_after_end(where, frames, first):
            if stop > self.video.n_frames:
                self._say_cut(where, frames)
            self.bouts.append(
                Bout(label=label, first=first, stop=min(self.video.n_frames, stop), subject=subject)
            )

    def add_point(
        self,
        where: str,
        label: str,
        seconds: Fraction,
        *,
        subject: str = "",
        modifiers: tuple[str, ...] = (),
    ) -> None:
        """An event at one time."""
        if self._begins_before(where, f"{label!r} at {shown(seconds)} s", seconds):
            return
        frame = frame_at(seconds, self.video.rate)
        # A key that is pressed on the last frame is noted when that ends.
        frame = min(frame, self.video.n_frames - 1) if frame <= self.video.n_frames else frame
        if not self._begins_after_end(where, f"{label!r} at {shown(seconds)} s", frame):
            self.points.append(
                Point(label=label, frame=frame, subject=subject, modifiers=modifiers, seconds=seconds)
            )

    def add_unknown(
        self, first: int, stop: int, reason: str, *, label: str | None = None, subject: str | None = None
    ) -> None:
        """Frames of which nothing is known, or not whether they are `label` of `subject`."""
        first, stop = max(0, first), min(stop, self.video.n_frames)
        if first < stop:
            self.unknown.append(Unknown(first=first, stop=stop, reason=reason, label=label, subject=subject))

    def add_rows(self, classes: Sequence[str], states: Int8[np.ndarray, "F K"]) -> bool:
        """One row a frame: YES, NO or UNKNOWN of each class. False where there are not as many as frames."""
        self.rows, n_frames = len(states), self.video.n_frames
        if len(states) != n_frames:
            self.add_unknown(0, n_frames, "its rows are not as many as its frames")
            self.remarks.add(
                "row_count",
                self.video.source,
                f"{len(states)} rows for {n_frames} frames: which row is which frame cannot be told. "
                "Label the "
                "video that was labelled (was it cut or converted since?), or leave it out.",
            )
            return False
        looked_at = ~(states == UNKNOWN).all(axis=1)
        for first, stop in _runs(~looked_at):
            self.add_unknown(first, stop, "not labelled")
        for column, label in enumerate(classes):
            for first, stop in _runs((states[:, column] == UNKNOWN) & looked_at):
                self.add_unknown(first, stop, "not labelled", label=label)
            self.bouts += [
                Bout(label=label, first=first, stop=stop) for first, stop in _runs(states[:, column] == YES)
            ]
        return True

    def check_rate(self, rate: Fraction) -> None:
        """Note the file's frames a second, and say where the video has others."""
        self.rate = rate
        if not same_rate(rate, self.video.rate):
            self.remarks.add(
                "rate",
                self.video.source,
                f"{shown(rate)} frames a second in the file, {shown(self.video.rate)} in the video: times of "
                "the file are taken as seconds of the video, numbers of frames as its frames.",
            )

    def check_length(self, seconds: Fraction) -> None:
        """Say where the file's length is not the video's."""
        if abs(seconds - self.video.seconds) > max(Fraction(1, 20), 1 / self.video.rate):
            self.remarks.add(
                "length",
                self.video.source,
                f"the file says that it is {shown(seconds)} s long, and it is {shown(self.video.seconds)} s: "
                "see that it is the video that was labelled.",
            )

    def _begins_before(self, where: str, what: str, start: Fraction) -> bool:
        if start * self.video.rate >= -1:
            return False
        self.remarks.add(
            "backwards",
            where,
            f"{what} begins before {self.video.source} does: is there a time offset? Correct the row, or "
            "leave it out.",
        )
        return True

    def _begins_after_end(self, where: str, what: str, frame: int) -> bool:
        if frame < self.video.n_frames:
            return False
        self.remarks.add(
            "after_end",
            where,
            f"{what} begins after the end of {self.video.source} ({shown(self.video.seconds)} s, "
            f"{self.video.n_frames} frames): is it another video, or is there a time offset? Correct the "
            "row, "
            "or leave it out.",
        )
        return True

    def _say_cut(self, where: str, what: str) -> None:
        self.remarks.add(
            "past_end",
            where,
            f"{what} ends past the end of {self.video.source} ({shown(self.video.seconds)} s, "
            f"{self.video.n_frames} frames): it is cut there.",
        )

    def done(self) -> VideoLabels:
        """What was read, in the order of frames."""
        return VideoLabels(
            video=self.video,
            bouts=tuple(sorted(self.bouts, key=lambda bout: (bout.first, bout.stop))),
            points=tuple(sorted(self.points, key=lambda point: point.frame)),
            unknown=tuple(self.unknown),
            split=self.split,
            group=self.group,
            rows=self.rows,
            rate=self.rate,
            file=self.file,
        )


class Drafts:
    """What has been read of one label file so far."""

    def __init__(self, path: Path, videos: Videos) -> None:
        self.remarks = Remarks(path)
        self._path, self._videos, self._beside = path, videos, videos.beside(path)
        self._drafts = dict[tuple[str, str | None], Draft]()
        self._missing = dict[str, None]()
        self._others = dict[str, tuple[str, tuple[str, ...]]]()

    def video_of(self, name: str, *, by_stem: bool = False) -> Video | None:
        """The one video that a name leads to, without a word; None where there is none, or several."""
        return self._videos.find(name, beside=self._beside, by_stem=by_stem).video

    def expect(self, names: Iterable[str], *, by_stem: bool = False, one_each: bool = False) -> None:
        """Look at names together, before `of`: two paths may lead to one video, and mean two.

        Args:
            names: those of a file, or of a part of it that does not name one video by two paths.
            by_stem: see `of`.
            one_each: whether it may be one video after all, where no path tells which is meant.
        """
        leading = dict[str, list[str]]()
        for name in dict.fromkeys(names):
            if (video := self.video_of(name, by_stem=by_stem)) is not None:
                leading.setdefault(video.source, []).append(name)
        for source, found in leading.items():
            meant, others = meant_by(source, found)
            rivals = () if meant else tuple(others)
            if rivals and one_each:
                continue
            self._others.update(dict.fromkeys(others, (source, rivals)))

    def of(
        self, name: str, where: str = "", *, split: str | None = None, by_stem: bool = False
    ) -> Draft | None:
        """The draft of the video that the file calls `name`; None, and a remark, where there is none.

        A video that stands in two splits has two drafts.
        """
        if name in self._others:
            self._say_other(name, where)
            return None
        match = self._videos.find(name, beside=self._beside, by_stem=by_stem)
        if match.how == "several":
            self.remarks.add(
                "several_videos",
                where,
                f"{name!r} may be {few(match.candidates)}: name the video by its path in the folder.",
            )
        elif match.video is None:
            self._missing[name] = None
            hint = did_you_mean(name, [video.source for video in self._videos])
            self.remarks.add("no_video", where, f"no video {name!r} is at hand: left out.{hint}")
        if match.video is None:
            return None
        source = match.video.source
        if match.how == "other_path":
            self.remarks.add("other_path", "", f"{name!r} is not a path here: taken for {source}.")
        elif match.how == "other_ending":
            self.remarks.add(
                "other_ending",
                "",
                f"{name!r} is not at hand: its labels are taken for those of {source}, which has its name. "
                "See that it has the same frames.",
            )
        return self.of_video(match.video, split)

    def _say_other(self, name: str, where: str) -> None:
        source, rivals = self._others[name]
        if rivals:
            self.remarks.add(
                "several_videos",
                "",
                f"{few([repr(rival) for rival in rivals])} are several videos, and {source} is the only one "
                "with such a name: put it into a folder as the file has it.",
            )
        else:
            self._missing[name] = None
            self.remarks.add(
                "no_video", where, f"no video {name!r} is at hand ({source} is another one): left out."
            )

    def of_video(self, video: Video, split: str | None = None) -> Draft:
        """The draft of a video at hand."""
        key = (video.source, split)
        if key not in self._drafts:
            self._drafts[key] = Draft(video=video, remarks=self.remarks, file=self._path, split=split)
        return self._drafts[key]

    def annotations(self, form: str, classes: Sequence[str], *, background: str | None = None) -> Annotations:
        """All of it."""
        found = [draft.done() for draft in self._drafts.values()]
        used = [event.label for labels in found for event in labels.events]
        return Annotations(
            format=form,
            classes=tuple(dict.fromkeys((*classes, *used))),
            videos=tuple(found),
            background=background,
            missing=tuple(self._missing),
            remarks=self.remarks.all,
        )


def _runs(holds: np.ndarray) -> list[tuple[int, int]]:
    """First and stop of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], holds, [False])).astype(np.int8)))
    return [(int(first), int(stop)) for first, stop in edges.reshape(-1, 2)]
