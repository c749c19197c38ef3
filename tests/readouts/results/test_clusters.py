"""Clusters: sequences, videos, stretches of time, files of a user's own videos, or else single clips."""

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from featcache.fingerprint import fingerprint
from featcache.store.feature_store import FeatureStore
from featcache.store.targets import TargetArray, Targets
from readouts.results.clusters import clusters_of

MakeTargets = Callable[..., Targets]


def test_clusters_are_sequences_videos_or_clips(make_targets: MakeTargets) -> None:
    clips = np.array([0, 2, 3])
    for name in ("sequence", "video"):
        found = clusters_of(make_targets(4, name, **{name: np.array([9, 8, 9, 5])}), clips)
        assert (found.of_clip.tolist(), found.kind, len(found)) == ([9, 9, 5], f"{name}s", 2)
    found = clusters_of(make_targets(4, "none", labels=np.eye(4, dtype=np.uint8)), clips)
    assert (found.of_clip.tolist(), found.kind) == ([0, 2, 3], "clips")


def test_initial_times_of_one_forecast_span_are_one_cluster(make_targets: MakeTargets) -> None:
    # A step is 12 h, a forecast 24 h: two initial times of a day share fields, the third does not.
    places = np.array([[i, i + 1, i + 2] for i in range(5)], np.int32)
    hours = 480_000 + 12 * np.arange(7, dtype=np.int64)
    steps = TargetArray(shape=places.shape, dtype=places.dtype, axes=("clip", "lead"), blocks=[places])
    times = TargetArray(shape=hours.shape, dtype=hours.dtype, axes=("time",), blocks=[hours])
    targets = make_targets(5, places=steps, time=times)
    found = clusters_of(targets, np.arange(5))
    assert (found.of_clip.tolist(), found.kind) == ([0, 0, 1, 1, 2], "stretches of 24 h")
    assert clusters_of(targets, np.array([1, 4, 2])).of_clip.tolist() == [0, 1, 0]


def test_clips_of_own_videos_are_of_their_file(make_split: Callable[..., FeatureStore]) -> None:
    store = make_split("val", np.zeros((5, 1, 1, 1, 1, 2)), np.eye(5, dtype=np.uint8))
    targets, clips = store.targets, np.array([0, 2, 3, 4])
    assert targets is not None
    assert clusters_of(targets, clips).kind == "clips"
    as_of_reader(store, "video_file", ["cages/b.mp4", "cages/b.mp4", "cages/a.mp4", "cages/b.mp4", "c.mp4"])
    found = clusters_of(targets, clips)
    assert (found.of_clip.tolist(), found.kind) == ([2, 1, 2, 0], "videos")
    # A record file of another reader is no video, and other targets are of other clips.
    as_of_reader(store, "sequence_example", ["a.bin"] * 5)
    assert clusters_of(targets, clips).kind == "clips"
    as_of_reader(store, "video_file", ["a.mp4"] * 5)
    assert clusters_of(replace(targets, fingerprint="f00"), clips).kind == "clips"
    (store.path / "clips.parquet").unlink()
    assert clusters_of(targets, clips).kind == "clips"


def as_of_reader(store: FeatureStore, reader: str, sources: list[str]) -> None:
    """Let a store say what decoded its clips, and which file each is from."""
    header = json.loads((store.path / "zarr.json").read_bytes())
    about = header["attributes"]["scivid"]
    about["parts"]["decoding"] = {"reader": reader}
    about["fingerprint"] = fingerprint(about["parts"])
    (store.path / "zarr.json").write_text(json.dumps(header))
    table = store.clips.set_column(1, "source", pa.array(sources))
    pq.write_table(table, store.path / "clips.parquet")
