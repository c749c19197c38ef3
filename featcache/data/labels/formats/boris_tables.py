"""Tables of BORIS: aggregated events (a row a bout) and tabular events (a row a start, stop or point).

The names and places of columns changed from version to version, independent variables and modifiers add
some, and former tabular files begin with lines about the observation: columns are found by name, wherever
they are. A project tells more (states that the export cuts, observations that it leaves out): where there
is one beside, it is preferred. Source: exports of BORIS 7.13.9 and 9.15.0.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

from featcache.data.labels.base import Annotations, Choices
from featcache.data.labels.drafts import Drafts
from featcache.data.labels.formats.boris import modifiers_of
from featcache.data.labels.formats.timeline import Event, Media, Observation, place
from featcache.data.labels.remarks import Remarks
from featcache.data.labels.tables import Columns, Row, read_rows
from featcache.data.labels.timing import parse_number, parse_time, shown
from featcache.data.labels.videos import Videos
from featcache.errors import DataError

_LABEL, _TYPE = "Behavior", ("Behavior type", "Status")
_START, _STOP, _TIME = "Start (s)", "Stop (s)", "Time"
_MEDIA = ("Media file name", "Media file path", "Media file")
_RATE = ("FPS (frame/s)", "FPS")
_LENGTH, _FORMER = "Media duration (s)", "Total length"
"""Of each file; former tables have that of all together."""
_OFFSET = "Time offset (s)"
_NOBODY = ("no focal subject", "")


def recognises(path: Path, head: str) -> bool:
    """By the names of its columns, or the columns of a binary table."""
    has_columns = _LABEL in head and any(name in head for name in (*_MEDIA, *_RATE))
    return (has_columns and any(name in head for name in (_START, _TIME))) or _is_binary(head)


def _is_binary(head: str) -> bool:
    """Whether there is a row a step of time: times in the first column, whole numbers in the others."""
    heading, _, rest = head.lstrip().partition("\n")
    names, cells = (re.split(r"[,;\t]", line.strip()) for line in (heading, rest.partition("\n")[0]))
    is_timed = len(names) > 1 and names[0].strip('"').casefold() == "time" and len(names) == len(cells)
    return is_timed and all(cell.isdigit() for cell in cells[1:]) and parse_number(cells[0]) is not None


def read(path: Path, videos: Videos, choices: Choices) -> Annotations:
    """See `Importer.read`; a binary table, which has a row a step of time, is refused whole."""
    rows, form = read_rows(path)
    if rows and rows[0][1][0].casefold() == "time" and _LABEL not in rows[0][1]:
        raise _binary(path, rows[0][1])
    heading = next(
        (n for n, (_, cells) in enumerate(rows) if {_LABEL} <= set(cells) and len(cells) > 3), None
    )
    if heading is None:
        raise DataError(f"{path} is no table of events of BORIS: no row names the column {_LABEL!r}.")
    drafts = Drafts(path, videos)
    if form:
        drafts.remarks.add("table", "", form)
    columns = Columns(rows[heading][1])
    above = [(cells[0].casefold(), cells[1]) for _, cells in rows[:heading] if len(cells) > 1]
    rest = rows[heading + 1 :]
    if columns.find(_OFFSET) is None and _OFFSET.casefold() not in dict(above):
        drafts.remarks.add(
            "offset",
            "",
            "no column tells a time offset: where an observation has one its times are off by it, and the "
            "project (.boris) tells it.",
        )
    tables = [
        table
        for table in _by_observation(rest, columns, above)
        if _is_of_media(table, columns, drafts.remarks)
    ]
    for table in tables:
        table.take(columns, drafts.remarks)
        if _FORMER in columns.names:
            _check_total(table, columns, drafts)
    place([table.observation() for table in tables], drafts, choices)
    return drafts.annotations("boris_tables", [])


def _binary(path: Path, heading: tuple[str, ...]) -> DataError:
    twice = sorted({name for name in heading if heading.count(name) > 1})
    more = f", and two columns are called {twice[0]!r}" if twice else ""
    return DataError(
        f"{path} is a binary table of BORIS: a row a step of time, not a frame, without the video's name and "
        f"rate{more}. Give the project (.boris), or export aggregated events."
    )


@dataclass(slots=True)
class _Table:
    """The rows of one observation."""

    name: str
    above: Sequence[tuple[str, str]]
    """Lines before the heading."""
    rows: list[Row]
    media: list[Media] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    offset: Fraction = Fraction(0)

    def take(self, columns: Columns, remarks: Remarks) -> None:
        """Read the rows."""
        first = self.rows[0][1]
        offset = columns.cell(first, _OFFSET) or dict(self.above).get(_OFFSET.casefold(), "")
        self.offset = parse_time(offset) or Fraction(0)
        self.media = _media(self.rows, columns, self.above)
        one_row_each = columns.find(_START) is not None
        for number, cells in self.rows:
            self._take_row(f"row {number}", cells, columns, remarks, one_row_each=one_row_each)
        if not one_row_each:
            self.events = _paired(self.events, remarks)

    def _take_row(
        self, where: str, cells: tuple[str, ...], columns: Columns, remarks: Remarks, *, one_row_each: bool
    ) -> None:
        kind = columns.cell(cells, *_TYPE).upper()
        start = parse_time(columns.cell(cells, _START, _TIME))
        stop = parse_time(columns.cell(cells, _STOP))
        if start is None or kind not in ("STATE", "POINT", "START", "STOP"):
            remarks.add(
                "no_time",
                where,
                f"{cells!r} has no time, or is neither STATE, START, STOP nor POINT: correct it.",
            )
            return
        subject = columns.cell(cells, "Subject")
        comment = columns.cell(cells, "Comment stop") or columns.cell(cells, "Comment")
        self.events.append(
            Event(
                where=where,
                label=columns.cell(cells, _LABEL),
                start=start,
                # Of a row of a tabular file this tells a stop from a start until they are paired.
                stop=stop if one_row_each else (start if kind == "STOP" else None),
                is_point=kind == "POINT",
                subject="" if subject.casefold() in _NOBODY else subject,
                modifiers=_modifiers(cells, columns),
                comment=comment,
            )
        )

    def observation(self) -> Observation:
        """All of it."""
        return Observation(
            name=self.name,
            media=tuple(self.media),
            events=tuple(self.events),
            offset=self.offset,
            joint=Fraction(1, 1000),
        )


def _by_observation(rows: Iterable[Row], columns: Columns, above: Sequence[tuple[str, str]]) -> list[_Table]:
    tables = dict[str, _Table]()
    for row in rows:
        name = columns.cell(row[1], "Observation id") or dict(above).get("observation id", "")
        tables.setdefault(name, _Table(name or "the observation", above, [])).rows.append(row)
    return list(tables.values())


def _is_of_media(table: _Table, columns: Columns, remarks: Remarks) -> bool:
    """Whether it was coded from videos, not live or from pictures."""
    kind = columns.cell(table.rows[0][1], "Observation type") or columns.cell(table.rows[0][1], *_MEDIA)
    if kind.casefold().startswith(("live", "from ")):
        remarks.add("live", table.name, f"of type {kind!r} without a video: left out.")
        return False
    return True


def _media(rows: list[Row], columns: Columns, above: Sequence[tuple[str, str]]) -> list[Media]:
    """The files of an observation in their order: by the source, lines before the heading, or the rows."""
    cells = rows[0][1]
    source = columns.cell(cells, "Source")
    if source:
        first_player = re.split(r"[;|, ]*player #[2-9]:", re.sub(r"^player #\d+:", "", source))[0]
        names = [name.strip() for name in first_player.split(";")]
    else:
        names = [value for key, value in above if key == "player #1"]
        in_time = sorted(rows, key=lambda row: parse_time(columns.cell(row[1], _START, _TIME)) or 0)
        names = names or list(
            dict.fromkeys(n for _, row in in_time for n in columns.cell(row, *_MEDIA).split(";") if n)
        )
    length = columns.cell(cells, _LENGTH) or (columns.cell(cells, _FORMER) if len(names) == 1 else "")
    lengths, rates = (text.split("|")[0].split(";") for text in (length, columns.cell(cells, *_RATE)))
    return [
        Media(
            name=name,
            seconds=parse_number(lengths[n]) if n < len(lengths) else None,
            rate=parse_number(rates[n]) if n < len(rates) else None,
        )
        for n, name in enumerate(names)
    ]


def _check_total(table: _Table, columns: Columns, drafts: Drafts) -> None:
    """Refuse a former table of several files that names not all: which began when is not in it."""
    total = parse_number(columns.cell(table.rows[0][1], _FORMER))
    # A former tabular file counts up to its last event, and calls that the total length.
    if len(table.media) < 2 or total is None or columns.find(_START) is None:
        return
    videos = [drafts.video_of(media.name) for media in table.media]
    known = sum((video.seconds for video in videos if video is not None), Fraction(0))
    if all(videos) and abs(total - known) > 1:
        drafts.remarks.add(
            "no_time",
            table.name,
            f"its files are {shown(total)} s long together, and those that its rows name {shown(known)} s: "
            "which began when cannot be told. Give the project (.boris).",
        )
        table.media, table.events = [], []


def _modifiers(cells: tuple[str, ...], columns: Columns) -> tuple[str, ...]:
    if columns.find("Modifiers"):
        return modifiers_of(columns.cell(cells, "Modifiers"))
    names = [name for name in columns.names if re.fullmatch(r"Modifier #?\d+", name)]
    found = tuple(columns.cell(cells, name) for name in names)
    return tuple("" if part == "None" else part for part in found) if any(found) else ()


def _paired(events: list[Event], remarks: Remarks) -> list[Event]:
    """Starts with the stops that follow them; a start without one stays open."""
    done, open_states = list[Event](), dict[tuple[str, str, tuple[str, ...]], Event]()
    for event in sorted(events, key=lambda event: event.start):
        key = (event.subject, event.label, event.modifiers)
        if event.is_point:
            done.append(event)
        elif event.stop is None:
            before = open_states.pop(key, None)
            done += [before] if before is not None else []
            open_states[key] = event
        elif key in open_states:
            start = open_states.pop(key)
            done.append(replace(start, stop=event.start, comment=event.comment or start.comment))
        else:
            remarks.add(
                "backwards",
                event.where,
                f"a STOP of {event.label!r} without its START: add one, or remove it.",
            )
    return [*done, *open_states.values()]
