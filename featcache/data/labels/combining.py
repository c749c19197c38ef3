"""Several label files as one: which of them counts where two label one video, and how far they differ.

A project of BORIS tells more than its tables, and those more than what was made of them. Files of one rank
are never added up: they say the same, or the user chooses.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from featcache.data.labels.base import YES, Annotations, VideoLabels
from featcache.data.labels.remarks import Remark, Remarks
from featcache.errors import few

_RANKS = {"boris": 0, "boris_tables": 1}
_OTHER_RANK = 2
_ROLES = ("train", "val", "test")


def combined(files: Sequence[Annotations]) -> Annotations:
    """What several files say together; a video has its labels from one of them, and stands in one split."""
    classes = dict.fromkeys(name for file in files for name in file.classes)
    remarks = [remark for file in files for remark in file.remarks]
    of_video = dict[str, list[tuple[int, VideoLabels]]]()
    for file in files:
        rank = _RANKS.get(file.format, _OTHER_RANK)
        for labels in file.videos:
            of_video.setdefault(labels.video.source, []).append((rank, labels))
    taken = list[VideoLabels]()
    for found in of_video.values():
        chosen, said = _one(found)
        taken += chosen
        remarks = [_lightened(remark, found) for remark in remarks] + list(said)
    remarks += _lacking(files)
    backgrounds = dict.fromkeys(file.background for file in files if file.background)
    return Annotations(
        format=", ".join(dict.fromkeys(file.format for file in files)),
        classes=tuple(classes),
        videos=tuple(taken),
        background=next(iter(backgrounds), None),
        missing=tuple(dict.fromkeys(name for file in files for name in file.missing)),
        remarks=tuple(dict.fromkeys(remarks)),
    )


def _one(found: Sequence[tuple[int, VideoLabels]]) -> tuple[list[VideoLabels], Sequence[Remark]]:
    """The labels of one video that count, and what is to be said of the others."""
    ranked = sorted(found, key=lambda pair: (pair[0], not pair[1].is_labelled))
    (rank, first), others = ranked[0], ranked[1:]
    remarks = Remarks(first.file or Path(first.video.source))
    splits = sorted({labels.split for _, labels in found if labels.split}, key=_order)
    if len(splits) > 1:
        kept = next(labels for _, labels in found if labels.split == splits[0])
        remarks.add(
            "leak",
            first.video.source,
            f"stands in {' and '.join(splits)}: it stays in {splits[0]} alone, else scores would be of "
            "what was "
            "learned.",
        )
        return [kept], remarks.all
    taken = [first]
    for other_rank, other in others:
        if not other.is_labelled:
            continue
        differing = _difference(first, other)
        name = other.file.name if other.file else "another file"
        if not differing:
            continue
        if other_rank == rank:
            remarks.add(
                "labelled_twice",
                first.video.source,
                f"labelled by {name} too, and not the same ({differing}): they are not added up; give one of "
                "them.",
            )
            taken = []
        else:
            remarks.add(
                "disagree",
                first.video.source,
                f"{name} has other labels ({differing}): this file is taken, that one left out.",
            )
    if first.split is None and splits:
        taken = [replace(labels, split=splits[0]) for labels in taken]
    return taken, remarks.all


def _lightened(remark: Remark, found: Sequence[tuple[int, VideoLabels]]) -> Remark:
    """What is refused of a video in one file only has to be said where a better file labels it."""
    best = min(found, key=lambda pair: (not pair[1].is_labelled, pair[0]))[1]
    here = remark.where == best.video.source and best.file is not None and remark.file != best.file.name
    return (
        replace(remark, weight="say") if here and remark.kind == "row_count" and best.is_labelled else remark
    )


def _lacking(files: Sequence[Annotations]) -> list[Remark]:
    """Of each table of several observations the videos that a project beside it labels, and it does not."""
    projects, said = [file for file in files if file.format == "boris"], list[Remark]()
    coded = {v.video.source: v.file for file in projects for v in file.videos if v.bouts or v.points}
    for table in (file for file in files if file.format == "boris_tables" and len(file.videos) > 1):
        lacking = sorted(coded.keys() - {labels.video.source for labels in table.videos})
        if lacking and table.videos[0].file is not None:
            remarks = Remarks(table.videos[0].file)
            remarks.add(
                "disagree",
                "",
                f"has no row of {few(lacking)}, which the project codes: exports leave out what lies past "
                "the "
                "media's length, as where there is a time offset. The project is taken.",
            )
            said += remarks.all
    return said


def _order(split: str) -> int:
    return _ROLES.index(split) if split in _ROLES else len(_ROLES)


def _difference(one: VideoLabels, other: VideoLabels) -> str:
    """In how many frames two files have other labels, a class; nothing where they say the same."""
    names = sorted({event.label for labels in (one, other) for event in labels.events})
    counts = {name: int(np.count_nonzero(_shown(one, name) != _shown(other, name))) for name in names}
    return few([f"{name} in {n} frames" for name, n in counts.items() if n], 4)


def _shown(labels: VideoLabels, name: str) -> Bool[np.ndarray, "1 F"]:
    shown: np.ndarray = (labels.states([name]) == YES) | labels.pointed([name])
    return shown
