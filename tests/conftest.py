"""Fixtures shared by the whole suite."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch

from featcache.clips import Clip, ClipIndex
from featcache.fingerprint import fingerprint
from featcache.spec import FeatureSpec, Layer, TokenGrid
from featcache.store import FeatureStore
from featcache.writer import create_or_resume, write_targets

# Two cores, many small tensors: one thread is faster and makes sums repeatable.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden files and real samples, beside the checkout or named by SCIVID_SHARED."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("SCIVID_SHARED", beside))
    if not (folder / "golden").is_dir():
        pytest.skip(
            f"no golden files at {folder}: set SCIVID_SHARED to the folder that holds golden/ and real/"
        )
    return folder


MakeSplit = Callable[..., FeatureStore]


@pytest.fixture
def make_split(tmp_path: Path) -> MakeSplit:
    """Makes a finished store of given tokens and labels in `tmp_path/features`, as extraction would."""

    def make(
        role: str,
        tokens: np.ndarray,
        labels: np.ndarray,
        *,
        task: str = "flyvsfly",
        backbone: str = "toy",
        seed: int = 0,
        skipped: Mapping[int, str] = MappingProxyType({}),
        **attrs: object,
    ) -> FeatureStore:
        n_clips, n_views, steps, rows, columns, channels = tokens.shape
        clips = [
            Clip(
                id=f"{role}-{i}",
                source=f"{role}.bin",
                record=i,
                n_source=16,
                labels=tuple(np.flatnonzero(row).tolist()),
                digest=f"{i:016x}",
            )
            for i, row in enumerate(labels)
        ]
        index = ClipIndex.from_clips(clips)
        grid = TokenGrid(steps=steps, rows=rows, columns=columns, channels=channels)
        spec = FeatureSpec(
            grid=grid,
            layers=(Layer(1),),
            n_clips=n_clips,
            n_views=n_views,
            clips_per_shard=max(1, n_clips // 3),
        )
        folder = tmp_path / "features" / task / role
        targets = write_targets(folder, index, {"labels": labels.astype(np.uint8)}, {"clips": index.digest})
        parts = {"backbone": {"name": backbone, "seed": seed}, "clips": index.digest, "views": n_views}
        about = {
            "task": task, "role": role, "backbone": backbone, "backbone_title": "a toy", "control": None,
            "licence": "none", "exactness": "exact", "upsampling": "linear", "readout_steps": 2 * steps,
            "targets": targets.name, **attrs,
        }  # fmt: skip
        path = folder / f"{backbone}-{fingerprint(parts)[:8]}.zarr"
        with create_or_resume(
            path, spec=spec, parts=parts, clips=index, provenance={}, attrs=about
        ) as writer:
            for shard in writer.todo():
                chosen = spec.clips_of_shard(shard)
                bad = {clip: reason for clip, reason in skipped.items() if clip in chosen}
                writer.write_shard(
                    shard, {Layer(1): tokens[chosen.start : chosen.stop].astype(np.float32)}, bad
                )
            return writer.finish()

    return make


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the smallest generated fly and mouse sets, in the official layout."""
    from featcache import synthetic

    folder = tmp_path_factory.mktemp("data")
    for name in synthetic.DATASETS:
        synthetic.generate(name, folder, profile="tiny", seed=0)
    return folder
