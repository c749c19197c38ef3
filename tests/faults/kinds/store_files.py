"""Kinds of files of stage one: headers, shards, clip tables, targets, and what is kept of a scan."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from featcache.store.feature_store import FeatureStore, open_features
from tests.faults.kinds.base import Kind
from tests.faults.world import CPU, TASK, World, job

Numbers = Mapping[str, Any]


def of_store(store: FeatureStore) -> dict[str, Any]:
    """All that stage two takes from a store."""
    numbers = np.arange(store.spec.n_clips)
    targets = store.targets
    found: dict[str, Any] = {
        "clips": store.clips,
        "says": (store.attrs, store.provenance, store.parts, store.fingerprint, store.complete),
        "skipped": sorted(store.skipped_rows),
    }
    for layer in store.spec.layers:
        for view in range(store.spec.n_views):
            found[f"tokens {layer.name} {view}"] = store.read(numbers, views=view, layer=layer)
    if targets is not None:
        found["targets say"] = targets.parts
        found |= {f"targets {name}": targets.read(name) for name in sorted(targets.metadata)}
    return found


def opened_for_training(world: World, _: Path, *, folder: str, backbone: str) -> Numbers:
    """As `train-readout` finds and reads its stores."""
    from readouts.features.find import open_task_splits

    roles = ("train", "val", "test") if folder in ("features", "imported") else ("train", "val")
    splits = open_task_splits(world.root / folder, TASK, backbone, roles=roles)
    return {
        f"{role} {name}": value
        for role, split in splits.items()
        for name, value in of_store(split.store).items()
    }


def validated(_: World, damaged: Path) -> Numbers:
    """As `scivid validate` looks at the store, or the group of targets, that the file belongs to."""
    from featcache.store.validation.caches import validate_any

    report = validate_any(next(path for path in damaged.parents if path.suffix == ".zarr"))
    for line in report.problems:
        print(line)  # noqa: T201  (as the command does)
    return {"problems": report.problems, "chunks": report.n_chunks}


def extracted_again(world: World, _: Path, *, folder: str, objects: str) -> Numbers:
    """As the same `extract`, which finds all of it done, or does it again."""
    from featcache.extract.run import Machine, extract_all

    role = "train" if objects == "FRAMES" else "val"
    machine = Machine(device=CPU, batch=1, decode_threads=1, shard_bytes=1 if objects == "CLIPS" else 1600)
    jobs = [job(objects, role)]
    stores = extract_all(jobs, machine, data_dir=world.data, cache_dir=world.root / folder)
    return {f"{store.attrs['role']} {name}": v for store in stores for name, v in of_store(store).items()}


def previewed(world: World, damaged: Path) -> Numbers:
    """As the report shows them."""
    return open_features(damaged.parent).previews()


def cost(world: World, damaged: Path) -> Numbers:
    """As the report adds the seconds of extractions up."""
    from readouts.results.costs import cost_of

    return {"cost": cost_of([open_features(damaged.parent)])}


def imported(world: World, _: Path) -> Numbers:
    """As another lab takes the bundle, and reads its stores."""
    from featcache.sharing.arrival import import_bundle
    from featcache.system.console import silent

    import_bundle(str(world.bundle), world.imported, accepted=(), progress=silent, say=print)
    return opened_for_training(world, _, folder="imported", backbone="small_clips")


clips = partial(opened_for_training, folder="features", backbone="small_clips")
int8 = partial(opened_for_training, folder="int8", backbone="small_clips")
frames = partial(opened_for_training, folder="frames", backbone="small_frames")
again = partial(extracted_again, folder="features", objects="CLIPS")
again_frames = partial(extracted_again, folder="frames", objects="FRAMES")

_STORE = f"features/{TASK}/*/small_clips-*.zarr"
_OTHER = f"shuffled/{TASK}/*/small_clips_shuffled-*.zarr"
_VAL, _VAL_TARGETS = f"features/{TASK}/val/small_clips-*.zarr", f"features/{TASK}/val/targets-*.zarr"
_INT8 = f"int8/{TASK}/*/small_clips-*.zarr"
_FRAMES = f"frames/{TASK}/*/small_frames-*.zarr"
_TARGETS = f"features/{TASK}/*/targets-*.zarr"
_BOTH = ("features", "shuffled")
_PICTURES = {"*": "pictures: no number comes from them"}
_LOG = {"*": "a log that people read: no digest covers it (seconds of the cost table)"}

KINDS = (
    Kind(
        name="store header",
        files=(f"{_STORE}/zarr.json",),
        read=clips,
        folders=_BOTH,
        peers=(f"{_OTHER}/zarr.json",),
        weight=3,
    ),
    Kind(
        name="store header, extracted again",
        files=(f"{_VAL}/zarr.json",),
        read=again,
        folders=_BOTH,
        peers=(f"{_OTHER}/zarr.json",),
    ),
    Kind(name="store header of int8", files=(f"{_INT8}/zarr.json",), read=int8, folders=("int8",)),
    Kind(name="store header of frames", files=(f"{_FRAMES}/zarr.json",), read=frames, folders=("frames",)),
    Kind(
        name="array metadata",
        files=(f"{_STORE}/tokens_1/zarr.json",),
        read=clips,
        folders=_BOTH,
        peers=(f"{_OTHER}/tokens_1/zarr.json",),
    ),
    Kind(
        name="token shard",
        files=(f"{_STORE}/tokens_1/c.*",),
        read=clips,
        folders=_BOTH,
        peers=(f"{_OTHER}/tokens_1/c.*",),
        weight=4,
    ),
    Kind(
        name="token shard, extracted again",
        files=(f"{_VAL}/tokens_1/c.*",),
        read=again,
        folders=_BOTH,
        peers=(f"{_OTHER}/tokens_1/c.*",),
    ),
    Kind(
        name="token shard of int8", files=(f"{_INT8}/tokens_1/c.*",), read=int8, folders=("int8",), weight=2
    ),
    Kind(name="scale shard", files=(f"{_INT8}/scales_1/c.*",), read=int8, folders=("int8",), weight=2),
    Kind(
        name="token shard of frames",
        files=(f"{_FRAMES}/tokens_1/c.*",),
        read=frames,
        folders=("frames",),
        weight=2,
    ),
    Kind(
        name="clip table",
        files=(f"{_STORE}/clips.parquet",),
        read=clips,
        folders=_BOTH,
        peers=(f"{_OTHER}/clips.parquet",),
        weight=2,
    ),
    Kind(name="clip table, extracted again", files=(f"{_VAL}/clips.parquet",), read=again, folders=_BOTH),
    Kind(
        name="previews",
        files=(f"{_STORE}/previews.parquet",),
        read=previewed,
        folders=_BOTH,
        peers=(f"{_OTHER}/previews.parquet",),
        allowed=_PICTURES,
    ),
    Kind(
        name="frame table", files=(f"{_FRAMES}/frames/c.0.0.0",), read=frames, folders=("frames",), weight=2
    ),
    Kind(
        name="frame table, extracted again",
        files=(f"{_FRAMES}/frames/c.0.0.0",),
        read=again_frames,
        folders=("frames",),
    ),
    Kind(name="log of runs", files=(f"{_STORE}/runs.jsonl",), read=cost, folders=("features",), allowed=_LOG),
    Kind(name="targets root", files=(f"{_TARGETS}/zarr.json",), read=clips, folders=_BOTH, weight=2),
    Kind(name="targets array metadata", files=(f"{_TARGETS}/*/zarr.json",), read=clips, folders=_BOTH),
    Kind(name="targets chunk", files=(f"{_TARGETS}/*/c.*",), read=clips, folders=_BOTH, weight=2),
    Kind(
        name="targets, extracted again",
        files=(f"{_VAL_TARGETS}/zarr.json", f"{_VAL_TARGETS}/*/c.*"),
        read=again,
        folders=_BOTH,
    ),
    Kind(
        name="store, validated",
        files=(f"{_STORE}/zarr.json", f"{_STORE}/*/*", f"{_STORE}/clips.parquet"),
        read=validated,
        folders=_BOTH,
        peers=(f"{_OTHER}/tokens_1/c.*",),
    ),
    Kind(
        name="targets, validated",
        files=(f"{_TARGETS}/zarr.json", f"{_TARGETS}/*/*"),
        read=validated,
        folders=("features",),
    ),
    Kind(
        name="frames, validated",
        files=(f"{_FRAMES}/frames/*", f"{_FRAMES}/zarr.json"),
        read=validated,
        folders=("frames",),
    ),
    Kind(
        name="bundle index",
        files=("bundle/bundle.json",),
        read=imported,
        folders=("bundle",),
        weight=2,
    ),
    Kind(
        name="file of a bundle",
        files=(f"bundle/{TASK}/*/*.zarr/*.*", f"bundle/{TASK}/*/*.zarr/*/*"),
        read=imported,
        folders=("bundle",),
        weight=3,
    ),
    Kind(
        name="index cache",
        files=("features/index/*-val-*.parquet",),
        read=again,
        folders=("features",),
        peers=("features/index/*.parquet",),
        weight=2,
    ),
    Kind(
        name="frame keys",
        files=("frames/index/*-train-frames*",),
        read=again_frames,
        folders=("frames",),
        weight=2,
    ),
)
