"""Small feature stores with known numbers, for the tests of what is on disk."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.clips import Clip, ClipIndex
from featcache.spec import Layer, TokenGrid
from featcache.store.feature_store import FeatureStore
from featcache.store.spec import FeatureSpec, TokenDtype
from featcache.store.writer import StoreWriter, create_or_resume, write_targets

GRID = TokenGrid(steps=2, rows=3, columns=2, channels=5)


@dataclass(frozen=True, kw_only=True)
class Example:
    """The inputs of one extraction: what is to be stored, and where."""

    path: Path
    spec: FeatureSpec
    skipped: Mapping[int, str]

    @property
    def parts(self) -> dict[str, Any]:
        return {
            "feature_version": 1,
            "backbone": {"name": "tiny", "weights": "ab" * 32},
            "layers": [layer.name for layer in self.spec.layers],
            "tokens": {"dtype": self.spec.dtype},
            "clips": {"index": self.clips.frames_digest},
            "views": {"n_views": self.spec.n_views, "seed": 0},
        }

    @property
    def clips(self) -> ClipIndex:
        return ClipIndex.from_clips(
            Clip(
                id=f"clip-{i:03d}",
                source=f"shard-{i % 3}",
                record=i,
                n_source=16 + i,
                labels=(i % 4,),
                digest="0" * 16,
            )
            for i in range(self.spec.n_clips)
        )

    def tokens(self, layer: Layer) -> np.ndarray:
        """float16 [clip, view, T, H, W, C] as extracted; skipped clips are NaN, as Zarr clients see them."""
        rng = np.random.default_rng(layer.block)
        values = rng.normal(size=(self.spec.n_clips, self.spec.n_views, *self.spec.grid.shape)).astype(
            np.float16
        )
        values[list(self.skipped)] = np.nan
        return values

    def start(self, **changes: Any) -> StoreWriter:
        """Create or resume the store."""
        given = {
            "spec": self.spec,
            "parts": self.parts,
            "clips": self.clips,
            "provenance": {"software": "1.0"},
        }
        attrs = {"task": "t", "backbone": "tiny", "targets": self.write_targets().name}
        return create_or_resume(self.path, **{**given, "attrs": attrs, **changes})

    def write_targets(self) -> Path:
        labels = np.eye(4, dtype=np.uint8)[np.arange(self.spec.n_clips) % 4]
        return write_targets(
            self.path.parent, self.clips, {"labels": labels}, {"classes": ["a", "b", "c", "d"]}
        )

    def write_shard(self, writer: StoreWriter, shard: int, dtype: type = np.float32) -> None:
        rows = self.spec.rows_of_shard(shard)
        tokens = {
            layer: self.tokens(layer)[rows.start : rows.stop].astype(dtype) for layer in self.spec.layers
        }
        writer.write_shard(shard, tokens, {clip: why for clip, why in self.skipped.items() if clip in rows})

    def write(self) -> FeatureStore:
        """All of it, as `extract` does."""
        with self.start() as writer:
            for shard in writer.todo():
                self.write_shard(writer, shard)
            writer.write_previews([(0, b"jpeg 0"), (self.spec.n_clips - 1, b"jpeg 1")])
            return writer.finish()


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Example]:
    """An extraction of 7 clips in shards of 3, 2 views, 2 layers, unless told otherwise."""
    # Durability cannot be seen without pulling the plug, and costs most of the time.
    monkeypatch.setattr(os, "fsync", lambda fd: None)

    def make(
        *,
        n_clips: int = 7,
        n_views: int = 2,
        clips_per_shard: int = 3,
        layers: tuple[Layer, ...] = (Layer(11), Layer(12, normed=True)),
        grid: TokenGrid = GRID,
        skipped: Mapping[int, str] | None = None,
        dtype: TokenDtype = "float16",
        folder: Path = tmp_path / "features",
    ) -> Example:
        spec = FeatureSpec(
            grid=grid,
            layers=layers,
            n_clips=n_clips,
            n_views=n_views,
            clips_per_shard=clips_per_shard,
            dtype=dtype,
        )
        return Example(
            path=folder / "task" / "train" / "tiny-0123abcd.zarr", spec=spec, skipped=skipped or {}
        )

    return make


def flip(path: Path, byte: int) -> None:
    """Change one bit of a file; negative numbers count from its end."""
    data = bytearray(path.read_bytes())
    data[byte] ^= 0x10
    path.write_bytes(data)


@pytest.fixture(name="flip")
def flip_fixture() -> Callable[[Path, int], None]:
    return flip


@pytest.fixture(scope="session")
def overlapping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fly validation clips cut from three videos frame by frame, and shuffled over three record files.

    45 windows of 16 frames of 90 frames in all, the layout being the official one.
    """
    import simplejpeg

    from featcache.synthetic.records import encode_sequence_example, write_records

    folder = tmp_path_factory.mktemp("overlapping")
    records = folder / "full" / "fly_vs_fly"
    records.mkdir(parents=True)
    rng = np.random.default_rng(3)
    videos = [
        [simplejpeg.encode_jpeg(frame, quality=90) for frame in video]
        for video in rng.integers(0, 256, (3, 30, 48, 48, 3), dtype=np.uint8)
    ]
    windows = [(video, start) for video in range(3) for start in range(15)]
    rng.shuffle(windows)
    for shard in range(3):
        write_records(
            records / f"val_fly_split_ids_shuffle.array_record-{shard:05d}-of-00003",
            (
                encode_sequence_example(
                    {"clip/label/index": np.array([start % 7])},
                    {"image/encoded": [(frame,) for frame in videos[video][start : start + 16]]},
                )
                for video, start in windows[shard::3]
            ),
        )
    return folder


@pytest.fixture(scope="session")
def tiny_dinov2(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A DINOv2 of two narrow blocks with random weights, in a file of the hub's layout."""
    import torch
    from safetensors.torch import save_file

    from featcache.backbones.families.dinov2 import Dinov2
    from featcache.backbones.model import vit_info
    from featcache.backbones.sizes import BlockSize, Dinov2Size

    size = Dinov2Size(
        block=BlockSize(width=32, heads=2, mlp=64, scaled=True),
        depth=2,
        patch=(1, 14, 14),
        input_size=(56, 56),
        table=4,
    )
    generator = torch.Generator().manual_seed(0)
    path = tmp_path_factory.mktemp("dinov2") / "model.safetensors"
    backbone = Dinov2(info=vit_info("dinov2_b", "dinov2", size), size=size, file=lambda: path)
    shapes = backbone.key_map({}).shapes
    save_file({key: torch.randn(shape, generator=generator) / 4 for key, shape in shapes.items()}, path)
    return backbone
