"""The CSV file in which a scientist lists the clips of their videos: a row a clip, with its labels.

    video,first_frame,labels
    mating/pair_03.mp4,1250,lunging;wing_threat

Every row is checked before any video is opened, so that a typing mistake costs seconds and not the scan.
"""

import csv
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from featcache.errors import DataError, did_you_mean

COLUMNS = ("video", "first_frame", "labels")
"""Columns that must be there; others are the author's own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipStart:
    """Where a clip begins, and its labels."""

    source: str
    """The video, as a path below the data folder."""
    first_frame: int
    labels: tuple[int, ...] = ()
    """Numbers of the classes, in the order of the manifest."""
    row: int | None = None
    """The line of the list where the row ends, from 1, for messages."""

    @property
    def id(self) -> str:
        """The clip's name, unique in its split."""
        return f"{self.source}/{self.first_frame}"


def read_clip_list(path: Path, sources: Sequence[str], classes: Sequence[str]) -> tuple[ClipStart, ...]:
    """The rows of a clip list, in their order.

    A video is named by its path below the data folder, as in `sources`, or by its file name alone where
    no other video has the same. Labels are names of `classes`, joined by `;`, or nothing.

    Raises:
        DataError: the file, a column, a video or a class does not exist, a frame is not a whole number, a
            clip stands twice, or there is no row; names file and row.
    """
    names = _names(sources)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            clips = tuple(_clips(path, csv.DictReader(file), names, classes))
    except OSError as problem:
        raise DataError(
            f"{path} cannot be read ({problem.strerror}): put the list of clips there, or correct `clips` in "
            "the manifest."
        ) from None
    except (UnicodeDecodeError, csv.Error) as problem:
        raise DataError(f"{path} is not a CSV file ({problem}): correct `clips` in the manifest.") from None
    if not clips:
        raise DataError(f"{path} lists no clip: add rows below the line {','.join(COLUMNS)}.")
    return clips


def _names(sources: Sequence[str]) -> dict[str, str]:
    """What a row may call a video -> the video."""
    shared = Counter(Path(source).name for source in sources)
    short = {Path(source).name: source for source in sources if shared[Path(source).name] == 1}
    return {**short, **{source: source for source in sources}}


def _clips(
    path: Path, rows: "csv.DictReader[str]", names: Mapping[str, str], classes: Sequence[str]
) -> Iterator[ClipStart]:
    lacking = [column for column in COLUMNS if column not in (rows.fieldnames or ())]
    if lacking:
        raise DataError(f"{path}, row 1: no column {lacking[0]!r}; line 1 must be {','.join(COLUMNS)}.")
    rows_of: dict[str, int] = {}
    for fields in rows:
        try:
            clip = _clip(fields, rows.line_num, names, classes)
        except _RowError as problem:
            raise DataError(f"{path}, row {rows.line_num}: {problem}") from None
        before = rows_of.setdefault(clip.id, rows.line_num)
        if before != rows.line_num:
            raise DataError(f"{path}, row {clip.row}: repeats row {before}; join their labels by `;`.")
        yield clip


class _RowError(ValueError):
    """What is wrong with a row, without file and number."""


def _clip(
    fields: Mapping[str, str | None], row: int, names: Mapping[str, str], classes: Sequence[str]
) -> ClipStart:
    video, first_frame, labels = ((fields[column] or "").strip() for column in COLUMNS)
    if video not in names:
        hint = did_you_mean(video, names)
        raise _RowError(f"no video is called {video!r}.{hint} Give its path in the data folder.")
    if not (first_frame.isascii() and first_frame.isdigit()):
        raise _RowError(f"first_frame {first_frame!r} is not a whole number from 0.")
    wanted = [name.strip() for name in labels.split(";") if name.strip()]
    for name in wanted:
        if name not in classes:
            known = ", ".join(classes) or "none, list `classes` in the manifest"
            raise _RowError(f"no class is called {name!r}.{did_you_mean(name, classes)} Known are {known}.")
    return ClipStart(
        row=row,
        source=names[video],
        first_frame=int(first_frame),
        labels=tuple(classes.index(name) for name in wanted),
    )
