"""Stores of tokens to measure on: random numbers of a ViT-B's shape, with labels, in several shards."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featcache.clips import Clip, ClipIndex
from featcache.spec import Layer, TokenGrid
from featcache.store.feature_store import FeatureStore
from featcache.store.spec import FeatureSpec, TokenDtype
from featcache.store.writer import create_or_resume, write_targets

LAYER = Layer(12)
N_CLASSES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What is measured: a store and the batches drawn from it."""

    grid: TokenGrid
    n_clips: int
    clips_per_shard: int
    batch: int
    threads: int
    rounds: int


FULL = Setting(
    grid=TokenGrid(steps=8, rows=14, columns=14, channels=768),
    n_clips=256, clips_per_shard=32, batch=32, threads=4, rounds=60,
)  # fmt: skip
"""The issue's: 617 MB in eight shards."""

SMALL = Setting(
    grid=TokenGrid(steps=2, rows=3, columns=3, channels=64),
    n_clips=24, clips_per_shard=4, batch=8, threads=2, rounds=2,
)  # fmt: skip


def spec_of(setting: Setting, dtype: TokenDtype = "float16") -> FeatureSpec:
    return FeatureSpec(
        grid=setting.grid, layers=(LAYER,), n_clips=setting.n_clips, n_views=1,
        clips_per_shard=setting.clips_per_shard, dtype=dtype,
    )  # fmt: skip


def clips_of(setting: Setting) -> ClipIndex:
    return ClipIndex.from_clips(
        Clip(id=str(i), source="s", record=i, n_source=16, digest=f"{i:016x}") for i in range(setting.n_clips)
    )


def shards_of_tokens(setting: Setting) -> Iterator[np.ndarray]:
    """float16 [clips of a shard, 1, T, H, W, C], the same numbers each time."""
    rng = np.random.default_rng(0)
    spec = spec_of(setting)
    for shard in range(spec.n_shards):
        shape = (len(spec.rows_of_shard(shard)), 1, *setting.grid.shape)
        yield rng.standard_normal(shape, np.float32).astype(np.float16)


def labels_of(setting: Setting) -> np.ndarray:
    """uint8 [clip, class]."""
    return np.eye(N_CLASSES, dtype=np.uint8)[np.arange(setting.n_clips) % N_CLASSES]


def write_store(folder: Path, setting: Setting, dtype: TokenDtype = "float16") -> FeatureStore:
    """A finished store with its labels."""
    clips = clips_of(setting)
    targets = write_targets(folder, clips, {"labels": labels_of(setting)}, {"classes": list("abcd")})
    parts = {"n": setting.n_clips, "tokens": {"dtype": dtype}}
    with create_or_resume(
        folder / f"{dtype}-00000000.zarr", spec=spec_of(setting, dtype), parts=parts, clips=clips,
        provenance={}, attrs={"targets": targets.name},
    ) as writer:  # fmt: skip
        for shard, tokens in enumerate(shards_of_tokens(setting)):
            writer.write_shard(shard, {LAYER: tokens})
        return writer.finish()


def draws(setting: Setting, seed: int = 0) -> Iterator[np.ndarray]:
    """Random clips without end, a batch at a time."""
    rng = np.random.default_rng(seed)
    while True:
        yield rng.integers(setting.n_clips, size=setting.batch)
