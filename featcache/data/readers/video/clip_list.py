"""The CSV file in which a scientist lists the clips of their videos: a row a clip, with its labels.

    video,first_frame,labels
    mating/pair_03.mp4,1250,lunging;wing_threat

Every row is checked before any video is opened, so that a typing mistake costs seconds and not the scan.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from featcache.data.readers.video.table_text import read_table
from featcache.errors import DataError, did_you_mean, few

COLUMNS = ("video", "first_frame", "labels")
"""Columns that must be there; others are the author's own."""

_MOST_DIGITS = 12
_SHOWN = 100
"""Characters of a wrong cell that a message repeats."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipStart:
    """Where a clip begins, and its labels."""

    source: str
    """The video, as a path below the data folder."""
    first_frame: int
    labels: tuple[int, ...] = ()
    """Numbers of the classes, in the order of the manifest."""
    row: int | None = None
    """The row of the list, from 1, for messages."""

    @property
    def id(self) -> str:
        """The clip's name, unique in its split."""
        return f"{self.source}/{self.first_frame}"


@dataclass(frozen=True, slots=True)
class ClipList:
    """The clips of a list in its order, and what the user should know of how it was read."""

    clips: tuple[ClipStart, ...]
    notes: tuple[str, ...]


def read_clip_list(path: Path, sources: Sequence[str], classes: Sequence[str]) -> ClipList:
    """The rows of a clip list, in their order.

    A video is named by its path below the data folder, as in `sources`, or by its file name alone where
    no other video has the same. Labels are names of `classes`, joined by `;`, or nothing. Names are the same
    in any Unicode form: macOS writes é as two characters, Windows and Linux as one.

    Raises:
        DataError: the file, a column, a video or a class does not exist, a row has too many or too few cells,
            a frame is not a whole number, a clip stands twice, or there is no row; names file and row.
    """
    table = read_table(path, COLUMNS)
    places = [table.columns.index(column) for column in COLUMNS]
    videos, names = _Names(_of_videos(sources)), _Names({name: name for name in classes})
    rows_of: dict[str, int] = {}
    clips = list[ClipStart]()
    for row, cells in table.rows:
        try:
            clip = _clip(row, [cells[place] for place in places], videos, names, classes)
        except _RowError as problem:
            raise DataError(f"{path}, row {row}: {problem}") from None
        before = rows_of.setdefault(clip.id, row)
        if before != row:
            raise DataError(f"{path}, row {row}: repeats row {before}; join their labels by `;`.")
        clips.append(clip)
    if not clips:
        raise DataError(f"{path} lists no clip: add rows below the line {','.join(COLUMNS)}.")
    notes = [f"{path.name}: {note}" for note in _notes(clips, videos, names, classes)]
    return ClipList(tuple(clips), (*table.notes, *notes))


def _notes(
    clips: Sequence[ClipStart], videos: "_Names", names: "_Names", classes: Sequence[str]
) -> list[str]:
    notes = []
    other_form = [*videos.in_another_form, *names.in_another_form]
    if other_form:
        of = "the files and classes have them in the other Unicode form (NFC, NFD)"
        notes.append(f"taken as the same names, though {of}: {few(sorted(other_form), 3)}.")
    unlabelled = [clip.row for clip in clips if not clip.labels]
    if classes and unlabelled:
        notes.append(f"{len(unlabelled)} of {len(clips)} rows have no label (rows {few(unlabelled)}).")
    return notes


class _RowError(ValueError):
    """What is wrong with a row, without file and number."""


class _Names:
    """Names that a row may use, in any Unicode form, and which of them came in another one."""

    def __init__(self, things: Mapping[str, str]) -> None:
        composed = Counter(normalize("NFC", name) for name in things)
        self._things = things
        self._composed = {
            normalize("NFC", name): thing
            for name, thing in things.items()
            if composed[normalize("NFC", name)] == 1
        }
        self.in_another_form = set[str]()

    def __getitem__(self, name: str) -> str:
        if name in self._things:
            return self._things[name]
        thing = self._composed[normalize("NFC", name)]
        self.in_another_form.add(name)
        return thing

    def unknown(self, what: str, name: str) -> str:
        """What to say of a name that is none of these."""
        # Letters of other alphabets, and spaces that do not break, look like those that were meant.
        name = name[:_SHOWN]
        spelled = "" if name.isascii() else f" (spelled {name!a})"
        return f"no {what} is called {name!r}{spelled}.{did_you_mean(name, self._things)}"


def _of_videos(sources: Sequence[str]) -> dict[str, str]:
    """What a row may call a video -> the video."""
    shared = Counter(Path(source).name for source in sources)
    short = {Path(source).name: source for source in sources if shared[Path(source).name] == 1}
    return {**short, **{source: source for source in sources}}


def _clip(row: int, cells: Sequence[str], videos: _Names, names: _Names, classes: Sequence[str]) -> ClipStart:
    video, first_frame, labels = (cell.strip() for cell in cells)
    try:
        source = videos[video]
    except KeyError:
        raise _RowError(f"{videos.unknown('video', video)} Give its path in the data folder.") from None
    if not (first_frame.isascii() and first_frame.isdigit() and len(first_frame) <= _MOST_DIGITS):
        raise _RowError(
            f"first_frame {first_frame[:_SHOWN]!r} is not a whole number from 0, written in plain digits."
        )
    return ClipStart(
        row=row, source=source, first_frame=int(first_frame), labels=_labels(labels, names, classes)
    )


def _labels(text: str, names: _Names, classes: Sequence[str]) -> tuple[int, ...]:
    if not text:
        return ()
    labels = list[int]()
    for name in (part.strip() for part in text.split(";")):
        if not name:
            raise _RowError(
                f"labels {text[:_SHOWN]!r} have an empty one; write nothing but names, joined by `;`."
            )
        try:
            label = classes.index(names[name])
        except KeyError:
            known = ", ".join(classes) or "none, list `classes` in the manifest"
            raise _RowError(f"{names.unknown('class', name)} Known are {known}.") from None
        if label in labels:
            raise _RowError(f"labels {text[:_SHOWN]!r} name {name!r} twice; remove one.")
        labels.append(label)
    return tuple(labels)
