"""`metadata.csv`, `.jsonl` or `.parquet` of a video folder: a row a video, `file_name` and its labels.

The layout of Hugging Face's VideoFolder. A list of labels that is empty is labelled, as nothing; a label
that is missing is not. A column that names an animal keeps its videos in one split.
"""

import re
from collections.abc import Mapping
from json import JSONDecodeError, loads
from pathlib import Path
from typing import Any

from featcache.data.labels.base import Annotations, Choices
from featcache.data.labels.drafts import Draft, Drafts
from featcache.data.labels.formats.folders import SPLITS
from featcache.data.labels.tables import Columns, read_rows, read_text
from featcache.data.labels.videos import Videos
from featcache.errors import DataError, few

FILE = ("file_name", "filename")
LABEL = ("label", "labels", "class", "classes", "category", "behavior", "behaviour", "action")
GROUP = ("group", "animal", "animal_id", "subject", "subject_id", "mouse", "individual", "patient", "id")
SPLIT = ("split", "subset", "fold")
_NAMED = (*FILE, "video", "video_name", "video_path", "file", "file_path", "path")
_OF_TIMES = frozenset({
    "start", "stop", "begin", "end", "onset", "offset", "first", "last", "from", "to", "time", "duration",
    "length", "frame", "frames", "t0", "t1", "bouts", "seconds", "score",
})  # fmt: skip
"""Words of columns of tables of bouts."""
_ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")


def recognises(path: Path, head: str) -> bool:
    """By its name, or a column of videos with one of labels and none of times."""
    ending = path.suffix.lower()
    if path.stem.lower() == "metadata" and ending in _ENDINGS:
        return True
    if ending not in (".csv", ".tsv"):
        return ending == ".jsonl" and '"file_name"' in head
    first = next((line for line in head.splitlines() if line.strip()), "")
    columns = Columns([cell.strip().strip('"') for cell in re.split(r"[,;\t]", first)])
    apart = (re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).casefold() for name in columns.names)
    words = {word for name in apart for word in re.split(r"[^a-z0-9]+", name)}
    return bool(columns.find(*_NAMED) and columns.find(*LABEL) and not words & _OF_TIMES)


def read(path: Path, videos: Videos, choices: Choices) -> Annotations:
    """See `Importer.read`."""
    del choices
    rows = _rows(path)
    drafts, classes, named = Drafts(path, videos), dict[str, None](), set[str]()
    of_folder = SPLITS.get(path.parent.name.casefold())
    drafts.expect(str(_first(row, _NAMED) or "") for _, row in rows)
    for number, row in rows:
        where = f"row {number}"
        name = str(_first(row, _NAMED) or "")
        if not name:
            raise DataError(f"{path}, {where}: no file_name; give each row its video.")
        split = SPLITS.get(str(_first(row, SPLIT) or "").casefold(), of_folder)
        labels = _labels(_first(row, LABEL))
        classes.update(dict.fromkeys(labels or ()))
        draft = drafts.of(name, where, split=split)
        if draft is None:
            continue
        named.add(draft.video.source)
        draft.group = str(_first(row, GROUP) or "")
        _take(draft, where, labels, is_list=isinstance(_first(row, LABEL), list))
    _say_unlisted(path, videos, named, drafts)
    if classes and all(name.isdigit() for name in classes):
        drafts.remarks.add("numbers", "", "labels are numbers: give the classes their names in the manifest.")
    return drafts.annotations("metadata", sorted(classes))


def _rows(path: Path) -> list[tuple[int, Mapping[str, Any]]]:
    if path.suffix.lower() == ".parquet":
        import pyarrow.parquet as pq
        from pyarrow import ArrowException

        try:
            return list(enumerate(pq.read_table(path).to_pylist(), 1))
        except (OSError, ArrowException) as problem:
            raise DataError(f"{path} is no parquet file ({problem}): copy it again.") from None
    if path.suffix.lower() == ".jsonl":
        rows = list[tuple[int, Mapping[str, Any]]]()
        for number, line in enumerate(read_text(path)[0].splitlines(), 1):
            try:
                row = loads(line) if line.strip() else None
            except JSONDecodeError as problem:
                raise DataError(f"{path}, row {number} is no JSON ({problem}): correct it.") from None
            if isinstance(row, dict):
                rows.append((number, row))
        return rows
    table, _ = read_rows(path)
    columns = Columns(table[0][1] if table else ())
    if columns.find(*_NAMED) is None:
        raise DataError(f"{path}, row 1: no column file_name; it must name each row's video.")
    return [(number, columns.row(cells)) for number, cells in table[1:]]


def _first(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """What stands under the first of these names, in any case."""
    cells = {key.casefold(): value for key, value in row.items()}
    return next((cells[name] for name in names if name in cells), None)


def _labels(cell: Any) -> list[str] | None:
    """Names; none where nothing was there, None where nobody labelled it."""
    if isinstance(cell, list):
        return [str(name).strip() for name in cell]
    text = "" if cell is None else str(cell)
    return [part.strip() for part in text.split(";") if part.strip()] or None


def _take(draft: Draft, where: str, labels: list[str] | None, *, is_list: bool) -> None:
    source, n_frames = draft.video.source, draft.video.n_frames
    if labels is None:
        draft.add_unknown(0, n_frames, "not labelled")
        draft.remarks.add("empty_label", where, f"{source} has no label: unknown, it makes no clip.")
    elif not labels and is_list:
        draft.remarks.add(
            "labelled_nothing",
            where,
            f"{source} has an empty list of labels: taken as none of the classes. Remove its row if nobody "
            "looked at it.",
        )
    for label in dict.fromkeys(labels or ()):
        draft.add_frames(where, label, 0, n_frames)


def _say_unlisted(path: Path, videos: Videos, named: set[str], drafts: Drafts) -> None:
    beside = videos.beside(path)
    near = [video.source for video in videos if video.source.startswith(f"{beside}/" if beside else "")]
    unlisted = [source for source in near if source not in named]
    if unlisted:
        drafts.remarks.add("unlisted", "", f"there and not listed, no clip is made of them: {few(unlisted)}.")
