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
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from einops import rearrange
from jaxtyping import Int32, Int64, UInt8

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Clips, with a chunk for each of their views; or the distinct frames of the clips, each a chunk."""

    grid: TokenGrid
    """The tokens of one clip and view."""
    n_clips: int
    n_views: int
    n_frames: int | None = None
    """Distinct frames, where these are the rows; None where clips are."""
    table: FrameTable | None = None
    """Which frames make up each clip; None as `n_frames`, and while only their number is known."""

    @property
    def axis(self) -> Literal["clip", "frame"]:
        """What a row is, and what the first axis is called."""
        return "clip" if self.n_frames is None else "frame"

    @property
    def axes(self) -> tuple[str, ...]:
        """`dimension_names` of the token arrays."""
        return TOKEN_AXES if self.n_frames is None else FRAME_AXES

    @property
    def n_rows(self) -> int:
        """Length of the first axis."""
        return self.n_clips if self.n_frames is None else self.n_frames

    @property
    def row_shape(self) -> tuple[int, int, int, int, int]:
        """Shape of a row in memory, (view, step, row, column, channel): a frame has one view and one step."""
        if self.n_frames is None:
            return (self.n_views, *self.grid.shape)
        return (1, *replace(self.grid, steps=1).shape)

    @property
    def view_shape(self) -> tuple[int, ...]:
        """Shape of the axes between rows and chunks: (views,), or () where a row is a single chunk."""
        return self.row_shape[:1] if self.n_frames is None else ()

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Shape of the tokens of one chunk: (step, row, column, channel), or a frame's without the step."""
        return self.row_shape[1:] if self.n_frames is None else self.row_shape[2:]

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
        return 1 if self.n_frames is None else n_frames

    def chunks_of(
        self, clips: Int64[np.ndarray, " B"], views: Int64[np.ndarray, " B"]
    ) -> Int64[np.ndarray, " n"]:
        """The chunks, numbered row * chunks_per_row + view, that make up these clips and views, in order."""
        if (frames := self._frames) is None:
            return np.asarray(clips * self.n_views + views)
        return np.asarray(frames.numbers[clips, views].ravel(), np.int64)

    def first_rows(self, clips: Int64[np.ndarray, " B"]) -> Int64[np.ndarray, " B"]:
        """The row in which the tokens of each clip begin."""
        frames = self._frames
        return clips if frames is None else np.asarray(frames.numbers[clips, 0, 0], np.int64)

    def by_chunk(self, tokens: Any) -> Any:
        """Tokens [clip, step, ...] of an array or tensor as [chunk, step, ...]: the same memory."""
        return tokens if self.n_frames is None else rearrange(tokens, "b t ... -> (b t) 1 ...")

    def describe(self, row: int, describe_clip: Callable[[int], str]) -> str:
        """A row as messages name it: a clip, or `frame 3 (step 1 of clip 12 (mouse/007.mp4))`, its first."""
        if (frames := self._frames) is None:
            return describe_clip(row)
        clip, _, step = frames.first_occurrence[row].tolist()
        return f"frame {row} (step {step} of {describe_clip(clip)})"

    def skipped(
        self, reasons: Mapping[int, str], id_of: Callable[[int], str]
    ) -> dict[str, list[dict[str, Any]]]:
        """What provenance says of rows that were not written, given their reasons and the clips' ids.

        Of skipped frames also the clips in which they occur.
        """
        entries, clips = {}, dict(reasons)
        if (frames := self._frames) is not None:
            entries["skipped_frames"] = [{"frame": row, "reason": why} for row, why in reasons.items()]
            # In descending order, so that of several frames the first is the one that a clip is said to lack.
            clips = {
                int(clip): f"it shows frame {row}: {why}"
                for row, why in sorted(reasons.items(), reverse=True)
                for clip in np.flatnonzero((frames.numbers == row).any(axis=(1, 2)))
            }
        entries["skipped_clips"] = [
            {"clip": clip, "id": id_of(clip), "reason": why} for clip, why in sorted(clips.items())
        ]
        return entries

    def skipped_in(self, provenance: Mapping[str, Any]) -> dict[int, str]:
        """Row -> why it was not written, read back from what `skipped` gave."""
        return {entry[self.axis]: entry["reason"] for entry in provenance.get(f"skipped_{self.axis}s", ())}

    def location_columns(self, rows_per_shard: int, clips: range) -> dict[str, Int32[np.ndarray, " clip"]]:
        """Columns of the clip table that say where some clips lie, if all of each is in one shard."""
        if self.n_frames is not None:
            return {}
        shard, position = np.divmod(np.arange(clips.start, clips.stop, dtype=np.int32), rows_per_shard)
        return {"shard": shard, "position": position}

    @property
    def _frames(self) -> FrameTable | None:
        """The table; None where rows are clips."""
        assert (self.table is None) == (self.n_frames is None), "the frame table was not given"
        return self.table
