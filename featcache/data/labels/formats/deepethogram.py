"""Labels of DeepEthogram: a CSV file a video, a row a frame, a column a class; 1 yes, 0 no, -1 nobody looked.

The first column has no name and numbers the rows, where pandas wrote the file; tables of other hands lack it,
and the column `background` too. `record.yaml` beside names the video.
Source: docs/file_structure.md and the save step of DeepEthogram 0.5.0.
"""

import re
from pathlib import Path

import numpy as np
import yaml
from jaxtyping import Int8

from featcache.data.labels.base import NO, UNKNOWN, YES, Annotations, Choices
from featcache.data.labels.drafts import Drafts
from featcache.data.labels.remarks import Remarks
from featcache.data.labels.tables import Row, read_rows
from featcache.data.labels.timing import parse_number
from featcache.data.labels.videos import ENDINGS, Videos
from featcache.errors import DataError

BACKGROUND = "background"
_STATES = {YES: "1", NO: "0", UNKNOWN: "-1"}
_FEWEST = 3
"""Rows from which on a column that counts them is no class."""


def recognises(path: Path, head: str) -> bool:
    """By rows of nothing but -1, 0 and 1 below a heading of names."""
    if path.suffix.lower() not in (".csv", ".tsv", ".txt"):
        return False
    lines = [line.strip() for line in head.splitlines()[:4]]
    if len(lines) < 2 or not re.search(r"[^\W\d]", lines[0]):
        return False
    states = r"-?[01](\.0+)?"
    whole = len(lines) - (0 if head.endswith("\n") or len(lines) < 4 else 1)
    return all(re.fullmatch(rf"(\d+[,;\t])?{states}([,;\t]{states})*", line) for line in lines[1:whole])


def read(path: Path, videos: Videos, choices: Choices) -> Annotations:
    """See `Importer.read`."""
    rows, form = read_rows(path)
    if len(rows) < 2:
        raise DataError(f"{path} has no row below its heading: label the video, or leave the file out.")
    drafts = Drafts(path, videos)
    if form:
        drafts.remarks.add("table", "", form)
    skip = 1 if _numbers_rows(rows) else 0
    classes = list(rows[0][1][skip:])
    if "" in classes or len(set(classes)) < len(classes):
        raise DataError(f"{path}, row {rows[0][0]}: a column has no name, or two have one name: {classes}.")
    states = _states(path, rows[1:], len(classes), skip, drafts.remarks)
    draft = drafts.of(choices.video or _video_of(path), "", by_stem=True)
    if draft is not None and states is not None:
        classes, states = _with_background(classes, states, drafts.remarks)
        draft.add_rows(classes, states)
        n_unknown = int((states == UNKNOWN).any(axis=1).sum())
        if n_unknown:
            drafts.remarks.add(
                "unlabelled",
                draft.video.source,
                f"{n_unknown} of {len(states)} rows are -1, nobody looked: no negatives, and no clip is "
                "made there.",
            )
    return drafts.annotations("deepethogram", classes, background=BACKGROUND)


def _numbers_rows(rows: list[Row]) -> bool:
    """Whether the first column counts the rows, named or not."""
    if not rows[0][1][0]:
        return True
    numbers = [parse_number(cells[0]) for _, cells in rows[1:]]
    return len(numbers) >= _FEWEST and numbers in (
        list(range(len(numbers))),
        list(range(1, len(numbers) + 1)),
    )


def _states(
    path: Path, rows: list[Row], n_classes: int, skip: int, remarks: Remarks
) -> Int8[np.ndarray, "F K"] | None:
    """The cells; None, and a remark, where one is none of the three."""
    states = np.full((len(rows), n_classes), UNKNOWN, np.int8)
    for n, (number, cells) in enumerate(rows):
        values = [parse_number(cell) for cell in cells[skip:]]
        if len(values) != n_classes or not set(values) <= {YES, NO, UNKNOWN}:
            remarks.add(
                "bad_value",
                f"row {number}",
                f"{','.join(cells[skip:])[:80]} is not {n_classes} cells of {', '.join(_STATES.values())}: "
                f"correct {path.name}; it is left out.",
            )
            return None
        states[n] = [int(value) for value in values if value is not None]
    return states


def _with_background(
    classes: list[str], states: Int8[np.ndarray, "F K"], remarks: Remarks
) -> tuple[list[str], Int8[np.ndarray, "F K1"]]:
    """With the column `background`, which is yes in labelled rows without any class."""
    had_one = BACKGROUND in classes
    if not had_one:
        classes = [BACKGROUND, *classes]
        states = np.concatenate([np.full((len(states), 1), NO, np.int8), states], axis=1)
    place = classes.index(BACKGROUND)
    others, states = np.delete(states, place, axis=1), states.copy()
    nothing = (others == NO).all(axis=1) & (states[:, place] == NO)
    if not had_one:
        states[(others == UNKNOWN).any(axis=1) & ~(others == YES).any(axis=1), place] = UNKNOWN
    states[nothing, place] = YES
    if nothing.any():
        column = "with 0 under background too" if had_one else "and there is no column background"
        remarks.add(
            "all_zero",
            "",
            f"{int(nothing.sum())} of {len(states)} rows are 0 throughout, {column}: taken as background, as "
            "DeepEthogram does when it trains.",
        )
    return classes, states


def _video_of(path: Path) -> str:
    """What `record.yaml` says, or the file's own name."""
    record = path.with_name("record.yaml")
    if record.is_file():
        try:
            entries = yaml.safe_load(record.read_text("utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as problem:
            raise DataError(f"{record} is not YAML ({problem}): correct it, or remove it.") from None
        rgb = entries.get("rgb") if isinstance(entries, dict) else None
        labels = entries.get("label") if isinstance(entries, dict) else None
        if isinstance(rgb, str) and labels in (None, path.name):
            return rgb
    stem = re.sub(r"[_-]?labels?$", "", path.stem, flags=re.IGNORECASE)
    return Path(stem).stem if Path(stem).suffix.lower() in ENDINGS else stem
