"""What a row of a store's arrays is: a clip with its views, or one distinct frame of the clips.

Windows of one video share most of their frames, and a model that sees each frame by itself gives a frame the
same tokens in all of them: these are computed and stored once, and a clip is put together as it is read, by
the `FrameTable`. All that differs between the two kinds of store is answered here: whoever deals with rows,
chunks and their names asks `FeatureSpec.rows` and need not know which it is.
"""

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
class Rows:
    """Rows that are clips: a clip has a chunk for each of its views. `FrameRows` are the other kind."""

    axis: ClassVar[Literal["clip", "frame"]] = "clip"
    """What a row is, and what the first axis is called."""
    axes: ClassVar[tuple[str, ...]] = TOKEN_AXES
    """`dimension_names` of the token arrays."""

    grid: TokenGrid
    """The tokens of one clip and view."""
    n_clips: int
    n_views: int

    @property
    def n_rows(self) -> int:
        """Length of the first axis: clips, or distinct frames."""
        return self.n_clips

    @property
    def row_shape(self) -> tuple[int, int, int, int, int]:
        """Shape of a row in memory, (view, step, row, column, channel): a frame has one view and one step."""
        return (self.n_views, *self.grid.shape)

    @property
    def view_shape(self) -> tuple[int, ...]:
        """Shape of the axes between rows and chunks: (views,), or () where a row is a single chunk."""
        return self.row_shape[:1]

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Shape of the tokens of one chunk: (step, row, column, channel), or a frame's without the step."""
        return self.row_shape[1:]

    @property
    def chunks_per_row(self) -> int:
        """Views of a clip; 1 of a frame."""
        return self.row_shape[0]

    @property
    def n_chunks(self) -> int:
        """Chunks of all rows."""
        return self.n_rows * self.chunks_per_row

    @property
    def row_bytes(self) -> int:
        """Bytes of one row in float16."""
        return 2 * prod(self.row_shape)

    def chunks_per_pass(self, n_frames: int) -> int:
        """Chunks that come of one clip of `n_frames` input frames: one, or one for each frame."""
        return 1

    def with_table(self, table: FrameTable | None) -> "Rows":
        """These rows with the table that says which frames make up a clip; None where rows are clips."""
        assert table is None
        return self

    def chunks_of(
        self, clips: Int64[np.ndarray, " B"], views: Int64[np.ndarray, " B"]
    ) -> Int64[np.ndarray, " n"]:
        """The chunks, numbered row * chunks_per_row + view, that make up these clips and views, in order."""
        return np.asarray(clips * self.n_views + views)

    def first_rows(self, clips: Int64[np.ndarray, " B"]) -> Int64[np.ndarray, " B"]:
        """The row in which the tokens of each clip begin."""
        return clips

    def by_chunk(self, tokens: Any) -> Any:
        """Tokens [clip, step, ...] of an array or tensor as [chunk, ...]: the same memory."""
        return tokens

    def describe(self, row: int, describe_clip: Callable[[int], str]) -> str:
        """A row as messages name it: a clip, or a frame by the clip in which it occurs first."""
        return describe_clip(row)

    def skipped(self, reasons: Mapping[int, str], ids: pa.ChunkedArray) -> dict[str, list[dict[str, Any]]]:
        """What provenance says of the rows that were not written, given their reasons and the clips' ids."""
        clips = [{"clip": clip, "id": ids[clip].as_py(), "reason": why} for clip, why in reasons.items()]
        return {"skipped_clips": clips}

    def skipped_in(self, provenance: Mapping[str, Any]) -> dict[int, str]:
        """Row -> why it was not written, read back from what `skipped` gave."""
        return {entry[self.axis]: entry["reason"] for entry in provenance.get(f"skipped_{self.axis}s", ())}

    def location_columns(self, rows_per_shard: int) -> dict[str, Int32[np.ndarray, " clip"]]:
        """Columns of the clip table that say where each clip lies, if it lies in one piece."""
        shard, position = np.divmod(np.arange(self.n_clips, dtype=np.int32), rows_per_shard)
        return {"shard": shard, "position": position}


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameRows(Rows):
    """Rows that are distinct frames, each a chunk: a step of a clip is one of them."""

    axis = "frame"
    axes = FRAME_AXES

    n_frames: int
    table: FrameTable | None = None
    """None while only the number of frames is known."""

    @property
    def n_rows(self) -> int:
        """The number of distinct frames."""
        return self.n_frames

    @property
    def row_shape(self) -> tuple[int, int, int, int, int]:
        """One view of one step."""
        return (1, *replace(self.grid, steps=1).shape)

    @property
    def view_shape(self) -> tuple[int, ...]:
        """Empty: a frame is a single chunk."""
        return ()

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """(row, column, channel)."""
        return self.row_shape[2:]

    def chunks_per_pass(self, n_frames: int) -> int:
        """Every input frame is a chunk."""
        return n_frames

    def with_table(self, table: FrameTable | None) -> "FrameRows":
        """As `Rows.with_table`."""
        return replace(self, table=table)

    def chunks_of(
        self, clips: Int64[np.ndarray, " B"], views: Int64[np.ndarray, " B"]
    ) -> Int64[np.ndarray, " n"]:
        """One chunk for each step of each clip and view."""
        return np.asarray(self._frames.numbers[clips, views].ravel(), np.int64)

    def first_rows(self, clips: Int64[np.ndarray, " B"]) -> Int64[np.ndarray, " B"]:
        """The frame that each clip begins with."""
        return np.asarray(self._frames.numbers[clips, 0, 0], np.int64)

    def by_chunk(self, tokens: Any) -> Any:
        """Every step of every clip on its own, with an axis for its only step."""
        return rearrange(tokens, "b t ... -> (b t) 1 ...")

    def describe(self, row: int, describe_clip: Callable[[int], str]) -> str:
        """`frame 3 (step 1 of clip 12 (mouse/007.mp4))`."""
        clip, _, step = self._frames.first_occurrence[row].tolist()
        return f"frame {row} (step {step} of {describe_clip(clip)})"

    def skipped(self, reasons: Mapping[int, str], ids: pa.ChunkedArray) -> dict[str, list[dict[str, Any]]]:
        """The skipped frames, and the clips in which they occur."""
        # In descending order, so that of several frames the first is the one that a clip is said to lack.
        clips = {
            int(clip): f"it shows frame {row}: {why}"
            for row, why in sorted(reasons.items(), reverse=True)
            for clip in np.flatnonzero(self._frames.clips_with(np.array([row])))
        }
        frames = [{"frame": row, "reason": why} for row, why in reasons.items()]
        return {"skipped_frames": frames, **Rows.skipped(self, dict(sorted(clips.items())), ids)}

    def location_columns(self, rows_per_shard: int) -> dict[str, Int32[np.ndarray, " clip"]]:
        """None: the frames of a clip lie in several shards."""
        return {}

    @property
    def _frames(self) -> FrameTable:
        assert self.table is not None, "the frame table was not given"
        return self.table


def rows_of(grid: TokenGrid, *, n_clips: int, n_views: int, n_frames: int | None) -> Rows:
    """The rows of a store: distinct frames where their number is given, otherwise clips."""
    if n_frames is None:
        return Rows(grid=grid, n_clips=n_clips, n_views=n_views)
    return FrameRows(grid=grid, n_clips=n_clips, n_views=n_views, n_frames=n_frames)
