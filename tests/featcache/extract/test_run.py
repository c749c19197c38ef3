"""Extraction end to end on generated records: stored is what the model gives for each clip and view."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend

from featcache.backbones import load_backbone
from featcache.data.readers import open_reader
from featcache.data.sampling import frame_indices
from featcache.data.views import clip_pixels, draw_view
from featcache.errors import CallError, DataError, StoreError, WeightsError
from featcache.extract.job import Extraction, cut_for, feature_spec, fingerprint_parts, plan_extraction
from featcache.extract.pipeline import Pipeline
from featcache.extract.run import Machine
from featcache.fingerprint import differences, fingerprint
from featcache.manifest import load_manifest
from featcache.spec import Layer
from featcache.store.writer import StoreWriter
from tests.featcache.one_split import extract

CPU = Machine(device=torch.device("cpu"), batch=3)


def plan(role: str = "val", *, task: str = "flyvsfly", n_views: int = 1, **options: bool) -> Extraction:
    backbone = load_backbone("resize")
    return plan_extraction(
        load_manifest(), task=task, role=role, backbone=backbone, layers=(Layer(0),), n_views=n_views, seed=7,
        dtype=torch.float32, **options,
    )  # fmt: skip


def test_every_clip_and_view_is_what_the_model_gives_alone(tiny_data: Path, tmp_path: Path) -> None:
    job = plan("train", n_views=3)
    store = extract(job, CPU, data_dir=tiny_data, cache_dir=tmp_path)
    reader = open_reader(job.dataset, "train", tiny_data)
    index = reader.scan().index
    encoder = job.backbone.load(job.layers, torch.device("cpu"), torch.float32)
    assert store.spec.n_clips == len(index)
    for number in (0, len(index) // 2, len(index) - 1):
        clip = index.clip(number)
        frames = torch.from_numpy(reader.read(clip, frame_indices(job.task.clip, clip.n_source).tolist()))
        for view in range(3):
            drawn = draw_view(job.views, clip.id, view, 224, 224)
            alone = encoder(clip_pixels(frames, job.task.clip, drawn)[None])[Layer(0)][0].numpy()
            stored = store.read([number], views=view)[0]
            assert np.array_equal(stored, alone.astype(np.float16))
    assert not np.array_equal(store.read([0], views=0), store.read([0], views=1))


def test_labels_lie_beside_the_features_once_a_split(tiny_data: Path, tmp_path: Path) -> None:
    store = extract(plan(), CPU, data_dir=tiny_data, cache_dir=tmp_path)
    shuffled = extract(plan(shuffle_frames=True), CPU, data_dir=tiny_data, cache_dir=tmp_path)
    labels = store.targets.read("labels")
    listed = store.clips.column("labels").to_pylist()
    assert [np.flatnonzero(row).tolist() for row in labels] == [sorted(set(row)) for row in listed]
    assert store.attrs["targets" if "targets" in store.attrs else "task"] is not None
    assert len(list((tmp_path / "flyvsfly" / "val").glob("targets-*"))) == 1
    assert np.array_equal(shuffled.targets.read("labels"), labels)


def test_the_batch_size_does_not_change_a_store(tiny_data: Path, tmp_path: Path) -> None:
    stores = [
        extract(
            plan(),
            replace(CPU, batch=batch, decode_threads=threads),
            data_dir=tiny_data,
            cache_dir=tmp_path / str(batch),
        )
        for batch, threads in ((1, 1), (4, 3))
    ]
    clips = range(stores[0].spec.n_clips)
    assert stores[0].fingerprint == stores[1].fingerprint
    assert np.array_equal(stores[0].read(clips), stores[1].read(clips))


def test_shuffled_frames_are_the_same_frames_in_an_order_of_their_own(
    tiny_data: Path, tmp_path: Path
) -> None:
    plain = extract(plan(), CPU, data_dir=tiny_data, cache_dir=tmp_path)
    shuffled = extract(plan(shuffle_frames=True), CPU, data_dir=tiny_data, cache_dir=tmp_path)
    assert plain.fingerprint != shuffled.fingerprint
    assert shuffled.attrs["backbone"] == "resize_shuffled"
    ours, theirs = plain.read([0])[0], shuffled.read([0])[0]
    assert not np.array_equal(ours, theirs)
    # `resize` keeps a token a frame, so the steps are the same up to their order.
    assert np.array_equal(np.sort(ours.mean(axis=(1, 2, 3))), np.sort(theirs.mean(axis=(1, 2, 3))))


def test_exactness_is_said(tiny_data: Path, tmp_path: Path) -> None:
    assert plan("val").exactness == "exact"
    assert plan("train").exactness == "1 frozen view"
    assert plan("train", n_views=4).exactness == "4 frozen views"
    # The evaluation splits have no views to draw, whatever is asked for the training split.
    assert plan("val", n_views=4).views.n_views == 1


def test_a_finished_store_is_not_extracted_again(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = extract(plan(), CPU, data_dir=tiny_data, cache_dir=tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a shard was written again")

    monkeypatch.setattr(StoreWriter, "write_shard", refuse)
    assert extract(plan(), CPU, data_dir=tiny_data, cache_dir=tmp_path).path == first.path


def test_broken_frames_stop_the_work_or_are_skipped_and_listed(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featcache.data.readers.sequence_example import reader as sequence_example

    job = plan()
    index = open_reader(job.dataset, "val", tiny_data).scan().index
    victim = index.clip(2)
    original = sequence_example.SequenceExampleReader.read

    def read(self, clip, frames):
        if clip.id == victim.id:
            raise DataError(f"{clip.source}, record {clip.record}: frame 3 is not a JPEG")
        return original(self, clip, frames)

    monkeypatch.setattr(sequence_example.SequenceExampleReader, "read", read)
    with pytest.raises(DataError, match="frame 3 is not a JPEG"):
        extract(job, CPU, data_dir=tiny_data, cache_dir=tmp_path)
    store = extract(job, CPU, data_dir=tiny_data, cache_dir=tmp_path, skip_bad=True)
    assert store.skipped_clips == {2}
    (entry,) = store.provenance["skipped_clips"]
    assert "frame 3 is not a JPEG" in entry["reason"]
    assert np.isfinite(store.read([n for n in range(len(index)) if n != 2])).all()


def test_an_unknown_task_or_role_is_refused() -> None:
    with pytest.raises(CallError, match="'birds'"):
        plan(task="birds")
    with pytest.raises(CallError, match="'dev'"):
        plan("dev")


class Wrong:
    """A user's model whose encoder does not give what its info says."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.inner = load_backbone("resize")
        self.info, self.shape = self.inner.info, shape

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def load(self, layers: tuple[Layer, ...], device: torch.device, dtype: torch.dtype) -> object:
        return lambda pixels: {layer: torch.zeros(len(pixels), *self.shape) for layer in layers}


def test_weights_that_cannot_be_loaded_leave_no_store_behind(tiny_data: Path, tmp_path: Path) -> None:
    def load(*_: object) -> None:
        raise WeightsError("m.npz holds NaN")

    resize = load_backbone("resize")
    methods = {name: getattr(resize, name) for name in ("weights_digest", "architecture", "preprocessing")}
    job = replace(plan(), backbone=SimpleNamespace(info=resize.info, load=load, **methods))  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match="holds NaN"):
        extract(job, CPU, data_dir=tiny_data, cache_dir=tmp_path)
    assert not list(tmp_path.glob("flyvsfly/*"))


def test_an_encoder_that_breaks_its_promise_is_refused(tiny_data: Path, tmp_path: Path) -> None:
    job = replace(plan(), backbone=Wrong((1, 1, 1, 3)))
    with pytest.raises(
        CallError, match=r"gave .*\(3, 1, 1, 1, 3\).* where its info promises .*\(3, 16, 16, 16, 3\)"
    ):
        extract(job, CPU, data_dir=tiny_data, cache_dir=tmp_path)


def test_a_lost_file_is_never_skipped(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featcache.data.readers.base import UnreadableFileError
    from featcache.data.readers.sequence_example import reader as sequence_example

    def read(self, clip, frames):
        raise UnreadableFileError(f"{clip.source} cannot be opened")

    monkeypatch.setattr(sequence_example.SequenceExampleReader, "read", read)
    with pytest.raises(UnreadableFileError, match="cannot be opened"):
        extract(plan(), CPU, data_dir=tiny_data, cache_dir=tmp_path, skip_bad=True)


def test_many_broken_records_are_not_skipped(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featcache.data.readers.sequence_example import reader as sequence_example
    from featcache.extract import pipeline as module

    def read(self, clip, frames):
        raise DataError(f"{clip.source}, record {clip.record} is no JPEG")

    monkeypatch.setattr(sequence_example.SequenceExampleReader, "read", read)
    monkeypatch.setattr(module, "MOST_SKIPPED", 2)
    with pytest.raises(DataError, match=r"3 of \d+ clips cannot be read, too many to skip"):
        extract(plan(), CPU, data_dir=tiny_data, cache_dir=tmp_path, skip_bad=True)


def test_the_limit_of_what_is_skipped_goes_on_where_a_run_was_killed(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featcache.data.readers.sequence_example import reader as sequence_example
    from featcache.extract import pipeline as module

    original, broken = sequence_example.SequenceExampleReader.read, {0, 1, 9, 10}
    ids = open_reader(plan().dataset, "val", tiny_data).scan().index.clips["id"].to_pylist()

    def read(self, clip, frames):
        if ids.index(clip.id) in broken:
            raise DataError(f"record {clip.record} is no JPEG")
        return original(self, clip, frames)

    write = StoreWriter.write_shard

    def killed(self: StoreWriter, shard: int, *rest: object) -> None:
        if shard == 1:
            raise KeyboardInterrupt
        write(self, shard, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(sequence_example.SequenceExampleReader, "read", read)
    monkeypatch.setattr(module, "MOST_SKIPPED", 3)
    monkeypatch.setattr(module, "MOST_SKIPPED_SHARE", 0.0)
    options = {"data_dir": tiny_data, "cache_dir": tmp_path, "skip_bad": True}
    small = replace(CPU, shard_bytes=2**20 // 4)
    broken -= {9, 10}
    monkeypatch.setattr(StoreWriter, "write_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        extract(plan(), small, **options)
    monkeypatch.setattr(StoreWriter, "write_shard", write)
    broken |= {9, 10}
    # Two were skipped before, two are skipped now: four are more than three, whoever killed it in between.
    with pytest.raises(DataError, match="4 of 18 clips cannot be read, too many to skip"):
        extract(plan(), small, **options)


def test_a_store_that_was_there_is_said_to_be(tiny_data: Path, tmp_path: Path) -> None:
    said: list[str] = []
    for _ in range(2):
        extract(plan(), CPU, data_dir=tiny_data, cache_dir=tmp_path, say=said.append)
    assert len(said) == 2
    assert re.fullmatch(r"val took \d+ s, \d+% of it bound by the (model|pixels|disk) \(.*\)", said[0])
    assert said[1] == "val was there: no feature was computed"


def test_a_full_disk_is_refused_before_the_model_runs(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(
        StoreError, match=r"needs [0-9,]+ bytes more and the disk of .* has 1,000 bytes free: .*--force"
    ):
        extract(plan(), CPU, data_dir=tiny_data, cache_dir=tmp_path)
    extract(plan(), CPU, data_dir=tiny_data, cache_dir=tmp_path, force=True)


@pytest.mark.parametrize("change", ["channels", "frames", "weights", "layer", "views"])
def test_whatever_changes_a_feature_changes_the_fingerprint(tiny_data: Path, change: str) -> None:
    job = plan("train", n_views=2)
    index = open_reader(job.dataset, "train", tiny_data).scan().index
    changed = {
        "channels": lambda: replace(job, dataset=replace(job.dataset, channels=1)),
        "frames": lambda: replace(job, task=replace(job.task, clip=replace(job.task.clip, stride=2))),
        "weights": lambda: replace(job, backbone=load_backbone("videomae_random")),
        "layer": lambda: replace(job, layers=(Layer(1),)),
        "views": lambda: replace(job, views=replace(job.views, seed=8)),
    }[change]()
    ours, theirs = fingerprint_parts(job, index), fingerprint_parts(changed, index)
    assert fingerprint(ours) != fingerprint(theirs)
    assert differences(ours, theirs)


def test_a_clip_left_out_counts_once_although_its_preview_asks_again(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featcache.data.readers.sequence_example import reader as sequence_example
    from featcache.extract import pipeline as module

    original = sequence_example.SequenceExampleReader.read

    def read(self, clip, frames):
        if clip.id == first.id:
            raise DataError(f"record {clip.record} is no JPEG")
        return original(self, clip, frames)

    job = plan()
    first = open_reader(job.dataset, "val", tiny_data).scan().index.clip(0)  # the first clip has a preview
    monkeypatch.setattr(sequence_example.SequenceExampleReader, "read", read)
    monkeypatch.setattr(module, "MOST_SKIPPED", 1)
    monkeypatch.setattr(module, "MOST_SKIPPED_SHARE", 0.0)
    store = extract(job, CPU, data_dir=tiny_data, cache_dir=tmp_path, skip_bad=True)
    assert store.skipped_clips == {0}
    assert 0 not in store.previews()


def test_another_backbone_or_a_resume_lists_no_clip_again(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featcache.data.readers.sequence_example.reader import SequenceExampleReader

    extract(plan(), CPU, data_dir=tiny_data, cache_dir=tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the split was listed again")

    monkeypatch.setattr(SequenceExampleReader, "scan", refuse)
    first = extract(plan(), CPU, data_dir=tiny_data, cache_dir=tmp_path)
    second = extract(plan(shuffle_frames=True), CPU, data_dir=tiny_data, cache_dir=tmp_path)
    assert first.path != second.path
    assert first.clips.equals(second.clips)


def test_a_store_goes_on_with_the_batch_and_the_kernel_it_was_begun_with(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    kernels: list[int] = []
    some = torch.rand(1, 1, 2, 8)

    class Counting(Wrong):
        def load(self, *given: object) -> object:
            encoder = self.inner.load(*given)

            def encode(pixels: torch.Tensor) -> object:
                sizes.append(len(pixels))
                kernels.append(torch._fused_sdp_choice(some, some, some))
                return encoder(pixels)

            return encode

    job, write = replace(plan(), backbone=Counting(())), StoreWriter.write_shard
    few = Machine(device=torch.device("cpu"), batch=3, attention_kernel="math", shard_bytes=8 * 24_576)

    def killed(self: StoreWriter, shard: int, *rest: object) -> None:
        if shard == 1:
            raise KeyboardInterrupt
        write(self, shard, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(StoreWriter, "write_shard", killed)
        with pytest.raises(KeyboardInterrupt):
            extract(job, few, data_dir=tiny_data, cache_dir=tmp_path)
    sizes.clear()
    goes_on = replace(few, batch=None, attention_kernel=None)
    store = extract(job, goes_on, data_dir=tiny_data, cache_dir=tmp_path)
    assert set(sizes) == {3} and set(kernels) == {SDPBackend.MATH.value}
    begun = {"clip_views": 3, "device": "cpu", "attention_kernel": "math"}
    assert store.provenance["batch"] == begun
    assert "resumed_with" not in store.provenance


def test_a_shard_ends_where_a_batch_does(tiny_data: Path) -> None:
    # 9 views a clip: 12 clips are 108 views, 20 short of 4 batches of 32; 7 clips are 63, 1 short of 2.
    job = replace(plan("train", n_views=9), role="train")
    clip = 9 * 24_576
    assert feature_spec(job, 1000, 12 * clip).clips_per_shard == 12
    assert cut_for(feature_spec(job, 1000, 12 * clip), 32).clips_per_shard == 7
    assert cut_for(feature_spec(job, 1000, 64 * clip), 32).clips_per_shard == 64
    assert cut_for(feature_spec(job, 5, 12 * clip), 32).clips_per_shard == 5


@pytest.mark.parametrize(("cores", "threads"), [(1, 4), (8, 8), (64, 16)])
def test_clips_are_decoded_by_as_many_threads_as_there_are_cores(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, threads: int
) -> None:
    asked = []

    class Counting(Pipeline):
        def __init__(self, *given: object, decode_threads: int, **more: object) -> None:
            asked.append(decode_threads)
            super().__init__(*given, decode_threads=1, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(cores)))
    monkeypatch.setattr("featcache.extract.run.Pipeline", Counting)
    extract(plan(), CPU, data_dir=tiny_data, cache_dir=tmp_path)
    extract(plan("train"), replace(CPU, decode_threads=7), data_dir=tiny_data, cache_dir=tmp_path)
    assert asked == [threads, 7]
