"""A cache of two small stores with their targets: train of two layers and two views, val of one view."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featcache.clips import Clip, ClipIndex
from featcache.fingerprint import fingerprint
from featcache.spec import Layer, TokenGrid
from featcache.store.feature_store import FeatureStore
from featcache.store.rows import FrameTable
from featcache.store.spec import FeatureSpec, TokenDtype
from featcache.store.target_writer import write_targets
from featcache.store.writer import create_or_resume

GRID = TokenGrid(steps=2, rows=3, columns=2, channels=5)
LAYERS = (Layer(11), Layer(12, normed=True))
SKIPPED = 4
DATA = {
    "title": "Flies",
    "source": "https://example.org/flies",
    "licence": "CC0-1.0",
    "citation": "A. Fly, 2020",
}
VIEWS = {"n_views": 2, "seed": 5, "augmentation": {"flip": 0.5}}


def clips_of(role: str, n_clips: int) -> ClipIndex:
    return ClipIndex.from_clips(
        Clip(
            id=f"{role}-{i}", source=f"{role}.bin", record=i, n_source=16, labels=(i % 3,), digest=f"{i:016x}"
        )
        for i in range(n_clips)
    )


def make_store(
    cache: Path,
    role: str,
    *,
    n_clips: int = 7,
    n_views: int = 1,
    backbone: str = "tiny",
    layers: tuple[Layer, ...] = LAYERS,
    dtype: TokenDtype = "float16",
    frames: FrameTable | None = None,
    parts: Mapping[str, Any] | None = None,
    labels: Sequence[int] | None = None,
    **attrs: object,
) -> FeatureStore:
    """A finished store where it belongs in a cache; clip 4 is skipped, unless frames are the rows."""
    clips, folder = clips_of(role, n_clips), cache / "flyvsfly" / role
    spec = FeatureSpec(
        grid=GRID, layers=layers, n_clips=n_clips, n_views=n_views, clips_per_shard=3, dtype=dtype,
        n_frames=None if frames is None else frames.n_frames,
    )  # fmt: skip
    undrawn = {"n_views": 1, "seed": None, "augmentation": None}
    all_parts: dict[str, Any] = {
        "backbone": {"name": backbone, "weights": "ab" * 32, "precision": "float32"},
        "layers": [layer.name for layer in layers],
        "tokens": {"dtype": dtype},
        "clips": {"index": clips.frames_digest},
        "views": VIEWS if n_views > 1 else undrawn,
        **(parts or {}),
    }
    one_hot = np.eye(3, dtype=np.uint8)[np.arange(n_clips) % 3 if labels is None else np.array(labels)]
    targets = write_targets(folder, clips, {"labels": one_hot}, {"clips": clips.digest})
    provenance = {
        "data": DATA,
        "software": {"torch": "2.13"},
        "skipped_records": [
            {"source": "a.bin", "record": 3, "reason": "/home/alice/data/a.bin: record 3 is cut short"}
        ],
        "clip_list": {"name": "clips.csv", "path": "/home/alice/data/clips.csv", "sha256": "00" * 32},
    }
    about = {
        "task": "flyvsfly", "role": role, "backbone": backbone, "backbone_title": "a tiny model",
        "control": None, "licence": "MIT", "upsampling": "linear", "readout_steps": 4,
        "exactness": f"{n_views} frozen views" if n_views > 1 else "exact", "targets": targets.name, **attrs,
    }  # fmt: skip
    path = folder / f"{backbone}-{fingerprint(all_parts)[:8]}.zarr"
    with create_or_resume(
        path, spec=spec, parts=all_parts, clips=clips, provenance=provenance, attrs=about, frames=frames
    ) as writer:
        for shard in writer.todo():
            rows = spec.rows_of_shard(shard)
            skipped = {SKIPPED: "/home/alice/data/a.bin, clip 4: broken"} if SKIPPED in rows else {}
            tokens = {
                layer: values_of(spec, layer, role)[rows.start : rows.stop].astype(np.float32)
                for layer in layers
            }
            writer.write_shard(shard, tokens, {} if frames is not None else skipped)
        writer.write_previews([(0, b"jpeg 0"), (n_clips - 1, b"jpeg 1")])
        writer.log_run(device="a GPU of /home/alice")
        return writer.finish()


def values_of(spec: FeatureSpec, layer: Layer, role: str) -> np.ndarray:
    """float16 [row, view, step, row, column, channel] of a store."""
    n_views, *of_a_view = spec.rows.row_shape
    rngs = [np.random.default_rng([layer.block, len(role), view]) for view in range(n_views)]
    views = [rng.normal(size=(spec.rows.n_rows, *of_a_view)) for rng in rngs]
    return np.stack(views, axis=1).astype(np.float16)


def make_cache(cache: Path) -> dict[str, FeatureStore]:
    """Role -> the store."""
    return {"train": make_store(cache, "train", n_views=2), "val": make_store(cache, "val", n_clips=5)}


def certify(store: FeatureStore, val: FeatureStore) -> None:
    """Put a certificate of both layers with a store, as stage two writes them."""
    from featcache.system.sealed import json_sealed

    entry = {
        "layer": "11", "text": "exact", "command": "scivid certify --data-dir /home/alice/data --steps 2",
        "train_fingerprint": store.fingerprint, "val_fingerprint": val.fingerprint,
    }  # fmt: skip
    document = json.loads(json.dumps({"11": entry, "12_normed": {**entry, "layer": "12_normed"}}))
    (store.path / "certificate.json").write_bytes(json_sealed(document))


def tree(folder: Path) -> dict[str, bytes]:
    """Path -> content of all files below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
