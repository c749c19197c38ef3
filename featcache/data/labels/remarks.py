"""What a user has to know of a label file: said, asked or refused, each with its place in the file.

`KINDS` is the table of all kinds. A kind is *said* where the file can be taken, *asked* where a choice
belongs to the user (the message names the option), *refused* where the file does not tell what it means;
what is asked or refused is left out, and whoever reads the file stops unless told to go on without.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Weight = Literal["say", "ask", "refuse"]

KINDS: Mapping[str, tuple[Weight, str]] = {
    # time
    "rate": ("say", "the file's frames a second are not the video's"),
    "no_rate": ("say", "the file holds no rate and counts frames"),
    "length": ("say", "the file's length of a video is not the video's"),
    "offset": ("say", "a time offset is inside the stored times, and was subtracted"),
    "past_end": ("say", "a bout ends past the video, and was cut there"),
    "after_end": ("refuse", "a bout or point begins past the video's end"),
    "backwards": ("refuse", "a stop lies before its start, or a start before the video"),
    "zero_length": ("say", "a bout that shows no frame, taken as a point"),
    "no_time": ("refuse", "a time cannot be read"),
    "unit": ("ask", "seconds or frames cannot be told"),
    "counting": ("say", "the number of the first frame cannot be told"),
    "last_frame": ("say", "whether the last frame is part of a bout, and how that is known"),
    "last_frame_open": ("ask", "whether the last frame is part of a bout cannot be told"),
    "uneven": ("say", "a video's frames do not come at an even rate"),
    # unknown is not negative
    "unlabelled": ("say", "frames that nobody looked at make no clip"),
    "all_zero": ("say", "frames of nothing but zeros are taken as background"),
    "unclosed": ("say", "a state without a stop"),
    "nothing_coded": ("say", "a video without an event"),
    "no_labels": ("say", "a video of a split without labels"),
    "empty_label": ("say", "a row without a label"),
    "labelled_nothing": ("say", "a video whose list of labels is empty is labelled as nothing"),
    "no_track": ("say", "frames without a track make no clip"),
    "closed_by_program": ("say", "stops that the annotation program added"),
    # who and what
    "observers": ("ask", "several observations code one video"),
    "subjects": ("say", "several subjects: a frame has the labels of all"),
    "channels": ("say", "several channels, of which one is taken"),
    "tiers": ("ask", "which tiers hold labels"),
    "tier_left": ("say", "a tier that is not taken"),
    "views": ("say", "several files of one time, of which one is taken"),
    "points": ("say", "events without a length: clips that hold one have its label"),
    "modifiers": ("say", "modifiers are kept and make no classes of their own"),
    "numbers": ("say", "classes have numbers and no names"),
    "case": ("say", "a label was taken in another case"),
    "unknown_class": ("refuse", "a label that the file does not list"),
    "live": ("say", "an observation that is not of a video"),
    "from_boris": ("say", "a FERAL file as BORIS's plugin writes it"),
    # counts
    "row_count": ("refuse", "rows are not as many as frames"),
    "bad_value": ("refuse", "a value that is none of the format's"),
    "rare": ("say", "a class of one frame"),
    "one_class": ("say", "a video or split of one class"),
    "class_missing": ("say", "a class that a split lacks"),
    "empty_class": ("say", "a class without a bout or point"),
    # leaks
    "leak": ("say", "a video in two splits"),
    "group_leak": ("say", "an animal in two splits"),
    "labelled_twice": ("ask", "two files label one video"),
    "disagree": ("say", "two files label one video, and differ"),
    # files
    "no_video": ("say", "a video that is named and not at hand"),
    "several_videos": ("ask", "several videos have the name"),
    "other_path": ("say", "a path of another machine"),
    "other_ending": ("say", "the named video is not at hand; one of the same stem is"),
    "which_video": ("ask", "the file names no video"),
    "guessed_video": ("say", "the file names no video; one has its name"),
    "unlisted": ("say", "a video that no file labels"),
    "not_video": ("say", "a file that is no video"),
    "outside": ("refuse", "points lie far outside the picture"),
    "benchmark": ("say", "what is not public of how the benchmark's clips were made"),
    "empty_rows": ("say", "rows without a cell"),
    "table": ("say", "how a table was read"),
    "unreadable": ("refuse", "a file of the folder that cannot be read as what it looks like"),
    "left_out": ("say", "a file of the folder that is not needed beside a better one"),
}
"""Kind -> how it weighs, and what it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Remark:
    """One thing that the user has to know."""

    kind: str
    weight: Weight
    file: str
    where: str
    """Row, observation or video; empty for the whole file."""
    text: str

    def __str__(self) -> str:
        return f"{self.file}{', ' if self.where else ''}{self.where}: {self.text}"


class Remarks:
    """Remarks on one file, as they come up."""

    def __init__(self, path: Path) -> None:
        self._file = path.name
        self._all = dict[Remark, None]()

    def add(self, kind: str, where: str, text: str, *, weight: Weight | None = None) -> None:
        """Note something at a place, once; it weighs as its kind does, unless said otherwise."""
        weight = weight or KINDS[kind][0]
        self._all[Remark(kind=kind, weight=weight, file=self._file, where=where, text=text)] = None

    @property
    def all(self) -> tuple[Remark, ...]:
        """In the order in which they came up."""
        return tuple(self._all)


def refused(remarks: Sequence[Remark]) -> list[str]:
    """As lines, those that are asked or refused."""
    return [f"{remark.weight}: {remark}" for remark in remarks if remark.weight != "say"]


def told(remarks: Sequence[Remark]) -> list[str]:
    """As lines, each whole; of paths of another machine, which are one like the next, the first of a file."""
    alike = Counter(remark.file for remark in remarks if remark.kind == "other_path")
    lines, seen = list[str](), set[str]()
    for remark in remarks:
        if remark.kind != "other_path":
            lines.append(str(remark))
        elif remark.file not in seen:
            seen.add(remark.file)
            more = alike[remark.file] - 1
            line = str(remark)
            lines.append(f"{line.removesuffix('.')}, and so on for {more} more." if more else line)
    return lines
