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
    """The array with its rows, and what it depends on: numbers of this split's videos, and no name.

    A video that the manifest does not name is its own.
    """
    (array,) = subject_arrays(of_video, len(index)).values()
    numbers = dict[tuple[bool, str], int]()
    of_source = {
        source: numbers.setdefault((source in of_video, of_video.get(source, source)), len(numbers))
        for source in index.column("source").unique().to_pylist()
    }
    blocks = _Subjects(index, of_source)
    return {SUBJECT: replace(array, blocks=blocks)}, {"subjects": [*of_source.values()]}


@dataclass(frozen=True, slots=True)
class _Subjects:
    """The rows, made as they are written."""

    index: ClipIndex
    of_source: Mapping[str, int]

    def __iter__(self) -> Iterator[Int64[np.ndarray, " b"]]:
        for block in self.index.blocks("source"):
            yield np.array([self.of_source[source] for source in block.column(0).to_pylist()], np.int64)
