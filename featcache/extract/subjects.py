"""Whose a clip is, as the manifest tells it a video at a time: a target beside those of the task's kind."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Int64

from featcache.clips import ClipIndex
from featcache.store.targets import SUBJECT, TargetArray


def subject_arrays(of_video: Mapping[str, str], n_clips: int) -> dict[str, TargetArray]:
    """`subject` [clip] without its rows; nothing where nobody told whose videos are."""
    if not of_video:
        return {}
    return {SUBJECT: TargetArray(shape=(n_clips,), dtype=np.dtype("<i8"), axes=("clip",))}


def subjects_of(
    index: ClipIndex, of_video: Mapping[str, str]
) -> tuple[dict[str, TargetArray], dict[str, Any]]:
    """The array with its rows, and what it depends on: the names of this split's videos alone."""
    (array,) = subject_arrays(of_video, len(index)).values()
    sources = index.column("source").unique().to_pylist()
    parts = {"subjects": {source: of_video.get(source) for source in sources}}
    return {SUBJECT: replace(array, blocks=_Subjects(index, of_video))}, parts


@dataclass(frozen=True, slots=True)
class _Subjects:
    """The rows, made as they are written; a video that the manifest does not name is its own."""

    index: ClipIndex
    of_video: Mapping[str, str]

    def __iter__(self) -> Iterator[Int64[np.ndarray, " b"]]:
        numbers = dict[tuple[bool, str], int]()
        for block in self.index.blocks("source"):
            sources = block.column(0).to_pylist()
            whose = [(source in self.of_video, self.of_video.get(source, source)) for source in sources]
            yield np.array([numbers.setdefault(one, len(numbers)) for one in whose], np.int64)
