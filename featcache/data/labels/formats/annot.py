"""Labels of MARS and Bento, `.annot`: lines of text, channel by channel and class by class.

Whether rows are seconds or frames is a property of the file, not of a row: `6  8  2` may stand among seconds.
Frames include the stop where durations say so. Source: the lines that Bento's and MARS's writers print.
Written are frames from 0 with their durations, as MARS does: they are read the same by any rule.

Its elder, the Caltech Behavior Annotator's `.txt`, has streams instead of channels, a label in each row,
frames that count from 1 with the last one included, and the class `other` for nothing.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from featcache.data.labels.base import Annotations, Choices, VideoLabels
from featcache.data.labels.drafts import Draft, Drafts
from featcache.data.labels.formats import CHANNEL
from featcache.data.labels.remarks import Remarks
from featcache.data.labels.tables import read_text
from featcache.data.labels.timing import frame_at, is_whole, parse_number
from featcache.data.labels.videos import ENDINGS, Videos
from featcache.errors import CallError, DataError, few

_MOVIE = re.compile(
    rf"\S.*?(?:{'|'.join(re.escape(end) for end in sorted(ENDINGS))})(?=\s|,|;|$)", re.IGNORECASE
)
_CHANNEL = re.compile(r"^(\S*?[^-\s].*?)-{5,}\s*$")
_STREAM = re.compile(r"^\s*(S\d+):")
_ELDER = "Caltech Behavior"
_NOTHING = "other"


@dataclass(frozen=True, slots=True)
class _Row:
    number: int
    label: str
    start: Fraction
    stop: Fraction
    duration: Fraction | None


@dataclass(slots=True)
class _File:
    movies: list[str] = field(default_factory=list)
    heading: dict[str, str] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    channels: dict[str, list[_Row]] = field(default_factory=dict)
    is_elder: bool = False
    """Whether the Caltech Behavior Annotator wrote it."""

    @property
    def rows(self) -> list[_Row]:
        """Those of all channels."""
        return [row for rows in self.channels.values() for row in rows]


def recognises(path: Path, head: str) -> bool:
    """By its ending or first line."""
    return path.suffix.lower() == ".annot" or head.lstrip().startswith(("Bento annotation", _ELDER))


def read(path: Path, videos: Videos, choices: Choices) -> Annotations:
    """See `Importer.read`."""
    drafts = Drafts(path, videos)
    file = _parse(path, drafts.remarks)
    if not file.channels:
        raise DataError(f"{path} has no channel: a line as `Ch1----------` and rows below it. Save it again.")
    draft = _video(file, path, drafts, videos, choices)
    if draft is not None:
        rate = parse_number(file.heading.get("annotation framerate", ""))
        if rate:
            draft.check_rate(rate)
        rows = _channel(file, drafts.remarks, choices)
        in_frames = _in_frames(file, draft, choices)
        if in_frames is None:
            draft.add_unknown(0, draft.video.n_frames, "seconds or frames cannot be told")
        else:
            _heading_range(file, draft)
            if in_frames:
                _add_frames(rows, draft, choices, is_elder=file.is_elder)
            else:
                _add_seconds(rows, draft)
    background = _NOTHING if file.is_elder and _NOTHING in file.classes else None
    return drafts.annotations("annot", file.classes, background=background)


def write(labels: Sequence[VideoLabels], classes: Sequence[str]) -> bytes:
    """See `Writer.write`; a file is of one video."""
    if len(labels) != 1:
        raise CallError(f"an .annot file is of one video, and there are {len(labels)}: write one of each.")
    (of_video,) = labels
    video = of_video.video
    lines = [
        "Bento annotation file", f"Movie file(s): {video.source}", "", "Stimulus name: ",
        "Annotation start frame: 1", f"Annotation stop frame: {video.n_frames}",
        f"Annotation framerate: {float(video.rate):.6f}", "",
        "List of channels:", CHANNEL, "", "List of annotations:", *classes, "", f"{CHANNEL}----------",
    ]  # fmt: skip
    for label in classes:
        bouts = [bout for bout in of_video.bouts if bout.label == label]
        rows = (f"{bout.first}\t{bout.stop - 1}\t{bout.stop - bout.first}" for bout in bouts)
        lines += [f">{label}", "Start\tStop\tDuration", *rows, ""]
    # Bento in MATLAB looks for two empty lines at the end.
    return "\n".join([*lines, "", ""]).encode()


def _parse(path: Path, remarks: Remarks) -> _File:
    text, _ = read_text(path)
    file, part, channel, label = _File(is_elder=text.lstrip().startswith(_ELDER)), "", "", ""
    for number, line in enumerate(text.splitlines(), 1):
        words = line.strip()
        if not words:
            part = part if part == "rows" else ""
        elif match := _STREAM.match(line) if file.is_elder else _CHANNEL.match(line):
            part, channel, label = "rows", match[1].strip(), ""
            file.channels.setdefault(channel, [])
        elif part == "rows":
            if words.startswith(">"):
                label = words[1:].strip()
            elif words.strip("-") and not words.lower().startswith("start"):
                _take_row(file.channels[channel], number, label, words.split(), remarks)
        elif words.lower().startswith("movie file"):
            part = "movies"
            file.movies += _MOVIE.findall(words.partition(":")[2])
        elif words.lower().startswith("list of channels"):
            part = "channels"
        elif words.lower().startswith(("list of annotations", "configuration file")):
            part = "classes"
        elif part == "movies" and ":" not in words[2:]:
            file.movies += _MOVIE.findall(words)
        elif part == "classes":
            file.classes.append(words.split()[0] if file.is_elder else words)
        elif ":" in words:
            key, _, value = words.partition(":")
            file.heading[key.strip().lower()] = value.strip()
    return file


def _take_row(rows: list[_Row], number: int, label: str, cells: Sequence[str], remarks: Remarks) -> None:
    values = [parse_number(cell) for cell in cells[:3]]
    label = label or " ".join(cells[2:])
    if len(values) < 2 or values[0] is None or values[1] is None or not label:
        remarks.add("no_time", f"line {number}", f"{' '.join(cells)!r} is no start and stop: correct it.")
        return
    rows.append(_Row(number, label, values[0], values[1], values[2] if len(values) > 2 else None))


def _video(file: _File, path: Path, drafts: Drafts, videos: Videos, choices: Choices) -> Draft | None:
    """The video at hand, of several that show one time."""
    names = [choices.video] if choices.video else file.movies or [path.stem]
    found = [name for name in names if videos.find(name, beside=videos.beside(path)).how != "none"]
    if found and len(names) > 1:
        others = few([name for name in names if name != found[0]])
        drafts.remarks.add("views", "", f"{found[0]} is taken of the movies it names; {others} left out.")
    return drafts.of((found or names)[0])


def _channel(file: _File, remarks: Remarks, choices: Choices) -> list[_Row]:
    names = list(file.channels)
    chosen = choices.channel if choices.channel in names else names[0]
    others = [name for name in names if name != chosen and file.channels[name]]
    if others:
        remarks.add(
            "channels",
            "",
            f"channel {chosen!r} is taken, {few(map(repr, others))} left out: annotators or views are not "
            "added "
            f"up; choose with --channel {others[0]}.",
        )
    return file.channels[chosen]


def _in_frames(file: _File, draft: Draft, choices: Choices) -> bool | None:
    """Whether the file counts frames; None, and a question, where it does not tell."""
    times = [time for row in file.rows for time in (row.start, row.stop)]
    if not all(map(is_whole, times)):
        return False
    if choices.unit is not None:
        return choices.unit == "frames"
    if file.is_elder:
        return True
    if any(row.duration == row.stop - row.start + 1 for row in file.rows):
        return True
    if not times or max(times) > draft.video.seconds + 1:
        return True
    draft.remarks.add(
        "unit",
        draft.video.source,
        "all its times are whole numbers that may be seconds or frames: say --unit seconds, or --unit "
        "frames.",
    )
    return None


def _heading_range(file: _File, draft: Draft) -> None:
    """What the heading says was not annotated."""
    first, stop = (parse_number(file.heading.get(f"annotation {end} frame", "")) for end in ("start", "stop"))
    if first is not None and first > 1:
        draft.add_unknown(0, int(first) - 1, "before the first annotated frame")
    if stop is not None and not is_whole(stop):
        # Bento takes it for a time then.
        stop = Fraction(frame_at(stop, draft.video.rate))
    if stop is not None and 0 < stop < draft.video.n_frames - 1:
        draft.add_unknown(int(stop), draft.video.n_frames, "after the last annotated frame")
    if draft.unknown:
        spans = " and ".join(f"{span.first} to {span.stop - 1}" for span in draft.unknown)
        draft.remarks.add(
            "unlabelled",
            draft.video.source,
            f"frames {spans} lie outside the annotated range of the heading: they make no clip.",
        )


def _add_seconds(rows: Sequence[_Row], draft: Draft) -> None:
    for row in rows:
        draft.add_seconds(f"line {row.number}", row.label, row.start, row.stop)


def _add_frames(rows: Sequence[_Row], draft: Draft, choices: Choices, *, is_elder: bool) -> None:
    if is_elder:
        choices = replace(
            choices,
            first_frame=1 if choices.first_frame is None else choices.first_frame,
            last_included=choices.last_included is not False,
        )
        draft.remarks.add(
            "last_frame", "", "frames count from 1 and include the last, as its program has it."
        )
    included = _is_stop_included(rows, draft.remarks, choices)
    zero = _first_frame(rows, draft, choices)
    for row in rows:
        stop = int(row.stop) + (1 if included else 0)
        draft.add_frames(f"line {row.number}", row.label, int(row.start) - zero, stop - zero)


def _is_stop_included(rows: Sequence[_Row], remarks: Remarks, choices: Choices) -> bool:
    if choices.last_included is not None:
        return choices.last_included
    lengths = [row.duration - (row.stop - row.start) for row in rows if row.duration is not None]
    in_order = sorted(rows, key=lambda row: row.start)
    follows = any(after.start == before.stop for before, after in pairwise(in_order))
    included = bool(lengths) and lengths.count(Fraction(1)) * 2 > len(lengths)
    if not lengths:
        included = not follows
    how = "durations are stop - start + 1" if included and lengths else "by durations and rows that follow"
    remarks.add(
        "last_frame", "", f"the stop's frame is {'part of' if included else 'behind'} its bout ({how})."
    )
    return included


def _first_frame(rows: Sequence[_Row], draft: Draft, choices: Choices) -> int:
    """The number of the video's first frame."""
    if choices.first_frame is not None:
        return choices.first_frame
    numbers = [number for row in rows for number in (row.start, row.stop)]
    n_frames = draft.video.n_frames
    zero = 1 if numbers and min(numbers) >= 1 and max(numbers) == n_frames else 0
    known = bool(numbers) and (min(numbers) == 0 or zero == 1)
    how = "rows show it" if known else "rows do not tell; --first-frame 1 says otherwise"
    draft.remarks.add("counting", draft.video.source, f"frames are counted from {zero}: {how}.")
    return zero
