"""What builders of targets make, and what all of them tell of the clips and files that they made it of."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from featcache.clips import Clip, ClipIndex
from featcache.data.readers.base import KeepsTargets, Reader
from featcache.errors import DataError
from featcache.extract.job import Extraction
from featcache.store.targets import CLIP_UNITS, TargetArray

Block = Mapping[str, np.ndarray]
"""Rows of some target arrays, by name."""

Arrays = dict[str, TargetArray]


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitTargets:
    """The targets of one split, as `write_targets` takes them."""

    arrays: Arrays
    parts: Mapping[str, Any]
    """What they depend on beside clips and shapes."""
    blocks: Iterable[Block] = field(default=())
    """The rows of those arrays that have no blocks of their own, in order."""


@dataclass(frozen=True, slots=True)
class TargetBuilder:
    """What one kind of task needs of each clip."""

    arrays: Callable[[Extraction, int], Arrays]
    """The arrays' shapes for so many clips, as far as the manifest tells them: files are not opened."""
    build: Callable[[Extraction, ClipIndex, Reader], SplitTargets]
    """The targets of clips that a reader has; what is large is read when it is written."""


def about(job: Extraction, index: ClipIndex, reader: Reader) -> dict[str, Any]:
    """What targets of any kind depend on beside the clips: which of the records' features they are."""
    dataset = job.dataset
    about = {"kind": job.task.kind, "data_version": dataset.version, "features": dict(dataset.features)}
    if isinstance(reader, KeepsTargets):
        sources = index.column("source").unique().to_pylist()
        about |= {"frames": asdict(job.clip_spec), "values": reader.targets_digest(sources)}
    return about


def clips_of(index: ClipIndex) -> Iterator[Clip]:
    """All clips, one at a time."""
    return (index.clip(number) for number in range(len(index)))


def cluster_arrays(job: Extraction, n_clips: int) -> dict[str, TargetArray]:
    """An array [clip] of each of `CLIP_UNITS` that the data set has."""
    axes, dtype = ("clip",), np.dtype("<i8")
    names = [name for name in CLIP_UNITS if name in job.dataset.features]
    return {name: TargetArray(shape=(n_clips,), dtype=dtype, axes=axes) for name in names}


def clusters(job: Extraction, clip: Clip, found: Block) -> dict[str, np.ndarray]:
    """The rows of those arrays that a record tells, a number each.

    Raises:
        DataError: the record holds something else; names the clip.
    """
    units = {name: found[name] for name in CLIP_UNITS if name in job.dataset.features}
    for name, values in units.items():
        if values.shape != (1,) or values.dtype.kind != "i":
            raise DataError(
                f"{clip.location}: {name} is {values.tolist()}, not one whole number: "
                "correct `features` in the manifest."
            )
    return {name: values.astype("<i8") for name, values in units.items()}
