"""Frames that clips share: encoded once, stored once, and read as the same clips."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache import synthetic
from featcache.backbones import load_backbone
from featcache.backbones.base import Backbone, Encoder
from featcache.clips import Clip
from featcache.data.readers.sequence_example.reader import SequenceExampleReader
from featcache.errors import CallError, DataError, StoreError
from featcache.extract.job import Extraction, plan_extraction
from featcache.extract.pixels.clip_views import ClipViews
from featcache.extract.run import Machine
from featcache.manifest import load_manifest
from featcache.spec import Layer
from featcache.store.feature_store import FeatureStore, open_features
from featcache.store.validation.stores import validate
from tests.featcache.one_split import extract

# Shards of 32 frames, of which there are 90.
CPU = Machine(device=torch.device("cpu"), batch=1, shard_bytes=32 * 2 * 4 * 4 * 32)
LAYER = Layer(2, normed=True)


def plan(backbone: Backbone, task: str = "flyvsfly", role: str = "val", **options: Any) -> Extraction:
    given = {"n_views": 1, "seed": 0, "dtype": torch.float32, "layers": (Layer(1), LAYER)}
    return plan_extraction(load_manifest(), task=task, role=role, backbone=backbone, **(given | options))


def clip_by_clip(backbone: Any) -> Backbone:
    """The same model without a word that it sees each frame by itself."""
    changed: Backbone = replace(backbone, info=replace(backbone.info, frame_level=False))
    return changed


def all_tokens(store: FeatureStore, layer: Layer) -> np.ndarray:
    clips = np.arange(store.spec.n_clips)
    return np.stack([store.read(clips, views=view, layer=layer) for view in range(store.spec.n_views)], 1)


@pytest.fixture(scope="module")
def written(
    overlapping: Path, tiny_dinov2: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[FeatureStore, FeatureStore]:
    """Clip by clip, and frame by frame."""
    folder = tmp_path_factory.mktemp("written")
    whole = extract(plan(clip_by_clip(tiny_dinov2)), CPU, data_dir=overlapping, cache_dir=folder / "clips")
    return whole, extract(plan(tiny_dinov2), CPU, data_dir=overlapping, cache_dir=folder / "frames")


@pytest.fixture
def stores(written: tuple[FeatureStore, FeatureStore], tmp_path: Path) -> tuple[FeatureStore, FeatureStore]:
    """A copy that may be damaged, of what is written once."""
    shutil.copytree(written[0].path.parents[3], tmp_path, dirs_exist_ok=True)
    whole, frames = (
        open_features(tmp_path / store.path.relative_to(store.path.parents[3])) for store in written
    )
    return whole, frames


def test_the_same_features_from_an_eighth_of_the_frames(
    stores: tuple[FeatureStore, FeatureStore],
    overlapping: Path,
    tiny_dinov2: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []
    original = type(tiny_dinov2).load

    def load(self: Any, *args: Any) -> Encoder:
        encoder = original(self, *args)

        def counted(pixels: torch.Tensor) -> dict[Layer, torch.Tensor]:
            seen.append(pixels.shape[0] * pixels.shape[1])
            return encoder(pixels)

        return counted

    monkeypatch.setattr(type(tiny_dinov2), "load", load)
    whole = stores[0]
    frames = extract(plan(tiny_dinov2), CPU, data_dir=overlapping, cache_dir=tmp_path / "again")
    # Three shards of 32, 32 and 26 frames, sixteen a pass.
    assert sum(seen) == 6 * 16
    assert frames.spec.n_frames == 90
    assert frames.spec.payload_bytes * 8 == whole.spec.payload_bytes
    assert frames.fingerprint == whole.fingerprint
    for layer in (Layer(1), LAYER):
        assert np.array_equal(all_tokens(frames, layer), all_tokens(whole, layer))
    assert frames.skipped_clips == frozenset()


def test_any_zarr_client_puts_clips_together(stores: tuple[FeatureStore, FeatureStore]) -> None:
    import xarray

    whole, frames = stores
    with xarray.open_zarr(frames.path, consolidated=True) as data:
        tokens = data[LAYER.array].values[data["frames"].values]
    assert np.array_equal(tokens, all_tokens(whole, LAYER))
    data = frames.to_xarray()
    assert data[LAYER.array].dims == ("frame", "row", "column", "channel")
    assert data["frames"].dims == ("clip", "view", "step")
    assert data["id"].dims == ("clip",)


def test_reading_into_a_buffer_in_any_order(stores: tuple[FeatureStore, FeatureStore]) -> None:
    whole, frames = stores
    clips = [7, 7, 0, 44, 3]
    out = np.empty((5, *frames.spec.grid.shape), np.float16)
    for threads in (1, 4):
        out[:] = np.nan
        assert frames.read(clips, layer=LAYER, out=out, threads=threads) is out
        assert np.array_equal(out, whole.read(clips, layer=LAYER))
    with pytest.raises(CallError, match="has no view 1"):
        frames.read(clips, views=1, layer=LAYER)
    first = frames.rows.table.numbers[clips, 0, 0] // frames.spec.clips_per_shard
    assert frames.shards_of(np.array(clips)).tolist() == first.tolist()


def test_int8_frames_are_int8_clips(overlapping: Path, tiny_dinov2: Any, tmp_path: Path) -> None:
    whole, frames = (
        extract(plan(model, store_dtype="int8"), CPU, data_dir=overlapping, cache_dir=tmp_path / str(number))
        for number, model in enumerate((clip_by_clip(tiny_dinov2), tiny_dinov2))
    )
    assert frames.spec.n_frames == 90
    for ours, theirs in zip(
        frames.read_quantized([9, 2], layer=LAYER), whole.read_quantized([9, 2], layer=LAYER), strict=True
    ):
        assert np.array_equal(ours, theirs)
    assert np.array_equal(all_tokens(frames, LAYER), all_tokens(whole, LAYER))
    assert validate(frames.path).ok


@pytest.mark.parametrize(
    ("dataset", "task", "n_frames"),
    [("digital_typhoon", "typhoon", None), ("movi", "stir", None), ("weatherbench2", "weatherbench2", 4)],
)
def test_starts_and_last_steps_are_the_same_too(
    dataset: str, task: str, n_frames: int | None, tiny_dinov2: Any, tmp_path: Path
) -> None:
    synthetic.generate(dataset, tmp_path, profile="tiny", seed=0)
    whole, frames = (
        extract(
            plan(model, task, "train", layers=(LAYER,)),
            replace(CPU, batch=2),
            data_dir=tmp_path,
            cache_dir=tmp_path / str(number),
        )
        for number, model in enumerate((clip_by_clip(tiny_dinov2), tiny_dinov2))
    )
    assert frames.spec.n_frames is not None
    assert n_frames in (None, frames.spec.n_frames)
    assert frames.spec.payload_bytes <= whole.spec.payload_bytes
    assert np.array_equal(all_tokens(frames, LAYER), all_tokens(whole, LAYER))
    assert validate(frames.path).ok


def test_a_shard_that_is_lost_is_made_again_to_the_byte(
    stores: tuple[FeatureStore, FeatureStore], overlapping: Path, tiny_dinov2: Any, tmp_path: Path
) -> None:
    frames = stores[1]
    before = {path: path.read_bytes() for path in frames.path.glob("*/c.*")}
    frames.shard_path(LAYER, 1).unlink()
    (frames.path / "frames" / "c.0.0.0").unlink()
    with pytest.raises(StoreError, match=r"c\.1\.0\.0\.0 is missing"):
        open_features(frames.path)
    # What is known of the frames goes too: it is found again, and is the same.
    shutil.rmtree(tmp_path / "frames" / "index")
    extract(plan(tiny_dinov2), CPU, data_dir=overlapping, cache_dir=tmp_path / "frames")
    assert {path: path.read_bytes() for path in frames.path.glob("*/c.*")} == before


def test_a_store_that_was_begun_clip_by_clip_is_finished_so(
    stores: tuple[FeatureStore, FeatureStore], overlapping: Path, tiny_dinov2: Any, tmp_path: Path
) -> None:
    whole = stores[0]
    before = all_tokens(whole, LAYER)
    whole.shard_path(LAYER, 0).unlink()
    again = extract(plan(tiny_dinov2), CPU, data_dir=overlapping, cache_dir=tmp_path / "clips")
    assert again.path == whole.path
    assert again.spec.n_frames is None
    assert np.array_equal(all_tokens(again, LAYER), before)


def test_damage_is_named_by_frame_and_clip(
    stores: tuple[FeatureStore, FeatureStore], flip: Callable[[Path, int], None]
) -> None:
    frames = stores[1]
    assert validate(frames.path).ok
    flip(frames.shard_path(LAYER, 0), 3)
    (problem,) = validate(frames.path).problems
    assert "fails the checksum" in problem
    assert "frame 0 (step 0 of clip 0 (00000/0))" in problem
    with pytest.raises(StoreError, match=r"frame 0 \(step 0 of clip 0 \(00000/0\)\), view 0, layer 2_n"):
        open_features(frames.path).read([0], layer=LAYER)
    flip(frames.shard_path(LAYER, 0), 3)
    flip(frames.path / "frames" / "c.0.0.0", 8)
    assert any("is truncated or damaged" in problem for problem in validate(frames.path).problems)
    with pytest.raises(StoreError, match="is truncated or damaged"):
        open_features(frames.path).read([0], layer=LAYER)
    flip(frames.path / "frames" / "c.0.0.0", 8)
    described = frames.path / "frames" / "zarr.json"
    described.write_text(json.dumps(json.loads(described.read_text()) | {"fill_value": 7}))
    assert any("fill_value do not describe" in problem for problem in validate(frames.path).problems)


def test_a_broken_frame_is_left_out_with_all_clips_that_show_it(
    written: tuple[FeatureStore, FeatureStore],
    overlapping: Path,
    tiny_dinov2: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = written[0]
    original = SequenceExampleReader.read
    broken = original(_reader(overlapping), _first_clip(overlapping), [4])

    def read(self: SequenceExampleReader, clip: Clip, frames: Any) -> np.ndarray:
        found = original(self, clip, frames)
        if any(np.array_equal(frame, broken[0]) for frame in found):
            raise DataError("a broken JPEG")
        return found

    monkeypatch.setattr(SequenceExampleReader, "read", read)
    with pytest.raises(DataError, match="a broken JPEG"):
        extract(plan(tiny_dinov2), CPU, data_dir=overlapping, cache_dir=tmp_path / "frames")
    store = extract(
        plan(tiny_dinov2), CPU, data_dir=overlapping, cache_dir=tmp_path / "frames", skip_bad=True
    )
    (frame,) = store.provenance["skipped_frames"]
    assert frame == {"frame": 4, "reason": "a broken JPEG"}
    shows = (store.rows.table.numbers == 4).any(axis=(1, 2))
    assert store.skipped_clips == frozenset(np.flatnonzero(shows).tolist())
    assert 1 < len(store.skipped_clips) <= 16
    assert store.provenance["skipped_clips"][0]["reason"] == "it shows frame 4: a broken JPEG"
    assert np.array_equal(
        store.read(np.flatnonzero(~shows), layer=LAYER), whole.read(np.flatnonzero(~shows), layer=LAYER)
    )
    assert validate(store.path).ok
    with pytest.raises(StoreError, match="was skipped at extraction"):
        store.read([0], layer=LAYER)
    again = extract(
        plan(tiny_dinov2), CPU, data_dir=overlapping, cache_dir=tmp_path / "frames", skip_bad=True
    )
    assert again.skipped_clips == store.skipped_clips


def test_a_clip_without_preview_is_no_frame_that_was_skipped(
    written: tuple[FeatureStore, FeatureStore],
    overlapping: Path,
    tiny_dinov2: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Previews go by clips and skipped rows by frames: the limit counts the one and not the other."""
    from featcache.extract import pipeline as module

    def strip(self: ClipViews, clip: Clip) -> bytes:
        raise DataError("a broken JPEG")

    monkeypatch.setattr(ClipViews, "strip", strip)
    monkeypatch.setattr(module, "MOST_SKIPPED", 0)
    monkeypatch.setattr(module, "MOST_SKIPPED_SHARE", 0.0)
    options = {"data_dir": overlapping, "cache_dir": tmp_path}
    with pytest.raises(DataError, match="a broken JPEG"):
        extract(plan(tiny_dinov2), CPU, **options)
    store = extract(plan(tiny_dinov2), CPU, skip_bad=True, **options)
    assert (store.skipped_clips, store.skipped_rows) == (frozenset(), frozenset())


def _reader(data_dir: Path) -> SequenceExampleReader:
    return SequenceExampleReader(load_manifest().dataset("flyvsfly"), "val", data_dir)


def _first_clip(data_dir: Path) -> Clip:
    return _reader(data_dir).scan().index.clip(0)


def test_a_model_of_frames_has_a_step_for_each() -> None:
    info = load_backbone("resize").info
    with pytest.raises(CallError, match="frame_level with 8 steps of 16 frames"):
        replace(info, frame_level=True, grid=replace(info.grid, steps=8))
