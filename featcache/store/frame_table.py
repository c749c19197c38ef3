"""The frame table of a store that keeps every distinct frame once, as a plain Zarr array beside the tokens.

So `tokens[frames[clip, view]]` is a clip to any Zarr client. A store of clips has no such array: then there
is nothing to write, to read or to count.
"""

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from einops import rearrange

from featcache.errors import StoreError
from featcache.store.rows import TOKEN_AXES, FrameTable
from featcache.store.shards import checksum
from featcache.store.spec import CRC_BYTES, FeatureSpec
from featcache.store.zarr_format import chunk_key, plain_metadata
from featcache.system.files import publish, read_regular

ARRAY = "frames"
AXES = TOKEN_AXES[:3]

_STORED = np.dtype("<i4")


def to_bytes(table: FrameTable) -> bytes:
    """The only chunk of the array, with its checksum."""
    return table.stored + checksum(table.stored)


def from_bytes(data: bytes, shape: tuple[int, int, int]) -> FrameTable:
    """Read back what `to_bytes` gave.

    Raises:
        ValueError: it is damaged, or of another shape.
    """
    values, crc = data[:-CRC_BYTES], data[-CRC_BYTES:]
    if len(values) != prod(shape) * _STORED.itemsize or checksum(values) != crc:
        raise ValueError("is truncated or damaged")
    numbers = np.frombuffer(values, _STORED).astype(np.int32)
    return FrameTable(rearrange(numbers, "(b v t) -> b v t", b=shape[0], v=shape[1]))


def table_metadata(spec: FeatureSpec) -> dict[str, dict[str, Any]]:
    """The table's name and its `zarr.json`; one chunk, for it is small beside the tokens of one shard."""
    if spec.n_frames is None:
        return {}
    return {ARRAY: plain_metadata(_shape(spec), spec.n_clips, _STORED, AXES)}


def write_frame_table(store: Path, table: FrameTable | None) -> None:
    """Put the numbers of a store's table there, if it has one."""
    if table is not None:
        publish(_chunk(store), to_bytes(table))


def read_frame_table(store: Path, spec: FeatureSpec, digest: str | None) -> FrameTable | None:
    """The table of the store at a path; None where its rows are clips.

    Raises:
        StoreError: it is missing, damaged, or not the one with this digest.
    """
    if spec.n_frames is None:
        return None
    path = _chunk(store)
    problem = "is not the table that the store was written with"
    try:
        table = from_bytes(read_regular(path, limit=table_bytes(spec)), _shape(spec))
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
