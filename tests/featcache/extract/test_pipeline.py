"""The threads of an extraction: nothing stops at the end of a shard; a device apart changes no number."""

import json
from collections import defaultdict
from dataclasses import replace
from itertools import count
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from featcache.backbones import load_backbone
from featcache.data.readers.sequence_example.reader import SequenceExampleReader
from featcache.errors import CallError, DataError, StoreError
from featcache.extract import pipeline
from featcache.extract.run import Machine
from featcache.extract.write_behind import WriteBehind
from featcache.spec import Layer
from featcache.store.feature_store import FeatureStore
from featcache.store.writer import StoreWriter
from tests.featcache.extract.test_run import plan
from tests.featcache.one_split import extract

CPU = Machine(device=torch.device("cpu"), batch=3, shard_bytes=2**17)


@pytest.fixture
def device_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU goes the way of a GPU."""
    monkeypatch.setattr(pipeline, "is_apart", lambda device: True)


def everything(store: FeatureStore) -> list[np.ndarray]:
    clips = range(store.spec.n_clips)
    return [store.read(clips, views=view) for view in range(store.spec.n_views)]


class Doubled:
    """A model that gives what `resize` gives, on a way that does not depend on the last bits of pixels."""

    def __init__(self) -> None:
        self.inner: Any = load_backbone("resize")
        self.info = replace(self.inner.info, resize_once=False)

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def load(self, layers: tuple[Layer, ...], device: torch.device, dtype: torch.dtype) -> object:
        tokens = self.info.grid

        def encode(pixels: torch.Tensor) -> dict[Layer, torch.Tensor]:
            few = pixels[..., ::14, ::14].movedim(2, -1)
            assert few.shape[1:] == tokens.shape
            return dict.fromkeys(layers, 2 * few)

        return encode


@pytest.mark.parametrize(("dtype", "n_views"), [("float16", 1), ("int8", 1), ("float16", 3), ("int8", 3)])
def test_a_device_apart_makes_the_same_store(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: Any, n_views: int
) -> None:
    job = replace(plan("train", n_views=n_views), backbone=Doubled(), store_dtype=dtype)
    here = extract(job, CPU, data_dir=tiny_data, cache_dir=tmp_path / "here")
    monkeypatch.setattr(pipeline, "is_apart", lambda device: True)
    apart = extract(job, CPU, data_dir=tiny_data, cache_dir=tmp_path / "apart")
    assert here.spec.n_shards > 3
    assert all(map(np.array_equal, everything(here), everything(apart)))
    assert here.previews() == apart.previews()


@pytest.mark.usefixtures("device_apart")
def test_what_does_not_fit_is_refused_by_name_although_the_device_quantised_it(
    tiny_data: Path, tmp_path: Path
) -> None:
    class Large(Doubled):
        def load(self, *given: Any) -> Any:
            encode = super().load(*given)

            def too_large(pixels: torch.Tensor) -> Any:
                features = encode(pixels)
                return {layer: values * 1e6 for layer, values in features.items()}

            return too_large

    job = replace(plan(), backbone=Large(), store_dtype="int8")
    with pytest.raises(
        StoreError, match=r"clip 0 \(.*\), view 0, layer 0: the value inf at \(step, row, col"
    ):
        extract(job, CPU, data_dir=tiny_data, cache_dir=tmp_path)


def test_the_next_shard_is_decoded_while_the_last_pass_of_one_runs(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each pass waits for the next shard to be read: shard by shard it would wait for ever."""
    read, original = [Event() for _ in range(100)], SequenceExampleReader.read
    job, n_passes = replace(plan(), backbone=Doubled()), 0

    def noted(self: SequenceExampleReader, clip: Any, frames: Any) -> Any:
        read[clip_numbers[clip.id]].set()
        return original(self, clip, frames)

    store = extract(job, CPU, data_dir=tiny_data, cache_dir=tmp_path / "before")
    clip_numbers = {name: number for number, name in enumerate(store.clips.column("id").to_pylist())}
    each = store.spec.clips_per_shard
    load = Doubled.load

    def slow(self: Doubled, *given: Any) -> Any:
        encode = load(self, *given)

        def waits(pixels: torch.Tensor) -> Any:
            nonlocal n_passes
            following = min((n_passes + 1) * each, store.spec.n_clips - 1)
            assert read[following].wait(30), f"clip {following} was not read during pass {n_passes}"
            n_passes += 1
            return encode(pixels)

        return waits

    monkeypatch.setattr(SequenceExampleReader, "read", noted)
    monkeypatch.setattr(Doubled, "load", slow)
    whole = replace(CPU, batch=each)
    found = extract(job, whole, data_dir=tiny_data, cache_dir=tmp_path / "waiting")
    assert n_passes == found.spec.n_shards > 3
    assert all(map(np.array_equal, everything(store), everything(found)))


@pytest.mark.parametrize("n_views", [1, 2])
def test_a_store_that_goes_on_has_the_strips_of_one_that_was_not_killed(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_views: int
) -> None:
    """Whatever number of threads torch has: it resizes with other last bits by several than by one."""
    job = replace(plan("train", n_views=n_views), backbone=Doubled())
    write, n_threads = StoreWriter.write_shard, torch.get_num_threads()

    def killed(self: StoreWriter, shard: int, *rest: Any) -> None:
        if shard == 4:
            raise KeyboardInterrupt
        write(self, shard, *rest)

    torch.set_num_threads(3)
    try:
        calm = extract(job, CPU, data_dir=tiny_data, cache_dir=tmp_path / "calm")
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(StoreWriter, "write_shard", killed)
            extract(job, CPU, data_dir=tiny_data, cache_dir=tmp_path / "killed")
        resumed = extract(job, CPU, data_dir=tiny_data, cache_dir=tmp_path / "killed")
    finally:
        torch.set_num_threads(n_threads)
    assert resumed.previews() == calm.previews()


def test_shards_of_which_no_row_can_be_read(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = extract(plan(), CPU, data_dir=tiny_data, cache_dir=tmp_path / "whole")
    each, n = whole.spec.clips_per_shard, whole.spec.n_clips
    ids = whole.clips.column("id").to_pylist()
    # A shard in the middle, the last one, the end of the first.
    broken = {*range(each, 2 * each), *whole.spec.rows_of_shard(whole.spec.n_shards - 1), each - 1}
    original = SequenceExampleReader.read

    def read(self: SequenceExampleReader, clip: Any, frames: Any) -> Any:
        if ids.index(clip.id) in broken:
            raise DataError(f"record {clip.record} is no JPEG")
        return original(self, clip, frames)

    monkeypatch.setattr(SequenceExampleReader, "read", read)
    monkeypatch.setattr(pipeline, "MOST_SKIPPED", n)
    for apart in (False, True):
        monkeypatch.setattr(pipeline, "is_apart", lambda device, apart=apart: apart)
        store = extract(plan(), CPU, data_dir=tiny_data, cache_dir=tmp_path / str(apart), skip_bad=True)
        assert store.skipped_clips == broken
        left = [number for number in range(n) if number not in broken]
        np.testing.assert_allclose(store.read(left), whole.read(left), atol=2e-3)


def test_what_was_waited_for_is_noted_and_said(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that goes on only while a shard is waited for, and a disk that is done only then."""
    write, wait, said = StoreWriter.write_shard, WriteBehind._wait, []
    now, asked_for, wanted = 0.0, count(), defaultdict[int, Event](Event)

    def slow(self: StoreWriter, shard: int, *given: Any) -> None:
        assert wanted[shard].wait(60)
        write(self, shard, *given)

    def waiting(self: WriteBehind) -> None:
        nonlocal now
        now += 0.3
        wanted[next(asked_for)].set()
        wait(self)

    monkeypatch.setattr(StoreWriter, "write_shard", slow)
    monkeypatch.setattr(WriteBehind, "_wait", waiting)
    monkeypatch.setattr(pipeline, "time", SimpleNamespace(monotonic=lambda: now))
    store = extract(plan(), CPU, data_dir=tiny_data, cache_dir=tmp_path, say=said.append)
    (line,) = [json.loads(line) for line in (store.path / "runs.jsonl").read_text().splitlines()]
    # Two are written at a time: some are waited for amid the rest, two at the end.
    assert store.spec.n_shards > 2
    assert line["waited"] == {"pixels": 0.0, "disk": pytest.approx(0.3 * store.spec.n_shards)}
    assert line["seconds"] == pytest.approx(0.3 * store.spec.n_shards)
    assert "100% of it bound by the disk (" in said[0]


@pytest.mark.usefixtures("device_apart")
@pytest.mark.parametrize("who", ["model", "pixels"])
def test_where_memory_ends_a_smaller_batch_is_asked_for(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    if who == "model":
        monkeypatch.setattr(Doubled, "load", lambda *_: full)
    else:
        monkeypatch.setattr(pipeline.DevicePixels, "batch", full)
    job = replace(plan(), backbone=Doubled())
    with pytest.raises(CallError, match="--batch 3 does not fit into the memory of cpu: give a smaller one"):
        extract(job, CPU, data_dir=tiny_data, cache_dir=tmp_path)
