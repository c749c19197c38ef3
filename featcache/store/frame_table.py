"""Which distinct frame each clip shows at each step, of a store that keeps every frame once.

Windows of one video share most of their frames, and a model that sees each frame by itself gives a frame the
same tokens in all of them: these are computed and stored once, and a clip is put together as it is read. The
table is a plain Zarr array beside the tokens, so `tokens[frames[clip, view]]` is a clip to any client.
"""

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from einops import rearrange
from jaxtyping import Bool, Int32, Int64, Integer, UInt8

from featcache.errors import StoreError
from featcache.store.shards import CRC_BYTES, checksum
from featcache.store.spec import TOKEN_AXES, FeatureSpec
from featcache.store.zarr_format import chunk_key, json_bytes, plain_metadata
from featcache.system.files import publish

ARRAY = "frames"
AXES = TOKEN_AXES[:3]
KEY_BYTES = 16
"""Of what stands for a frame: equal where frames are equal."""

_STORED = np.dtype("<i4")


@dataclass(frozen=True)
class FrameTable:
    """Numbers of distinct frames, counted in the order in which the clips show them first."""

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
        """How many distinct ones there are."""
        return int(self.numbers.max()) + 1

    @cached_property
    def first_shown(self) -> Int64[np.ndarray, "frame 3"]:
        """(clip, view, step) at which each frame is shown first; clips ascend."""
        _, first = np.unique(self.numbers, return_index=True)
        return np.stack(np.unravel_index(first, self.numbers.shape), axis=-1)

    @cached_property
    def digest(self) -> str:
        """The sha256, in hex, of all numbers."""
        return sha256(self._stored).hexdigest()

    def clips_with(self, frames: Integer[np.ndarray, " n"]) -> Bool[np.ndarray, " clip"]:
        """Which clips show one of these frames."""
        return np.asarray(np.isin(self.numbers, frames).any(axis=(1, 2)))

    def to_bytes(self) -> bytes:
        """The only chunk of the array, with its checksum."""
        return self._stored + checksum(self._stored)

    @classmethod
    def from_bytes(cls, data: bytes, shape: tuple[int, int, int]) -> "FrameTable":
        """Read back what `to_bytes` gave.

        Raises:
            ValueError: it is damaged, or of another shape.
        """
        values, crc = data[:-CRC_BYTES], data[-CRC_BYTES:]
        if len(values) != prod(shape) * _STORED.itemsize or checksum(values) != crc:
            raise ValueError("is truncated or damaged")
        numbers = np.frombuffer(values, _STORED).astype(np.int32)
        return cls(rearrange(numbers, "(b v t) -> b v t", b=shape[0], v=shape[1]))

    @property
    def _stored(self) -> bytes:
        return self.numbers.astype(_STORED).tobytes()


def array_metadata(spec: FeatureSpec) -> dict[str, Any]:
    """The table's `zarr.json`; one chunk, for it is small beside the tokens of a single shard."""
    return plain_metadata(_shape(spec), spec.n_clips, _STORED, AXES)


def write_frame_table(store: Path, spec: FeatureSpec, table: FrameTable) -> None:
    """Put the table of a store there, durably."""
    publish(store / ARRAY / "zarr.json", json_bytes(array_metadata(spec)))
    publish(_chunk(store), table.to_bytes())


def read_frame_table(store: Path, spec: FeatureSpec, digest: str | None) -> FrameTable:
    """The table of the store at a path.

    Raises:
        StoreError: it is missing, damaged, or not the one with this digest.
    """
    path = _chunk(store)
    problem = "is not the table that the store was written with"
    try:
        table = FrameTable.from_bytes(path.read_bytes(), _shape(spec))
        if table.digest == digest:
            return table
    except OSError as failure:
        problem = f"cannot be read ({failure.strerror})"
    except ValueError as damage:
        problem = str(damage)
    raise StoreError(f"{path} {problem}. Run the same `scivid extract` again: it writes the table anew.")


def table_bytes(spec: FeatureSpec) -> int:
    """Size of the table's file; 0 where there is none."""
    return 0 if spec.n_frames is None else prod(_shape(spec)) * _STORED.itemsize + CRC_BYTES


def _shape(spec: FeatureSpec) -> tuple[int, int, int]:
    return spec.n_clips, spec.n_views, spec.grid.steps


def _chunk(store: Path) -> Path:
    return store / ARRAY / chunk_key(0, len(AXES))
