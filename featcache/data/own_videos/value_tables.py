"""Tables of values: a row a video, or a row a frame or time of one, and a column of numbers.

    video,frame,speed (mm/s)          video,weight_g
    arena_01.mp4,0,3.25               arena_01.mp4,21.4
    arena_01.mp4,1,                   arena_02.mp4,

An empty cell is unknown, never 0. Rows are read one after the other: ten hours take a number a frame.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from featcache.data.labels import Choices, Videos
from featcache.data.labels.drafts import Draft, Drafts
from featcache.data.labels.formats.folders import SPLITS
from featcache.data.labels.formats.metadata import FILE, GROUP, LABEL, SPLIT
from featcache.data.labels.remarks import Remark
from featcache.data.labels.tables import Columns, separator_of
from featcache.data.labels.timing import parse_time
from featcache.data.own_videos.base import Measured, Measurements
from featcache.data.readers.video.table_text import ENCODINGS, SAID, decode_text
from featcache.errors import DataError, few
from featcache.system.files import open_regular

_VIDEO = ("video", *FILE, "file", "video_id", "video_name", "media", "movie", "recording", "clip")
_FRAME = ("frame", "frames", "frame_number", "frame_idx", "frame_index", "frame_id", "idx", "index")
_TIME = {
    "time": 1.0, "seconds": 1.0, "second": 1.0, "sec": 1.0, "time_s": 1.0, "time_sec": 1.0, "t": 1.0,
    "s": 1.0, "timestamp": 1.0, "time (s)": 1.0, "time [s]": 1.0, "milliseconds": 1e-3, "ms": 1e-3,
    "time_ms": 1e-3, "time (ms)": 1e-3,
}  # fmt: skip
"""Name of a column of times -> seconds of its unit."""
_OTHERS = ("start", "stop", "end", "onset", "offset", "duration", "begin", "coords", "bodyparts", "scorer")
"""Columns of tables of bouts and poses."""
_UNKNOWN = frozenset({"", "nan", "na", "n/a", "null", "none", "-", ".", "missing", "#n/a"})
_HEAD = 1 << 16
_SLACK = 1e-4
"""Of a frame: what arithmetic may have taken from a time that falls on one."""


def recognises(path: Path, head: str) -> bool:
    """By a column of videos, frames or times, no label, and a column of numbers."""
    if path.suffix.lower() not in (".csv", ".tsv", ".txt") or not head.strip():
        return False
    lines = [line for line in head.splitlines() if line.strip()]
    cells = list(csv.reader(lines[:40], delimiter=separator_of(head)))
    columns = Columns([cell.strip() for cell in cells[0]])
    words = {word for name in columns.names for word in re.split(r"[^a-z]+", name.casefold())}
    if columns.find(*LABEL) or words & {*_OTHERS, "region", "behavior", "behaviour"}:
        return False
    timed = columns.find(*_FRAME, *_TIME) is not None
    if not (timed or columns.find(*_VIDEO)):
        return False
    # The last line may be cut.
    numbers = _numeric(columns, cells[1:-1] or cells[1:])
    states = all(value in (-1.0, 0.0, 1.0) for found in numbers.values() for value in found)
    return bool(numbers) and (columns.find(*_VIDEO) is not None or not states)


def read(paths: Sequence[Path], videos: Videos, choices: Choices) -> Measurements:
    """See `Measures.read`."""
    tables = [_Table.of(path, videos, choices) for path in paths]
    if len({(table.quantity, table.timed) for table in tables}) > 1:
        which = few([f"{table.path.name}: {table.quantity}" for table in tables])
        raise DataError(f"tables of different values cannot be one task ({which}): give those of one.")
    measured, remarks = dict[str, Measured](), list[Remark]()
    for table in tables:
        for one in table.measured(choices):
            if one.video.source in measured:
                table.drafts.remarks.add(
                    "labelled_twice",
                    one.video.source,
                    "another table has it too: give one of them.",
                )
            measured.setdefault(one.video.source, one)
        remarks += table.drafts.remarks.all
    unlisted = [video.source for video in videos if video.source not in measured]
    first = tables[0]
    unit, each = f" in {first.unit}" if first.unit else "", "one a frame" if first.timed else "one a video"
    files = few([path.name for path in paths], 3)
    said = [f"values: {first.quantity}{unit}, {each}, {first.column!r} of {files}; empty cells are unknown"]
    if unlisted:
        said.append(f"no value of {few(unlisted)}: no clip is made of them")
    if not first.unit:
        said.append("their unit is not in the heading: --value-unit says it, for tables and figures")
    return Measurements(
        format="values",
        kind="regression",
        features={"series": first.quantity},
        videos=tuple(measured.values()),
        needs="any",
        unit=first.unit,
        said=tuple(said),
        remarks=tuple(remarks),
    )


@dataclass(slots=True)
class _Rows:
    """What stands of one video: places (frames, or seconds) and values."""

    draft: Draft
    places: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


@dataclass(slots=True)
class _Marks:
    """Numbers with a comma and with a point: one of them may be the mark of thousands."""

    comma: str = ""
    point: str = ""
    thousands: bool = True
    """Whether all commas may be such."""

    def look(self, text: str) -> None:
        """Note a cell."""
        if "," in text:
            self.comma = text
            self.thousands &= re.fullmatch(r"[-+]?[1-9]\d{0,2},\d{3}", text) is not None
        elif "." in text and _value(text) == _value(text):
            self.point = text

    def check(self, path: Path, column: str, *, is_between_cells: bool) -> None:
        """Refuse numbers that can be read in two ways.

        Args:
            path: of the table.
            column: of the numbers.
            is_between_cells: whether commas stand between cells, as where points are decimal.
        """
        two = f"{self.comma!r} and {self.point!r}" if self.point else f"{self.comma!r} alone"
        if self.comma and (self.point or (is_between_cells and self.thousands)):
            raise DataError(
                f"{path}, column {column!r}: {two} do not tell which mark is decimal. Write thousands "
                "without a mark."
            )


@dataclass(frozen=True, slots=True)
class _Table:
    path: Path
    drafts: Drafts
    rows: dict[str, _Rows]
    column: str
    quantity: str
    unit: str
    timed: bool
    seconds: float | None
    """Of the unit of its times; None where it counts frames, or is of whole videos."""

    @classmethod
    def of(cls, path: Path, videos: Videos, choices: Choices) -> "_Table":
        drafts = Drafts(path, videos)
        head = _head(path)
        lines = _lines(path, *head, drafts)
        columns = Columns(next(lines, (0, []))[1])
        column = _column(path, columns, head[0], choices.column)
        of_frame, of_time = columns.find(*_FRAME), columns.find(*_TIME)
        place = of_frame or of_time
        quantity, unit = _named(column)
        table = cls(
            path=path,
            drafts=drafts,
            rows={},
            column=column,
            quantity=quantity,
            unit=choices.value_unit or unit,
            timed=place is not None,
            seconds=None if of_frame or of_time is None else _TIME[of_time.casefold()],
        )
        drafted = dict[tuple[str, str | None], Draft | None]()
        drafts.expect(
            (columns.cell(cells, *_VIDEO) for _, cells in _lines(path, *head, drafts)), by_stem=True
        )
        marks = _Marks()
        for number, cells in lines:
            name = columns.cell(cells, *_VIDEO) or choices.video or path.stem
            split = SPLITS.get(columns.cell(cells, *SPLIT).casefold())
            if (name, split) not in drafted:
                drafted[name, split] = drafts.of(name, f"row {number}", split=split, by_stem=True)
            if (draft := drafted[name, split]) is not None:
                draft.group = columns.cell(cells, *GROUP) or draft.group
                at = columns.cell(cells, place) if place else "0"
                table._take(draft, number, at, columns.cell(cells, column))
                marks.look(columns.cell(cells, column))
        marks.check(path, column, is_between_cells=_separator(head[0]) == ",")
        return table

    def _take(self, draft: Draft, number: int, at: str, text: str) -> None:
        clock = parse_time(at) if ":" in at and self.seconds == 1 else None
        place, value = _value(at) if clock is None else float(clock), _value(text)
        if value is None or place is None or place != place:
            wrong = at if value is not None else text
            self.drafts.remarks.add("bad_value", f"row {number}", f"{wrong!r} is no number: correct it.")
            return
        rows = self.rows.setdefault(draft.video.source, _Rows(draft))
        rows.places.append(place)
        rows.values.append(value)

    def measured(self, choices: Choices) -> Iterator[Measured]:
        """What it says of each video."""
        shift = 0 if self.seconds is not None or not self.timed else self._first_frame(choices)
        for rows in self.rows.values():
            values = self._series(rows, shift)
            if values is None:
                continue
            yield Measured(
                video=rows.draft.video,
                known=np.isfinite(values),
                read=partial(dict, {self.quantity: values}),
                split=rows.draft.split,
                group=rows.draft.group,
            )

    def _first_frame(self, choices: Choices) -> int:
        """The number of a video's first frame."""
        if choices.first_frame is not None:
            return choices.first_frame
        if any(place == 0 for rows in self.rows.values() for place in rows.places):
            return 0
        # Without a 0, whose last number is that of its frames counts them from 1.
        whole = [max(rows.places) == rows.draft.video.n_frames for rows in self.rows.values()]
        first = int(any(whole))
        self.drafts.remarks.add(
            "counting", "", f"frames are taken as counted from {first}: else say --first-frame {1 - first}."
        )
        return first

    def _series(self, rows: _Rows, shift: int) -> np.ndarray | None:
        """A row a frame, or one; None where a row cannot be placed."""
        video, values = rows.draft.video, np.array(rows.values)
        if not self.timed:
            if len(set(rows.values)) > 1:
                self._refuse(video.source, "it has several values: keep one row, or name their frames")
                return None
            return values[:1].astype(np.float32)
        places = np.array(rows.places)
        if self.seconds is None:
            frames = places - shift
            if (frames != frames.round()).any() or len(np.unique(frames)) < len(frames):
                self._refuse(video.source, "a frame stands twice, or is no whole number: correct the rows")
                return None
        else:
            frames = np.floor(places * self.seconds * float(video.rate) + _SLACK)
        if frames.min() < 0 or frames.max() >= video.n_frames:
            self.drafts.remarks.add(
                "after_end", video.source,
                f"it has {video.n_frames} frames, and rows for {frames.min():g} to {frames.max():g}, counted "
                "from 0: is it another video, or is the first one 1 (--first-frame)?",
            )  # fmt: skip
            return None
        known, at = np.isfinite(values), frames.astype(np.int64)
        count = np.bincount(at[known], minlength=video.n_frames)
        total = np.bincount(at[known], values[known], video.n_frames)
        if count.max() > 1:
            self.drafts.remarks.add(
                "table", video.source, "several times fall on one frame, which has their mean."
            )
        series = np.full(video.n_frames, np.nan, np.float32)
        series[count > 0] = total[count > 0] / count[count > 0]
        return series

    def _refuse(self, source: str, why: str) -> None:
        self.drafts.remarks.add("bad_value", source, f"{why}.")


def _head(path: Path) -> tuple[str, str]:
    """The first whole lines of a table, and their encoding."""
    try:
        with open(path, "rb", opener=open_regular) as file:
            head = file.read(_HEAD)
    except OSError as problem:
        raise DataError(f"{path} cannot be read ({problem.strerror}): give a table of values.") from None
    if len(head) == _HEAD and head[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        head = head[: head.rfind(b"\n") + 1] or head
    return decode_text(path, head)


def _lines(path: Path, head: str, encoding: str, drafts: Drafts) -> Iterator[tuple[int, list[str]]]:
    """Rows that have a cell, by their number; the file is not held."""
    said, separator = SAID.match(head), _separator(head)
    if encoding not in ("utf-8", "utf-8-sig"):
        drafts.remarks.add("table", "", f"read as {ENCODINGS[encoding]}.")
    try:
        with path.open(encoding="utf-16" if encoding.startswith("utf-16") else encoding, newline="") as file:
            for number, cells in enumerate(csv.reader(file, delimiter=separator, strict=True), 1):
                if any(cell.strip() for cell in cells) and not (said and number == 1):
                    yield number, [cell.strip().lstrip("\ufeff") for cell in cells]
    except (csv.Error, UnicodeError) as problem:
        raise DataError(f"{path} is not a table ({problem}): save it as CSV UTF-8.") from None


def _separator(head: str) -> str:
    said = SAID.match(head)
    return said[1] if said else separator_of(head)


def _column(path: Path, columns: Columns, head: str, asked: str | None) -> str:
    """The column of values."""
    rows = list(csv.reader(SAID.sub("", head, count=1).splitlines()[1:200], delimiter=_separator(head)))
    names = list(_numeric(columns, rows))
    if asked is not None:
        found = [name for name in columns.names if asked in (name, _named(name)[0])]
        if not found:
            raise DataError(f"{path} has no column {asked!r}: it has {few(columns.names, 20)}.")
        return found[0]
    if len(names) != 1:
        what = f"{len(names)} columns of numbers ({few(names, 20)})" if names else "no column of numbers"
        raise DataError(f"{path} has {what}: say which holds the values, --column NAME.")
    return names[0]


def _numeric(columns: Columns, rows: Sequence[Sequence[str]]) -> dict[str, list[float]]:
    """Columns that are none of place, video or split, and hold nothing but numbers -> these."""
    apart = {name.casefold() for name in (*_VIDEO, *_FRAME, *_TIME, *GROUP, *SPLIT)}
    found = dict[str, list[float]]()
    for name in columns.names:
        if not name or name.casefold() in apart or re.fullmatch(r"Unnamed: \d+", name):
            continue
        values = [_value(columns.cell(cells, name)) for cells in rows]
        known = [value for value in values if value is not None and value == value]
        if known and None not in values:
            found[name] = known
    return found


def _value(text: str) -> float | None:
    """A number, NaN of a cell that says unknown, None of what is none."""
    text = text.strip()
    if text.casefold() in _UNKNOWN:
        return float("nan")
    try:
        value = float(text.replace(",", ".") if "." not in text else text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _named(column: str) -> tuple[str, str]:
    """Quantity and unit of `speed (mm/s)`, `speed [mm/s]`; the unit is empty where it is not told."""
    match = re.fullmatch(r"(.*?)\s*[(\[]([^)\]]+)[)\]]\s*", column)
    name, unit = (match[1], match[2]) if match and match[1] else (column, "")
    return re.sub(r"[^\w-]+", "_", name.strip()).strip("_") or "value", unit.strip()
