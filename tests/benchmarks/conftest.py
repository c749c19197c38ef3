"""What the benchmarks share: a store of ViT-B-sized tokens on disk, written once a session."""

import os
from pathlib import Path

import numpy as np
import pytest

from featcache.clips import Clip, ClipIndex
from featcache.spec import FeatureSpec, Layer, TokenGrid, clips_per_shard_for
from featcache.store import FeatureStore
from featcache.writer import create_or_resume

GRID = TokenGrid(steps=8, rows=14, columns=14, channels=768)
N_CLIPS = int(os.environ.get("SCIVID_BENCH_CLIPS", "48"))
"""Enough to check that the benchmarks run; `make bench` asks for 256."""


@pytest.fixture(scope="session")
def tokens() -> np.ndarray:
    """float16 [clip, view, 8, 14, 14, 768]."""
    rng = np.random.default_rng(0)
    one = rng.standard_normal((1, 1, *GRID.shape), np.float32).astype(np.float16)
    return np.broadcast_to(one, (N_CLIPS, 1, *GRID.shape))


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory, tokens: np.ndarray) -> FeatureStore:
    """A finished store of N_CLIPS clips."""
    clips = ClipIndex.from_clips(
        Clip(id=str(i), source="s", record=i, n_source=16, digest=f"{i:016x}") for i in range(N_CLIPS)
    )
    spec = FeatureSpec(
        grid=GRID,
        layers=(Layer(12),),
        n_clips=N_CLIPS,
        n_views=1,
        clips_per_shard=clips_per_shard_for(GRID, n_views=1, n_clips=N_CLIPS),
    )
    path: Path = tmp_path_factory.mktemp("bench") / "bench-00000000.zarr"
    with create_or_resume(
        path, spec=spec, parts={"n": N_CLIPS}, clips=clips, provenance={}, attrs={"targets": None}
    ) as writer:
        for shard in writer.todo():
            rows = spec.clips_of_shard(shard)
            writer.write_shard(shard, {Layer(12): np.ascontiguousarray(tokens[rows.start : rows.stop])})
        return writer.finish()
