"""Small targets of eleven clips, for the tests of who writes and of who reads them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from featcache.clips import Clip, ClipIndex
from featcache.store.targets import TargetArray

N = 11

INDEX = ClipIndex.from_clips(
    Clip(id=str(i), source="s", record=i, n_source=1, labels=(), digest="0" * 16) for i in range(N)
)


def small_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "labels": rng.integers(0, 2, (N, 4)).astype(np.uint8),
        "tracks": rng.normal(size=(N, 3, 2)).astype(np.float32),
        "visible": rng.integers(0, 2, (N, 3)).astype(bool),
        "event": np.arange(N, dtype=np.int64),
        "pixels": rng.normal(size=(N, 2)).astype(np.float16),
    }


def fields_and_clips() -> dict[str, TargetArray]:
    return {
        "fields": TargetArray(shape=(5, 2), dtype=np.dtype("f4"), axes=("time", "variable")),
        "first": TargetArray(shape=(N,), dtype=np.dtype("i8"), axes=("clip",)),
    }


def in_pieces(n_fields: int = 5) -> Iterator[dict[str, np.ndarray]]:
    """The first array ends before the second, whose pieces are of other lengths."""
    fields = np.arange(2 * n_fields, dtype=np.float32)
    yield {"fields": np.stack([fields[:6:2], fields[1:6:2]], axis=1), "first": np.arange(4)}
    yield {"fields": np.stack([fields[6::2], fields[7::2]], axis=1), "first": np.arange(4, 5)}
    yield {"first": np.arange(5, N)}


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
