"""What a row of a store's arrays is: a clip with its views, or one distinct frame of the clips.

Windows of one video share most of their frames, and a model that sees each frame by itself gives a frame the
same tokens in all of them: these are computed and stored once, and a clip is put together as it is read, by
the `FrameTable`. All that differs between the two kinds of store is answered by `ClipRows` and `FrameRows`:
whoever deals with rows, chunks and their names asks `FeatureSpec.rows` and need not know which it is.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from math import prod
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from einops import rearrange
from jaxtyping import Bool, Int32, Int64, Integer, UInt8

from featcache.spec import TokenGrid

TOKEN_AXES = ("clip", "view", "step", "row", "column", "channel")
"""`dimension_names` of the token arrays of a store whose rows are clips."""

FRAME_AXES = ("frame", "row", "column", "channel")
"""`dimension_names` of the token arrays of a store whose rows are distinct frames."""

KEY_BYTES = 16
"""Length of what stands for a frame: equal where frames are equal."""

DescribeClip = Callable[[int], str]
"""Names a clip in a message: `clip 12 (mouse/007.mp4)`."""


@dataclass(frozen=True)
class FrameTable:
    """Which distinct frame each clip has at each step, numbered in the order of first occurrence."""

    numbers: Int32[np.ndarray, "clip view step"]

    @classmethod
    def of_keys(cls, keys: UInt8[np.ndarray, "clip view step key"]) -> "FrameTable":
        """The table of frames that are known by `KEY_BYTES` bytes each."""
        flat = np.ascontiguousarray(keys).data.cast("B")
        buffers = [None, pa.py_buffer(flat)]
        frames = pa.FixedSizeBinaryArray.from_buffers(pa.binary(KEY_BYTES), prod(keys.shape[:3]), buffers)
        codes = frames.dictionary_encode().indices.to_numpy().astype(np.int32)
        return cls(rearrange(codes, "(b v t) -> b v t", b=keys.shape[0], v=keys.shape[1]))

    @property
    def n_frames(self) -> int:
        """The number of distinct frames."""
        return int(self.numbers.max()) + 1

    @cached_property
    def first_occurrence(self) -> Int64[np.ndarray, "frame 3"]:
        """(clip, view, step) at which each frame occurs first; clips ascend."""
        _, first = np.unique(self.numbers, return_index=True)
        return np.stack(np.unravel_index(first, self.numbers.shape), axis=-1)

    @property
    def stored(self) -> bytes:
        """The numbers as little-endian int32, in C order."""
        return self.numbers.astype("<i4").tobytes()

    @cached_property
    def digest(self) -> str:
        """The sha256, in hex, of all numbers."""
        return sha256(self.stored).hexdigest()

    def clips_with(self, frames: Integer[np.ndarray, " n"]) -> Bool[np.ndarray, " clip"]:
        """Which clips have one of these frames."""
        return np.asarray(np.isin(self.numbers, frames).any(axis=(1, 2)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows(ABC):
    """The rows of a store's token arrays: `ClipRows` or `FrameRows`, made by `rows_of`."""

    axis: ClassVar[Literal["clip", "frame"]]
    """What a row is, and what the first axis is called."""
    axes: ClassVar[tuple[str, ...]]
    """`dimension_names` of the token arrays."""

    grid: TokenGrid
    """Of one clip and view."""
    n_clips: int
    n_views: int

    @property
    @abstractmethod
    def n_rows(self) -> int:
        """Length of the first axis: clips, or distinct frames."""

    @property
    @abstractmethod
    def chunk_shape(self) -> tuple[int, ...]:
        """Shape of the tokens of one chunk, without the axes that count rows and views."""

    @property
    @abstractmethod
    def view_shape(self) -> tuple[int, ...]:
        """Of the axes between rows and chunks: (views,), or () where a row is a single chunk."""

    @property
    @abstractmethod
    def row_shape(self) -> tuple[int, int, int, int, int]:
        """Of a row in memory, (view, step, row, column, channel): a frame has one view and one step."""

    @property
    def chunks_per_row(self) -> int:
        """Views of a clip; 1 of a frame."""
        return prod(self.view_shape)

    @property
    def n_chunks(self) -> int:
        """Chunks of all rows."""
        return self.n_rows * self.chunks_per_row

    @property
    def row_bytes(self) -> int:
        """Bytes of one row in float16."""
        return 2 * prod(self.row_shape)

    @abstractmethod
    def chunks_per_pass(self, n_frames: int) -> int:
        """Chunks that come of one clip of `n_frames` input frames which the model is given."""

    @abstractmethod
    def with_table(self, table: FrameTable | None) -> "Rows":
        """These rows with the table that `chunks_of` and `describe` need; None where rows are clips."""

    @abstractmethod
    def chunks_of(
        self, clips: Int64[np.ndarray, " B"], views: Int64[np.ndarray, " B"]
    ) -> Int64[np.ndarray, " n"]:
        """The chunks, numbered row * chunks_per_row + view, that make up these clips and views, in order."""

    @abstractmethod
    def first_rows(self, clips: Int64[np.ndarray, " B"]) -> Int64[np.ndarray, " B"]:
        """The row in which the tokens of each clip begin."""

    @abstractmethod
    def by_chunk(self, tokens: Any) -> Any:
        """Tokens [clip, step, ...] of an array or tensor, the same memory as [chunk, ...]."""

    @abstractmethod
    def describe(self, row: int, describe_clip: DescribeClip) -> str:
        """A row as messages name it: a clip, or a frame by the clip in which it occurs first."""

    @abstractmethod
    def skipped(self, reasons: Mapping[int, str], ids: pa.ChunkedArray) -> dict[str, list[dict[str, Any]]]:
        """What provenance says of the rows that were not written, given their reasons and the clips' ids."""

    @abstractmethod
    def location_columns(self, rows_per_shard: int) -> dict[str, Int32[np.ndarray, " clip"]]:
        """Columns of the clip table that say where each clip lies, as far as it lies in one piece."""

    def skipped_in(self, provenance: Mapping[str, Any]) -> dict[int, str]:
        """Row -> why it was not written, read back from what `skipped` gave."""
        return {entry[self.axis]: entry["reason"] for entry in provenance.get(f"skipped_{self.axis}s", ())}


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipRows(Rows):
    """A row is a clip, with a chunk for each of its views."""

    axis = "clip"
    axes = TOKEN_AXES

    @property
    def n_rows(self) -> int:
        """The number of clips."""
        return self.n_clips

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """(step, row, column, channel)."""
        return self.grid.shape

    @property
    def view_shape(self) -> tuple[int, ...]:
        """(views,)."""
        return (self.n_views,)

    @property
    def row_shape(self) -> tuple[int, int, int, int, int]:
        """All views of a clip."""
        return (self.n_views, *self.grid.shape)

    def chunks_per_pass(self, n_frames: int) -> int:
        """A clip and view is one chunk."""
        return 1

    def with_table(self, table: FrameTable | None) -> "ClipRows":
        """As they are: there is no table."""
        assert table is None
        return self

    def chunks_of(
        self, clips: Int64[np.ndarray, " B"], views: Int64[np.ndarray, " B"]
    ) -> Int64[np.ndarray, " B"]:
        """One chunk for each clip and view."""
        return np.asarray(clips * self.n_views + views)

    def first_rows(self, clips: Int64[np.ndarray, " B"]) -> Int64[np.ndarray, " B"]:
        """The clips themselves."""
        return clips

    def by_chunk(self, tokens: Any) -> Any:
        """As they are."""
        return tokens

    def describe(self, row: int, describe_clip: DescribeClip) -> str:
        """The clip."""
        return describe_clip(row)

    def skipped(self, reasons: Mapping[int, str], ids: pa.ChunkedArray) -> dict[str, list[dict[str, Any]]]:
        """The list of skipped clips."""
        return {"skipped_clips": _skipped_clips(reasons, ids)}

    def location_columns(self, rows_per_shard: int) -> dict[str, Int32[np.ndarray, " clip"]]:
        """The shard of each clip and its position there."""
        shard, position = np.divmod(np.arange(self.n_clips, dtype=np.int32), rows_per_shard)
        return {"shard": shard, "position": position}


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameRows(Rows):
    """A row is one distinct frame, and a step of a clip is one of them."""

    n_frames: int
    table: FrameTable | None = None
    """None while only the number of frames is known."""

    axis = "frame"
    axes = FRAME_AXES

    @property
    def n_rows(self) -> int:
        """The number of distinct frames."""
        return self.n_frames

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """(row, column, channel)."""
        return self.grid.shape[1:]

    @property
    def view_shape(self) -> tuple[int, ...]:
        """None: a frame is a single chunk."""
        return ()

    @property
    def row_shape(self) -> tuple[int, int, int, int, int]:
        """One view of one step."""
        return (1, *replace(self.grid, steps=1).shape)

    def chunks_per_pass(self, n_frames: int) -> int:
        """Every input frame is a chunk."""
        return n_frames

    def with_table(self, table: FrameTable | None) -> "FrameRows":
        """These rows, and which clips they make up."""
        return replace(self, table=table)

    def chunks_of(
        self, clips: Int64[np.ndarray, " B"], views: Int64[np.ndarray, " B"]
    ) -> Int64[np.ndarray, " n"]:
        """One chunk for each step of each clip and view."""
        return np.asarray(self._known.numbers[clips, views].ravel(), np.int64)

    def first_rows(self, clips: Int64[np.ndarray, " B"]) -> Int64[np.ndarray, " B"]:
        """The frame that each clip begins with."""
        return np.asarray(self._known.numbers[clips, 0, 0], np.int64)

    def by_chunk(self, tokens: Any) -> Any:
        """Every step of every clip on its own, as one of one."""
        return rearrange(tokens, "b t ... -> (b t) 1 ...")

    def describe(self, row: int, describe_clip: DescribeClip) -> str:
        """`frame 3 (step 1 of clip 12 (mouse/007.mp4))`."""
        clip, _, step = self._known.first_occurrence[row].tolist()
        return f"frame {row} (step {step} of {describe_clip(clip)})"

    def skipped(self, reasons: Mapping[int, str], ids: pa.ChunkedArray) -> dict[str, list[dict[str, Any]]]:
        """The list of skipped frames, and that of the clips in which they occur."""
        # In descending order, so that of several frames the first is the one that a clip is said to lack.
        clips = {
            int(clip): f"it shows frame {row}: {why}"
            for row, why in sorted(reasons.items(), reverse=True)
            for clip in np.flatnonzero(self._known.clips_with(np.array([row])))
        }
        frames = [{"frame": row, "reason": why} for row, why in reasons.items()]
        return {"skipped_frames": frames, "skipped_clips": _skipped_clips(dict(sorted(clips.items())), ids)}

    def location_columns(self, rows_per_shard: int) -> dict[str, Int32[np.ndarray, " clip"]]:
        """None: the frames of a clip lie in several shards."""
        return {}

    @property
    def _known(self) -> FrameTable:
        assert self.table is not None, "the frame table was not given"
        return self.table


def rows_of(grid: TokenGrid, *, n_clips: int, n_views: int, n_frames: int | None) -> Rows:
    """The rows of a store: distinct frames where their number is given, otherwise clips."""
    if n_frames is None:
        return ClipRows(grid=grid, n_clips=n_clips, n_views=n_views)
    return FrameRows(grid=grid, n_clips=n_clips, n_views=n_views, n_frames=n_frames)


def _skipped_clips(reasons: Mapping[int, str], ids: pa.ChunkedArray) -> list[dict[str, Any]]:
    return [{"clip": clip, "id": ids[clip].as_py(), "reason": why} for clip, why in reasons.items()]
