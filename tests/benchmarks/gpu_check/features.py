"""Finished stores of random tokens that the product's own training takes: a split of the fly task."""

from pathlib import Path

import numpy as np

from featcache.clips import Clip, ClipIndex
from featcache.fingerprint import fingerprint
from featcache.spec import Layer, TokenGrid
from featcache.store.feature_store import FeatureStore
from featcache.store.spec import FeatureSpec
from featcache.store.target_writer import write_targets
from featcache.store.writer import create_or_resume

TASK, BACKBONE = "flyvsfly", "random"
LAYER = Layer(1)


def write_features(
    cache: Path,
    grid: TokenGrid,
    *,
    n_clips: int,
    clips_per_shard: int,
    role: str = "train",
    n_labels: int = 7,
) -> FeatureStore:
    """A store below `cache`; every shard has the same tokens, as drawing new ones would take longer.

    Of more than one step they are a video model's, two frames a step, of which readouts see each.
    """
    rng = np.random.default_rng(0)
    clips = ClipIndex.from_clips(
        Clip(id=f"{role}-{i}", source=f"{role}.bin", record=i, n_source=16, digest=f"{i:016x}")
        for i in range(n_clips)
    )
    spec = FeatureSpec(
        grid=grid, layers=(LAYER,), n_clips=n_clips, n_views=1, clips_per_shard=clips_per_shard
    )
    folder = cache / TASK / role
    labels = (rng.random((n_clips, n_labels)) < 0.3).astype(np.uint8)
    targets = write_targets(folder, clips, {"labels": labels}, {"clips": clips.digest})
    parts = {"backbone": {"name": BACKBONE}, "clips": clips.digest, "grid": list(grid.shape)}
    video = grid.steps > 1
    attrs = {
        "task": TASK, "role": role, "backbone": BACKBONE, "backbone_title": "random tokens", "control": None,
        "licence": "none", "exactness": "exact", "upsampling": "linear" if video else None,
        "readout_steps": 2 * grid.steps if video else 1, "targets": targets.name,
    }  # fmt: skip
    tokens = rng.standard_normal((clips_per_shard, 1, *grid.shape), np.float32).astype(np.float16)
    path = folder / f"{BACKBONE}-{fingerprint(parts)[:8]}.zarr"
    with create_or_resume(path, spec=spec, parts=parts, clips=clips, provenance={}, attrs=attrs) as writer:
        for shard in range(spec.n_shards):
            writer.write_shard(shard, {LAYER: tokens[: len(spec.rows_of_shard(shard))]})
        return writer.finish()
