"""Labels of CalMS21 as published: JSON of annotators, sequences, and one number a frame beside the poses.

The number of a class is in each sequence's `metadata.vocab`; the background is `other`, which is not 0. The
file has no rate: containers of the videos say 30, the cameras ran near 32, and frames are what counts.
Source: CalMS21 (doi 10.22002/D1.1991), task 1 to 3.
"""

import re
from collections.abc import Mapping
from json import JSONDecodeError, loads
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from featcache.data.labels.base import NO, YES, Annotations, Choices
from featcache.data.labels.drafts import Draft, Drafts
from featcache.data.labels.remarks import Remarks
from featcache.data.labels.videos import Videos
from featcache.errors import DataError, few
from featcache.system.files import read_regular

MOST_BYTES = 2**32
BACKGROUND = "other"
VAL = range(63, 71)
"""Training videos of task 1 that are the benchmark's val."""
_PARTS = {"annotations", "metadata"}


def recognises(path: Path, head: str) -> bool:
    """By an annotator, or in task 3 a behaviour, and a sequence's path at its top."""
    if path.suffix.lower() != ".json":
        return False
    is_sequence = re.match(r'\s*\{\s*"[^"]*"\s*:\s*\{\s*"task\d/', head) is not None
    return is_sequence or ('"annotator' in head and '": {"' in head.replace("\n", " "))


def read(path: Path, videos: Videos, choices: Choices) -> Annotations:
    """See `Importer.read`."""
    drafts, classes = Drafts(path, videos), dict[str, None]()
    by_sequence = dict[str, list[tuple[str, Mapping[str, Any]]]]()
    for group, sequences in _groups(path).items():
        for name, sequence in sequences.items():
            by_sequence.setdefault(name, []).append((group, sequence))
    for name, found in by_sequence.items():
        for _, sequence in found:
            classes.update(dict.fromkeys(_vocabulary(sequence).values()))
        chosen = _annotator(name, found, choices, drafts.remarks)
        split = _split_of(PurePosixPath(name))
        draft = drafts.of(PurePosixPath(name).name, name, split=split, by_stem=True)
        if draft is not None and chosen is not None:
            _take(draft, name, chosen)
        elif draft is not None:
            draft.add_unknown(0, draft.video.n_frames, "no annotator was chosen")
    if any(name.startswith("task1/") for name in by_sequence):
        drafts.remarks.add(
            "benchmark",
            "",
            "training videos 063 to 070 are val, as in the benchmark, which has a clip a labelled frame, in "
            "training of every sixteenth. Where in a clip that is, and which are kept, is not public: clips "
            "made here are others.",
        )
    drafts.remarks.add(
        "no_rate", "", "it holds no rate: frames are counted, seconds come from the videos' containers."
    )
    return drafts.annotations("calms21", list(classes), background=BACKGROUND)


def _split_of(sequence: PurePosixPath) -> str | None:
    """As its path says, but for the training videos that the benchmark holds out for val."""
    split = sequence.parent.name or None
    number = re.match(r"mouse(\d+)_task1", sequence.name)
    held_out = split == "train" and number is not None and int(number[1]) in VAL
    return "val" if held_out else split


def _groups(path: Path) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    try:
        # Poses are most of the file: one number stands for all of theirs.
        content = loads(read_regular(path, limit=MOST_BYTES), parse_float=lambda _: 0.0)
    except OSError as problem:
        raise DataError(f"{path} cannot be read ({problem.strerror}): copy it again.") from None
    except (JSONDecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise DataError(f"{path} is no JSON ({problem}): copy it again.") from None
    groups = content if isinstance(content, dict) else {}
    sequences = [entry for group in groups.values() if isinstance(group, dict) for entry in group.values()]
    if not sequences or not all(isinstance(s, dict) and s.keys() >= _PARTS for s in sequences):
        raise DataError(
            f"{path} is no label file of CalMS21: annotators with sequences, and in each "
            f"{few(sorted(_PARTS))}. "
            "Give the JSON file as published."
        )
    return groups


def _vocabulary(sequence: Mapping[str, Any]) -> dict[int, str]:
    vocabulary = sequence["metadata"].get("vocab") or {}
    if isinstance(vocabulary, list):
        vocabulary = {name: number for number, name in enumerate(vocabulary)}
    return {int(number): str(name) for name, number in sorted(vocabulary.items(), key=lambda item: item[1])}


def _annotator(
    name: str, found: list[tuple[str, Mapping[str, Any]]], choices: Choices, remarks: Remarks
) -> Mapping[str, Any] | None:
    groups = [group for group, _ in found]
    if len(found) == 1:
        return found[0][1]
    if choices.channel in groups:
        return found[groups.index(str(choices.channel))][1]
    remarks.add(
        "observers",
        name,
        f"labelled by {', '.join(groups)}. They are not added up: choose one with --channel {groups[0]}.",
    )
    return None


def _take(draft: Draft, name: str, sequence: Mapping[str, Any]) -> None:
    vocabulary, labels = _vocabulary(sequence), sequence["annotations"]
    columns = list(vocabulary.values())
    column_of = {number: columns.index(label) for number, label in vocabulary.items()}
    wrong = next((n for n, label in enumerate(labels) if label not in column_of), None)
    if wrong is not None:
        draft.add_unknown(0, draft.video.n_frames, "a label of it is wrong")
        draft.remarks.add(
            "bad_value",
            f"{name}, label {wrong}",
            f"{labels[wrong]!r} is none of the numbers in its vocab {vocabulary}: correct it; the "
            "sequence is left out.",
        )
        return
    states = np.full((len(labels), len(columns)), NO, np.int8)
    states[np.arange(len(labels)), [column_of[label] for label in labels]] = YES
    draft.add_rows(columns, states)
