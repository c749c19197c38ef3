"""Shards of a few bytes."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from featcache.spec import Layer, TokenGrid
from featcache.store.shards import write_chunks
from featcache.store.spec import ArraySpec, FeatureSpec

GRID = TokenGrid(steps=1, rows=1, columns=2, channels=2)  # 8 bytes a chunk
SPEC = FeatureSpec(grid=GRID, layers=(Layer(3),), n_clips=5, n_views=2, clips_per_shard=2, alignment=1)
(ARRAY,) = SPEC.arrays(Layer(3))
(ALIGNED,) = replace(SPEC, alignment=4096).arrays(Layer(3))


def chunk(value: float) -> np.ndarray:
    return np.full(GRID.shape, value, np.float16)


def write(path: Path, chunks: list[np.ndarray | None], array: ArraySpec = ARRAY) -> Path:
    with path.open("wb") as file:
        write_chunks([file.fileno()], (None if chunk is None else (chunk,) for chunk in chunks), [array])
    return path
