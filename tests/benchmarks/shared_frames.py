"""Clips that share frames: an image model clip by clip, against each distinct frame once.

DINOv2-S at full size with random weights, on windows of one video a frame apart, shuffled over files as the
official mouse videos are: there, up to sixteen clips show a frame.
"""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import simplejpeg
import torch

from featcache.backbones import load_backbone
from featcache.extract.job import plan_extraction
from featcache.extract.run import Machine
from featcache.manifest import load_manifest
from featcache.spec import Layer
from featcache.store.feature_store import FeatureStore
from featcache.synthetic.records import encode_sequence_example, write_records
from tests.benchmarks.backbone_speed import write_weights
from tests.benchmarks.side_by_side import Claim, claim, in_turn
from tests.featcache.one_split import extract

GROUP = "shared frames"
MODEL = "dinov2_s"
BATCH = 2
BATCHES_READ = 8


def measure(small: bool) -> list[Claim]:
    """Time of extraction, bytes, and time to read a batch: clip by clip over frame by frame."""
    n_clips, depth, rounds = (6, 1, 1) if small else (33, 12, 3)
    with TemporaryDirectory() as folder:
        data_dir, weights_dir = Path(folder) / "data", Path(folder) / "weights"
        write_windows(data_dir, n_clips)
        write_weights(MODEL, weights_dir)
        model: Any = load_backbone(MODEL, weights_dir)
        # The same model without a word that it sees each frame by itself.
        models = {
            "clip by clip": replace(model, info=replace(model.info, frame_level=False)),
            "frame by frame": model,
        }
        stores: dict[str, FeatureStore] = {}

        def extracted(name: str) -> None:
            cache_dir = Path(folder) / f"{name} {len(list(Path(folder).iterdir()))}"
            stores[name] = _extract(models[name], Layer(depth), data_dir, cache_dir)

        times = in_turn(
            {name: lambda name=name: extracted(name) for name in models}, rounds=rounds, warm_up=0
        )
        first, second = models
        shown = np.arange(n_clips)
        assert np.array_equal(stores[first].read(shown), stores[second].read(shown))
        n_bytes = [stores[name].spec.payload_bytes for name in models]
        reading = in_turn({name: _reader(stores[name]) for name in models}, rounds=2 if small else 40)
        what = f"{MODEL}, {n_clips} windows of one video"
        return [
            claim(times, group=GROUP, what=f"{what}: extraction, clip by clip over frame by frame",
                  over=first, under=second, detail=f"{n_bytes[0] / n_bytes[1]:.1f} times the bytes"),
            claim(reading, group=GROUP, what="reading random batches of 16 clips, the same way",
                  over=first, under=second),
        ]  # fmt: skip


def write_windows(data_dir: Path, n_clips: int) -> None:
    """A fly validation split of windows of 16 frames, each a frame after the last, in any order."""
    folder = data_dir / "full" / "fly_vs_fly"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (n_clips + 15, 144, 144, 3), dtype=np.uint8)
    video = [simplejpeg.encode_jpeg(frame, quality=90) for frame in frames]
    records = [
        encode_sequence_example(
            {"clip/label/index": np.array([0])},
            {"image/encoded": [(frame,) for frame in video[start : start + 16]]},
        )
        for start in rng.permutation(n_clips)
    ]
    for shard in range(2):
        name = f"val_fly_split_ids_shuffle.array_record-{shard:05d}-of-00002"
        write_records(folder / name, records[shard::2])


def _extract(model: Any, layer: Layer, data_dir: Path, cache_dir: Path) -> FeatureStore:
    job = plan_extraction(
        load_manifest(), task="flyvsfly", role="val", backbone=model, layers=(layer,), n_views=1, seed=0,
        dtype=torch.float32,
    )  # fmt: skip
    machine = Machine(device=torch.device("cpu"), batch=BATCH)
    return extract(job, machine, data_dir=data_dir, cache_dir=cache_dir)


def _reader(store: FeatureStore) -> Any:
    rng = np.random.default_rng(1)
    out = np.empty((16, *store.spec.grid.shape), np.float16)

    def read() -> None:
        for _ in range(BATCHES_READ):
            store.read(rng.integers(0, store.spec.n_clips, 16), out=out)

    return read
