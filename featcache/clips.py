"""The clips of a split: where each one's frames are, its labels, and the index of them all.

The index is what a store is extracted from: one row per clip in file order, and a digest that changes with
any row or their order.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import UInt8

from featcache.errors import DataError, few

CLIP_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("record", pa.int64()),
        ("n_source", pa.int64()),
        ("labels", pa.list_(pa.int32())),
        ("digest", pa.string()),
    ]
)
"""Columns of a clip index: the fields of `Clip`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """One clip of a split: where its frames are, and its labels."""

    id: str
    """Unique in its split, and the same wherever the data folder lies."""
    source: str
    """The file, as a path below the data folder."""
    record: int
    """Record number in the file; for videos the first frame."""
    n_source: int
    """Frames in the record; for videos, from the first frame to the end."""
    labels: tuple[int, ...] = ()
    """Class numbers as stored, repeats and order included; may be empty."""
    digest: str
    """16 hex digits of BLAKE2b of the record's bytes; for videos of the file's."""

    @property
    def location(self) -> str:
        """File and record, as the beginning of a message."""
        return f"{self.source}, record {self.record}"


FRAME_COLUMNS = tuple(name for name in CLIP_SCHEMA.names if name != "labels")
"""The columns that decide which frames a clip has."""

DIGEST_ROWS = 65_536
"""Rows that are Python objects at a time while an index is digested."""


@dataclass(frozen=True)
class ClipIndex:
    """All clips of a split in file order, as a table with the columns of `CLIP_SCHEMA`.

    Raises:
        DataError: the columns are others, or an id stands twice.
    """

    clips: pa.Table

    def __post_init__(self) -> None:
        if not self.clips.schema.equals(CLIP_SCHEMA):
            raise DataError(f"a clip index has the columns {CLIP_SCHEMA.names}; found {self.clips.schema}.")
        ids = self.clips.column("id")
        if len(ids.unique()) != len(ids):
            repeated, _ = Counter(ids.to_pylist()).most_common(1)[0]
            raise DataError(f"the clip id {repeated!r} stands in several rows: keep one.")
        # A row of a table in ten thousand pieces, one a block of a scan, takes milliseconds to find.
        object.__setattr__(self, "clips", self.clips.combine_chunks())

    @classmethod
    def from_clips(cls, clips: Iterable[Clip]) -> "ClipIndex":
        """The index of `clips`, in their order."""
        return cls(pa.Table.from_pylist([asdict(clip) for clip in clips], schema=CLIP_SCHEMA))

    def __len__(self) -> int:
        return cast(int, self.clips.num_rows)

    def clip(self, i: int) -> Clip:
        """Clip number `i`, from 0."""
        (row,) = self.clips.slice(i, 1).to_pylist()
        return Clip(**{**row, "labels": tuple(row["labels"])})

    @cached_property
    def digest(self) -> str:
        """The sha256, in hex, of all rows in their order, whatever chunks or file the table came from."""
        return self._digest_of(CLIP_SCHEMA.names)

    @cached_property
    def frames_digest(self) -> str:
        """The digest of the rows without their labels: what features depend on, and no more."""
        return self._digest_of(FRAME_COLUMNS)

    def _digest_of(self, columns: Iterable[str]) -> str:
        rows = sha256()
        for name in columns:
            column = self.clips.column(name)
            for start in range(0, len(self), DIGEST_ROWS):
                values = column.slice(start, DIGEST_ROWS).to_pylist()
                rows.update(json.dumps([name, start, values]).encode())
        return rows.hexdigest()


def shared_between(
    role: str, clips: pa.Table, other: str, others: pa.Table, *, of_videos: bool
) -> str | None:
    """What two splits of a task have in common, in a sentence; None where that is nothing.

    Args:
        role: of the split that is learned from, or selected on.
        clips: its clip index, or the clip table of its store.
        other: of the split that is scored.
        others: as `clips`.
        of_videos: clips are cut from videos, known by path and content: two that share one are no more
            independent than its frames. Else a clip is a record, known by its digest.
    """
    if not of_videos:
        same = pc.sum(pc.is_in(others["digest"], value_set=clips["digest"].unique())).as_py() or 0
        what = f"{same} of the {len(others)} clips of {other} are clips of {role} as well"
        return f"{what}: {other} says little of clips that were not seen." if same else None
    videos = [pc.is_in(others[name], value_set=clips[name].unique()) for name in ("source", "digest")]
    sources = others["source"].filter(pc.or_(*videos)).unique().to_pylist()
    if not sources:
        return None
    seen, asked = (
        {*zip(of["digest"].to_pylist(), of["record"].to_pylist(), strict=True)} for of in (clips, others)
    )
    n_videos = len(others["source"].unique())
    also = f", and {len(seen & asked)} of the {len(asked)} clips are the same" if seen & asked else ""
    return (
        f"{len(sources)} of the {n_videos} videos of {other} are videos of {role} as well "
        f"({few(sources, 2)}){also}: {other} says little of other videos. Give each video to one split."
    )


def label_matrix(index: ClipIndex, n_classes: int) -> UInt8[np.ndarray, "B O"]:
    """Multi-hot labels: 1 where a clip has the class, however often it is listed; no labels, no ones.

    Source: `OneHot` of the reference, summed over a clip's labels and clipped at 1.

    Raises:
        DataError: a label lies outside 0 to `n_classes - 1`; names the clip.
    """
    # List offsets start at a table's first row only once its chunks are one array.
    lists = index.clips.column("labels").combine_chunks()
    n_labels = lists.value_lengths().to_numpy(zero_copy_only=False)
    rows = np.repeat(np.arange(len(index)), n_labels)
    labels = lists.flatten().to_numpy(zero_copy_only=False)
    outside = np.flatnonzero((labels < 0) | (labels >= n_classes))
    if outside.size:
        clip = index.clip(int(rows[outside[0]]))
        raise DataError(
            f"clip {clip.id} of {clip.source} has the label {labels[outside[0]]}; classes count from 0 to "
            f"{n_classes - 1}: correct the labels, or list all classes in the manifest."
        )
    matrix = np.zeros((len(index), n_classes), np.uint8)
    matrix[rows, labels] = 1
    return matrix
