"""The clips of a split: where each one's frames are, its labels, and the index of them all.

The index is what a store is extracted from: one row per clip in file order, and a digest that changes with
any row or their order. It is a table in memory, or one on disk of which no more is read than is asked for.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int64, UInt8

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
"""Rows that are looked at at a time; the digest is made of blocks of so many."""


@runtime_checkable
class StoredRows(Protocol):
    """A table on disk, read as far as it is asked for (`featcache.system.row_groups.RowGroups`)."""

    path: Path
    schema: pa.Schema

    @property
    def num_rows(self) -> int:
        """Rows of the table."""

    def blocks(self, *columns: str) -> Iterator[pa.Table]:
        """Some columns, all without a name, `DIGEST_ROWS` rows at a time."""

    def take(self, rows: Sequence[int], *columns: str) -> pa.Table:
        """Some rows in the order given."""


@runtime_checkable
class Listed(Protocol):
    """Clips as an index or a store lists them."""

    def __len__(self) -> int: ...

    def blocks(self, *columns: str) -> Iterator[pa.Table]:
        """As of `StoredRows`."""


@dataclass(frozen=True)
class ClipIndex:
    """All clips of a split in file order, as a table with the columns of `CLIP_SCHEMA`.

    Raises:
        DataError: the columns are others, or an id stands twice.
    """

    clips: pa.Table | StoredRows
    known_digests: tuple[str, str] | None = None
    """What `digest` and `frames_digest` were found to be as the rows were put down; they are trusted."""

    def __post_init__(self) -> None:
        if not self.clips.schema.equals(CLIP_SCHEMA):
            raise DataError(f"a clip index has the columns {CLIP_SCHEMA.names}; found {self.clips.schema}.")
        if not isinstance(self.clips, pa.Table):
            if self.known_digests is None:
                self._refuse_alike()
            return
        ids = self.clips.column("id")
        if len(ids.unique()) != len(ids):
            _refuse_repeated(Counter(ids.to_pylist()))
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
        if isinstance(self.clips, pa.Table):
            found = self.clips.slice(i, 1)
        else:
            with self._readable(self.clips):
                found = self.clips.take([i])
        (row,) = found.to_pylist()
        return Clip(**{**row, "labels": tuple(row["labels"])})

    def blocks(self, *columns: str) -> Iterator[pa.Table]:
        """Some columns, all without a name, `DIGEST_ROWS` rows at a time."""
        if not isinstance(self.clips, pa.Table):
            with self._readable(self.clips):
                yield from self.clips.blocks(*columns)
            return
        table = self.clips.select(columns or CLIP_SCHEMA.names)
        for start in range(0, len(self), DIGEST_ROWS):
            yield table.slice(start, DIGEST_ROWS)

    def column(self, name: str) -> pa.ChunkedArray:
        """All of one column, in memory."""
        return pa.concat_tables([CLIP_SCHEMA.empty_table().select([name]), *self.blocks(name)]).column(0)

    @property
    def digest(self) -> str:
        """The sha256, in hex, of all rows in their order, whatever chunks or file the table came from."""
        return self.digests[0]

    @property
    def frames_digest(self) -> str:
        """The digest of the rows without their labels: what features depend on, and no more."""
        return self.digests[1]

    @cached_property
    def digests(self) -> tuple[str, str]:
        """`digest` and `frames_digest`, both of one look at all rows."""
        if self.known_digests is not None:
            return self.known_digests
        rows, frames = sha256(), sha256()
        for name in CLIP_SCHEMA.names:
            for number, block in enumerate(self.blocks(name)):
                values = _values(block.column(0))
                text = json.dumps([name, number * DIGEST_ROWS, values]).encode()
                rows.update(text)
                if name in FRAME_COLUMNS:
                    frames.update(text)
        return rows.hexdigest(), frames.hexdigest()

    @staticmethod
    @contextmanager
    def _readable(rows: StoredRows) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as problem:
            raise DataError(
                f"the list of clips {rows.path} cannot be read: it {problem}. Delete it and run the same "
                "command again, which makes it anew."
            ) from problem

    def _refuse_alike(self) -> None:
        """Refuse ids that stand twice, by eight bytes each: the ids themselves would fill the memory."""
        keys = np.empty(len(self), np.int64)
        for number, block in enumerate(self.blocks("id")):
            start = number * DIGEST_ROWS
            keys[start : start + len(block)] = _keys(block.column(0))
        keys.sort()
        twice = np.unique(keys[1:][keys[1:] == keys[:-1]])
        if len(twice):
            # Two of very many may have the same key by chance.
            suspects = Counter(
                name
                for block in self.blocks("id")
                for name in block.column(0).filter(np.isin(_keys(block.column(0)), twice)).to_pylist()
            )
            _refuse_repeated(suspects)


def _values(column: pa.ChunkedArray) -> list[Any]:
    """As `to_pylist`, in a fifth of its time where a value is no list."""
    found: list[Any] = column.to_pylist() if pa.types.is_list(column.type) else column.to_numpy().tolist()
    return found


def _keys(ids: pa.ChunkedArray) -> Int64[np.ndarray, " n"]:
    return np.fromiter(map(hash, _values(ids)), np.int64, len(ids))


def _refuse_repeated(ids: Counter[str]) -> None:
    repeated, times = ids.most_common(1)[0]
    if times > 1:
        raise DataError(f"the clip id {repeated!r} stands in several rows: keep one.")


def shared_between(role: str, clips: Listed, other: str, others: Listed, *, of_videos: bool) -> str | None:
    """What two splits of a task have in common, in a sentence; None where that is nothing.

    Args:
        role: of the split that is learned from, or selected on.
        clips: its clip index, or the clip table of its store; read a block at a time.
        other: of the split that is scored.
        others: as `clips`.
        of_videos: clips are cut from videos, known by path and content: two that share one are no more
            independent than its frames. Else a clip is a record, known by its digest.
    """
    if not of_videos:
        # Of the split that is scored, which is the smaller one, all digests are held.
        digests = _distinct(others, "digest")
        found = _found_in(digests, clips, "digest")
        same = sum(
            pc.sum(pc.is_in(b["digest"], value_set=found)).as_py() or 0 for b in others.blocks("digest")
        )
        what = f"{same} of the {len(others)} clips of {other} are clips of {role} as well"
        return f"{what}: {other} says little of clips that were not seen." if same else None
    found_in = {name: _found_in(_distinct(others, name), clips, name) for name in ("source", "digest")}
    sources, videos = dict[str, None](), set[str]()
    for block in others.blocks("source", "digest"):
        same_video = pc.or_(*(pc.is_in(block[name], value_set=found) for name, found in found_in.items()))
        sources |= dict.fromkeys(block["source"].filter(same_video).to_pylist())
        videos |= set(block["source"].unique().to_pylist())
    if not sources:
        return None
    asked = {pair for block in others.blocks("digest", "record") for pair in _pairs(block)}
    n_same = len(
        {pair for block in clips.blocks("digest", "record") for pair in _pairs(block) if pair in asked}
    )
    also = f", and {n_same} of the {len(asked)} clips are the same" if n_same else ""
    return (
        f"{len(sources)} of the {len(videos)} videos of {other} are videos of {role} as well "
        f"({few(list(sources), 2)}){also}: {other} says little of other videos. Give each video to one split."
    )


def _distinct(clips: Listed, name: str) -> pa.Array:
    none = pa.array([], CLIP_SCHEMA.field(name).type)
    return pa.chunked_array([none, *(block[name].unique() for block in clips.blocks(name))]).unique()


def _found_in(values: pa.Array, clips: Listed, name: str) -> pa.Array:
    """Those of some distinct values that stand in a column."""
    found, blocks = [values[:0]], clips.blocks(name)
    # Two million rows at a time, for each time the values are hashed anew.
    while some := list(islice(blocks, 32)):
        column = pa.concat_tables(some)[name]
        found.append(column.filter(pc.is_in(column, value_set=values)).unique())
    return pa.chunked_array(found).unique()


def _pairs(block: pa.Table) -> Iterator[tuple[str, int]]:
    return zip(block["digest"].to_pylist(), block["record"].to_pylist(), strict=True)


def label_matrix(index: ClipIndex, n_classes: int) -> UInt8[np.ndarray, "B O"]:
    """Multi-hot labels: 1 where a clip has the class, however often it is listed; no labels, no ones.

    Source: `OneHot` of the reference, summed over a clip's labels and clipped at 1.

    Raises:
        DataError: a label lies outside 0 to `n_classes - 1`; names the clip.
    """
    return np.concatenate([np.zeros((0, n_classes), np.uint8), *label_blocks(index, n_classes)])


def label_blocks(index: ClipIndex, n_classes: int) -> Iterator[UInt8[np.ndarray, "b O"]]:
    """The same, `DIGEST_ROWS` clips at a time; raises as `label_matrix`."""
    for number, block in enumerate(index.blocks("labels")):
        lists = block.column(0)
        n_labels = pc.list_value_length(lists).to_numpy()
        rows, labels = np.repeat(np.arange(len(block)), n_labels), pc.list_flatten(lists).to_numpy()
        outside = np.flatnonzero((labels < 0) | (labels >= n_classes))
        if outside.size:
            clip = index.clip(number * DIGEST_ROWS + int(rows[outside[0]]))
            raise DataError(
                f"clip {clip.id} of {clip.source} has the label {labels[outside[0]]}; classes count from 0 "
                f"to {n_classes - 1}: correct the labels, or list all classes in the manifest."
            )
        matrix = np.zeros((len(block), n_classes), np.uint8)
        matrix[rows, labels] = 1
        yield matrix
