"""Labels of FERAL: one JSON file with classes, splits and a label a frame of each video.

`class_names` has numbers as texts; labels are numbers, or lists of 0 and 1 where `is_multilabel`. Videos of
the split `inference` have no labels by design. Source: FERAL's own test files (dc1e736, package 1.0.2).
"""

from collections.abc import Mapping, Sequence
from json import JSONDecodeError, loads
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int8

from featcache.data.labels.base import NO, YES, Annotations, Choices
from featcache.data.labels.drafts import Draft, Drafts
from featcache.data.labels.videos import Videos
from featcache.errors import DataError, few
from featcache.system.files import read_regular

MOST_BYTES = 2**31
_NOTHING = ("other", "background", "none", "nothing", "no behavior", "no behaviour")
_INFERENCE = "inference"
_OF_PLUGIN = ["is_multilabel", "splits", "class_names", "labels"]
"""Keys in the order in which BORIS's plugin writes them."""


def recognises(path: Path, head: str) -> bool:
    """By its first keys."""
    return path.suffix.lower() == ".json" and ("class_names" in head or "is_multilabel" in head)


def read(path: Path, videos: Videos, choices: Choices) -> Annotations:
    """See `Importer.read`."""
    del choices
    content = _content(path)
    classes = [str(name) for _, name in sorted((int(k), v) for k, v in content["class_names"].items())]
    labels, splits = content["labels"], _splits(content)
    drafts = Drafts(path, videos)
    split_of = {video: split for split, names in splits.items() for video in names}
    if list(content)[:4] == _OF_PLUGIN and classes[1:] == sorted(classes[1:]):
        drafts.remarks.add(
            "from_boris",
            "",
            "it looks as BORIS's plugin writes it: that counts frames by the project's rate, takes the "
            "frame at "
            "a stop into the bout, and loses observations with a time offset. Prefer the project (.boris).",
        )
    drafts.expect([*labels, *split_of])
    for video, rows in labels.items():
        draft = drafts.of(video, video, split=_role(split_of.get(video)))
        if draft is not None:
            _take(draft, video, rows, classes, multilabel=bool(content["is_multilabel"]))
    for split, names in splits.items():
        for video in (name for name in names if name not in labels):
            draft = drafts.of(video, f"split {split}", split=_role(split))
            if draft is None:
                continue
            draft.add_unknown(0, draft.video.n_frames, "no labels in the file")
            if split != _INFERENCE:
                drafts.remarks.add(
                    "no_labels",
                    draft.video.source,
                    f"in split {split!r}, and the file has no labels of it: unknown, it makes no clip.",
                )
    background = next((name for name in classes if name.casefold() in _NOTHING), None)
    return drafts.annotations("feral", classes, background=background)


def _content(path: Path) -> Mapping[str, Any]:
    try:
        content = loads(read_regular(path, limit=MOST_BYTES).decode("utf-8-sig"))
    except OSError as problem:
        raise DataError(f"{path} cannot be read ({problem.strerror}): copy it again.") from None
    except (JSONDecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise DataError(f"{path} is no JSON ({problem}): copy it again.") from None
    parts = {"class_names": dict, "labels": dict, "is_multilabel": bool}
    wrong = [part for part, kind in parts.items() if not isinstance(content.get(part), kind)]
    if not wrong and not all(str(key).isdigit() for key in content["class_names"]):
        wrong = ["class_names"]
    if wrong:
        raise DataError(f"{path} is no label file of FERAL: {few(wrong)} is missing or of another form.")
    return dict(content)


def _splits(content: Mapping[str, Any]) -> dict[str, list[str]]:
    splits = content.get("splits") or {}
    return {str(split): [str(name) for name in names] for split, names in splits.items()}


def _role(split: str | None) -> str | None:
    return None if split == _INFERENCE else split


def _take(draft: Draft, video: str, rows: Sequence[Any], classes: Sequence[str], *, multilabel: bool) -> None:
    states = np.full((len(rows), len(classes)), NO, np.int8)
    for number, row in enumerate(rows):
        good = _is_multi_hot(row, len(classes)) if multilabel else _is_number(row, len(classes))
        if not good:
            wanted = f"{len(classes)} of 0 and 1" if multilabel else f"a number below {len(classes)}"
            draft.remarks.add(
                "bad_value",
                f"{video}, label {number}",
                f"{str(row)[:60]} is not {wanted}: correct it; the video is left out.",
            )
            draft.add_unknown(0, draft.video.n_frames, "a label of it is wrong")
            return
        if multilabel:
            states[number] = row
        else:
            states[number, row] = YES
    if draft.add_rows(classes, states) and not multilabel and len(used := _used(states, classes)) == 1:
        draft.remarks.add(
            "one_class",
            draft.video.source,
            f"all of its {len(states)} frames are {used[0]!r}: see that it was coded at all.",
        )


def _is_number(row: Any, n: int) -> bool:
    return isinstance(row, int) and not isinstance(row, bool) and 0 <= row < n


def _is_multi_hot(row: Any, n: int) -> bool:
    return isinstance(row, list) and len(row) == n and all(value in (0, 1) for value in row)


def _used(states: Int8[np.ndarray, "F K"], classes: Sequence[str]) -> list[str]:
    return [name for column, name in enumerate(classes) if (states[:, column] == YES).any()]
