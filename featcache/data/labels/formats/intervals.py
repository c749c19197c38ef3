"""Tables of intervals, a row a bout: a video, a start, a stop, a label, and who where there is a column.

Written by hand and by scripts: names of columns, units, the decimal mark and whether the last frame is part
of a row are found in the file where it shows them, and asked where it does not.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Literal

from featcache.data.labels.base import Annotations, Choices
from featcache.data.labels.drafts import Drafts
from featcache.data.labels.formats.folders import SPLITS
from featcache.data.labels.formats.metadata import FILE, GROUP, LABEL, SPLIT
from featcache.data.labels.remarks import Remarks
from featcache.data.labels.tables import Columns, read_rows
from featcache.data.labels.timing import is_whole, parse_time, shown
from featcache.data.labels.videos import Videos
from featcache.errors import DataError

_VIDEO = ("video", *FILE, "file", "video_id", "video_name", "media", "movie", "clip", "recording")
_NAME = (
    *LABEL,
    "label_name",
    "class_name",
    "behavior_name",
    "behaviour_name",
    "trial_type",
    "event",
    "annotation",
    "state",
    "name",
    "value",
)
_WHO = ("subject", "animal", "animal_id", "agent", "agent_id", "individual", "mouse", "fly", "tier", *GROUP)
_BEGIN = ("start", "begin", "onset", "first", "from", "t_start", "t0")
_LENGTH = ("duration", "dur", "length")
_END = ("stop", "end", "offset", "last", "to", "t_stop", "t_end", "t1")
_UNITS: dict[str, Literal["seconds", "frames", "milliseconds"]] = {
    "frame": "frames", "frames": "frames", "idx": "frames", "index": "frames",
    "s": "seconds", "sec": "seconds", "secs": "seconds", "second": "seconds", "seconds": "seconds",
    "time": "seconds", "timestamp": "seconds", "hh": "seconds", "mm": "seconds", "ss": "seconds",
    "ms": "milliseconds", "msec": "milliseconds", "millisecond": "milliseconds",
    "milliseconds": "milliseconds",
}  # fmt: skip
Unit = Literal["seconds", "frames", "milliseconds"]


@dataclass(frozen=True, slots=True)
class _Times:
    """The columns of start and stop, and the unit in their names."""

    start: str
    stop: str
    unit: Unit | None
    is_length: bool = False
    """Whether `stop` holds how long a row is, not where it ends."""


@dataclass(frozen=True, slots=True)
class _Row:
    number: int
    video: str
    start: Fraction
    stop: Fraction
    label: str
    subject: str
    split: str | None

    @property
    def where(self) -> str:
        return f"row {self.number}"


def recognises(path: Path, head: str) -> bool:
    """By columns of a start, a stop and a label."""
    if path.suffix.lower() not in (".csv", ".tsv", ".txt"):
        return False
    first = next((line for line in head.splitlines() if line.strip()), "")
    columns = Columns([cell.strip().strip('"') for cell in re.split(r"[,;\t]", first)])
    # With tiers and without a video's name it is an export of ELAN, which asks what a tier is.
    is_of_tiers = columns.find("tier") is not None and columns.find(*_VIDEO) is None
    return not is_of_tiers and _times(columns) is not None and columns.find(*_NAME) is not None


def read(path: Path, videos: Videos, choices: Choices) -> Annotations:
    """See `Importer.read`."""
    table, form = read_rows(path)
    columns = Columns(table[0][1] if table else ())
    times = _times(columns)
    if times is None or columns.find(*_NAME) is None:
        raise DataError(
            f"{path}, row 1: name columns video, start, stop and label (start_frame, stop_frame)."
        )
    if columns.find(*_VIDEO) is None and choices.video is None:
        raise DataError(f"{path}, row 1: no column names the video; add one, or say --video NAME.")
    drafts = Drafts(path, videos)
    if form:
        drafts.remarks.add("table", "", form)
    n_empty = table[-1][0] - table[0][0] + 1 - len(table)
    if n_empty:
        drafts.remarks.add("empty_rows", "", f"{n_empty} empty rows left out.")
    texts = [columns.cell(cells, name) for _, cells in table[1:] for name in (times.start, times.stop)]
    rows = _rows(table[1:], columns, times, choices, drafts.remarks)
    unit = choices.unit or times.unit or _unit(texts, rows, path, drafts.remarks)
    if unit is not None:
        _place(rows, unit, times, drafts, choices)
    return drafts.annotations("intervals", sorted({row.label for row in rows}))


def _times(columns: Columns) -> _Times | None:
    """By names as start, start_frame, Start (s), begin_time, first_frame, frame_start, StartTime.

    Of several columns of starts and stops a pair of one unit is taken, the first of them.
    """
    found = dict[str, list[tuple[str, Unit | None]]]()
    for name in columns.names:
        apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).casefold()
        words = [word for word in re.split(r"[^a-z0-9]+", apart) if word]
        for end, known in (("start", _BEGIN), ("stop", _END), ("length", _LENGTH)):
            if set(words) & set(known) and not set(words) - {*known, *_UNITS, "t"}:
                unit = next((_UNITS[word] for word in reversed(words) if word in _UNITS), None)
                found.setdefault(end, []).append((name, unit))
    ends = [(column, False) for column in found.get("stop", [])]
    ends = ends or [(column, True) for column in found.get("length", [])]
    pairs = [
        _Times(start, stop, unit or other, is_length)
        for start, unit in found.get("start", [])
        for (stop, other), is_length in ends
        if unit == other or None in (unit, other)
    ]
    same = [times for times in pairs if dict(found["start"])[times.start] == times.unit]
    return next(iter(same or pairs), None)


def _rows(
    table: Sequence[tuple[int, tuple[str, ...]]],
    columns: Columns,
    times: _Times,
    choices: Choices,
    remarks: Remarks,
) -> list[_Row]:
    """Rows that have a start, a stop and a label."""
    rows = list[_Row]()
    spelled = _spelled([columns.cell(cells, *_NAME) for _, cells in table], remarks)
    for number, cells in table:
        start, stop = (parse_time(columns.cell(cells, name)) for name in (times.start, times.stop))
        label = spelled.get(columns.cell(cells, *_NAME), "")
        video = choices.video or columns.cell(cells, *_VIDEO)
        if start is None or stop is None:
            missing = times.start if start is None else times.stop
            remarks.add(
                "no_time",
                f"row {number}",
                f"{missing} {columns.cell(cells, missing)!r} is no time: correct it.",
            )
        elif not label:
            remarks.add("empty_label", f"row {number}", "no label: the row is left out.")
        else:
            rows.append(
                _Row(
                    number,
                    video,
                    start,
                    start + stop if times.is_length else stop,
                    label,
                    columns.cell(cells, *_WHO),
                    SPLITS.get(columns.cell(cells, *SPLIT).casefold()),
                )
            )
    return rows


def _spelled(labels: Sequence[str], remarks: Remarks) -> dict[str, str]:
    """Each label as it is taken: one name for those that differ by case alone."""
    counts = Counter(label for label in labels if label)
    spelled = {name: name for name in counts}
    for name in counts:
        same = sorted((other for other in counts if other.casefold() == name.casefold()), key=str.swapcase)
        others = [other for other in counts if other not in same]
        stray = name == name.capitalize() and len(others) > 0 and all(o == o.lower() for o in others)
        taken = same[0] if len(same) > 1 else name.lower() if stray else name
        if taken != name:
            rest = "others have no capital" if len(same) == 1 else "it is written both ways"
            remarks.add("case", "", f"label {name!r} is taken as {taken!r}: {rest}.")
            spelled[name] = taken
    return spelled


def _unit(texts: Sequence[str], rows: Sequence[_Row], path: Path, remarks: Remarks) -> Unit | None:
    if any(":" in text for text in texts) or not all(
        is_whole(t) for row in rows for t in (row.start, row.stop)
    ):
        return "seconds"
    if any(re.search(r"[.,]\d", text) for text in texts):
        return "seconds"
    remarks.add(
        "unit",
        "",
        f"all times of {path.name} are whole numbers, and no column says of what: say --unit frames, --unit "
        "seconds or --unit milliseconds.",
    )
    return None


def _place(rows: Sequence[_Row], unit: Unit, times: _Times, drafts: Drafts, choices: Choices) -> None:
    zero = included = 0
    if unit == "frames":
        found = _is_last_included(rows, times, drafts.remarks, choices)
        if found is None:
            return
        included, zero = int(found), _first_frame(rows, drafts.remarks, choices)
    drafts.expect((row.video for row in rows), by_stem=True)
    for row in rows:
        draft = drafts.of(row.video, row.where, split=row.split, by_stem=True)
        if draft is None:
            continue
        if unit == "frames" and not (is_whole(row.start) and is_whole(row.stop)):
            drafts.remarks.add(
                "no_time",
                row.where,
                f"{shown(row.start)} to {shown(row.stop)} are no whole frames: correct it.",
            )
        elif unit == "frames":
            first, stop = int(row.start) - zero, int(row.stop) - zero + included
            draft.add_frames(row.where, row.label, first, stop, subject=row.subject)
        else:
            scale = Fraction(1, 1000) if unit == "milliseconds" else Fraction(1)
            draft.add_seconds(row.where, row.label, row.start * scale, row.stop * scale, subject=row.subject)


def _is_last_included(rows: Sequence[_Row], times: _Times, remarks: Remarks, choices: Choices) -> bool | None:
    """Whether a row's stop is its last frame: by what was chosen, the column's name, rows that follow."""
    if choices.last_included is not None:
        return choices.last_included
    if times.is_length:
        return False
    if "last" in times.stop.casefold():
        return True
    in_order = sorted(rows, key=lambda row: (row.video, row.subject, row.start))
    pairs = [(a, b) for a, b in pairwise(in_order) if (a.video, a.subject) == (b.video, b.subject)]
    n_next = sum(b.start == a.stop + 1 for a, b in pairs)
    n_same = sum(b.start == a.stop for a, b in pairs)
    n_single = sum(row.start == row.stop for row in rows)
    included = n_next + n_single > n_same
    if not n_next + n_same + n_single:
        remarks.add(
            "last_frame_open",
            "",
            f"whether the frame under {times.stop!r} is part of its row cannot be told: say --last-frame "
            "in, or "
            "--last-frame out.",
        )
        return None
    how = (
        f"{n_next} rows start one after the last ends and {n_single} are of one frame"
        if included
        else f"{n_same} rows start where the last ends"
    )
    remarks.add(
        "last_frame", "", f"the stop's frame is {'part of' if included else 'behind'} its row: {how}."
    )
    return included


def _first_frame(rows: Sequence[_Row], remarks: Remarks, choices: Choices) -> int:
    if choices.first_frame is not None:
        return choices.first_frame
    if any(row.start == 0 for row in rows):
        remarks.add("counting", "", "frames are counted from 0: a row starts there.")
    else:
        remarks.add(
            "counting",
            "",
            "frames are taken as counted from 0; no row tells, --first-frame 1 says otherwise.",
        )
    return 0
