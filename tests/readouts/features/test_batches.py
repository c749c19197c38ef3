"""Batches from a store: the right clips, views and targets, in an order that only the seed decides."""

import os
import threading
from contextlib import suppress
from itertools import chain
from pathlib import Path
from threading import Barrier, BrokenBarrierError

import numpy as np
import pytest
import torch

from featcache.buckets.path import place
from featcache.errors import StoreError
from featcache.store.feature_store import open_features
from featcache.store.reading import shard_file
from featcache.store.targets import Targets
from readouts.features import batches, staging
from readouts.features.batches import evaluation_batches, training_batches
from readouts.features.draws import Draws
from readouts.features.preloaded import PreloadedTokens
from readouts.features.splits import split_of
from readouts.features.staging import as_tokens, host_parts
from readouts.tasks.base import clip_rows
from readouts.tokens.prepared import QuantizedTokens
from tests.readouts.features.numbered import first_numbers, numbered, one_hot, same_numbers, whole

EARLIER = Path(__file__).parents[2] / "earlier"
CPU = torch.device("cpu")


def test_what_is_drawn_from_targets_depends_on_seed_and_step_alone(make_split) -> None:
    split = split_of(make_split("train", numbered(6, 1), one_hot(6)))

    def drawn(targets: Targets, clips: object, views: object, rng: np.random.Generator | None) -> dict:
        assert rng is not None
        return {"number": rng.integers(2**40, size=2), "clip": np.asarray(clips)}

    def numbers(seed: int, steps: range) -> list[list[int]]:
        draws = Draws(n_clips=6, n_views=1, batch=2, seed=seed)
        return [b.targets["number"].tolist() for b in training_batches(split, drawn, draws, steps, CPU)]

    first = numbers(5, range(6))
    assert numbers(5, range(3, 6)) == first[3:]  # a run that was killed after three steps
    others = [*first, *numbers(6, range(6))]
    assert len({tuple(pair) for pair in others}) == 12


def test_selection_is_told_views_in_training_and_draws_nothing_in_evaluation(make_split) -> None:
    split = split_of(make_split("train", numbered(6, 3), one_hot(6)))
    told: list[tuple[list[int], list[int], bool]] = []

    def listen(targets: Targets, clips: np.ndarray, views: np.ndarray, rng: object) -> dict:
        told.append((clips.tolist(), views.tolist(), rng is None))
        return {}

    draws = Draws(n_clips=6, n_views=3, batch=4, seed=0)
    (batch,) = training_batches(split, listen, draws, range(2, 3), CPU)
    list(evaluation_batches(split, listen, 4, CPU))
    clips, views = draws.at(2)
    assert told[0] == (clips.tolist(), views.tolist(), False)
    assert told[1:] == [([0, 1, 2, 3], [0] * 4, True), ([4, 5], [0] * 2, True)]
    assert batch.targets == {}


def test_batches_hold_the_tokens_views_and_targets_that_were_drawn(make_split) -> None:
    store = make_split("train", numbered(11, 3), one_hot(11))
    split = split_of(store)
    draws = Draws(n_clips=11, n_views=3, batch=4, seed=1)
    n = 0
    for step, batch in enumerate(training_batches(split, clip_rows, draws, range(9), CPU)):
        clips, views = draws.at(step)
        assert batch.tokens.shape == (4, 2, 4, 3)
        assert whole(batch.tokens).dtype == torch.float16
        assert np.array_equal(first_numbers(batch), 10 * clips + views)
        assert np.array_equal(batch.clips, clips)
        assert np.array_equal(batch.targets["labels"].numpy(), one_hot(11)[clips])
        n += 1
    assert n == 9


def test_evaluation_takes_every_clip_once_at_view_0_in_file_order(make_split) -> None:
    split = split_of(make_split("val", numbered(10, 2), one_hot(10)))
    found = [first_numbers(batch) for batch in evaluation_batches(split, clip_rows, 4, CPU)]
    assert [len(batch) for batch in found] == [4, 4, 2]
    assert list(chain(*found)) == [10.0 * i for i in range(10)]
    limited = [batch.clips.tolist() for batch in evaluation_batches(split, clip_rows, 4, CPU, limit=6)]
    assert limited == [[0, 1, 2, 3], [4, 5]]


def test_skipped_clips_are_never_drawn(make_split) -> None:
    tokens = numbered(9, 1)
    tokens[[2, 5]] = np.nan
    split = split_of(make_split("train", tokens, one_hot(9), skipped={2: "broken", 5: "broken"}))
    assert split.usable.tolist() == [0, 1, 3, 4, 6, 7, 8]
    draws = Draws(n_clips=len(split.usable), n_views=1, batch=7, seed=0)
    (batch,) = training_batches(split, clip_rows, draws, range(1), CPU)
    assert sorted(batch.clips.tolist()) == split.usable.tolist()
    assert torch.isfinite(whole(batch.tokens)).all()


def test_an_abandoned_stream_stops_its_thread(make_split) -> None:
    split = split_of(make_split("train", numbered(8, 1), one_hot(8)))
    stream = training_batches(
        split, clip_rows, Draws(n_clips=8, n_views=1, batch=2, seed=0), range(1000), CPU
    )
    next(stream)
    assert reading()
    stream.close()  # type: ignore[attr-defined]
    assert not reading()


def reading() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("read ahead")]


def test_damage_reaches_the_caller(make_split) -> None:
    store = make_split("val", numbered(6, 1), one_hot(6))
    path = store.shard_path(store.spec.layers[0], 1)
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match="clip 2"):
        list(evaluation_batches(split_of(store), clip_rows, 2, CPU))


def test_where_files_may_not_be_mapped_batches_are_read_into_buffers_that_are_used_again(
    make_split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_file, "is_local", lambda path: False)
    for dtype in ("float16", "int8"):
        split = split_of(make_split("train", numbered(12, 1), one_hot(12), dtype=dtype, backbone=dtype))
        draws, at = Draws(n_clips=12, n_views=1, batch=4, seed=0), set[int]()
        for _ in range(2):
            for step, batch in enumerate(training_batches(split, clip_rows, draws, range(9), CPU)):
                values = batch.tokens if dtype == "float16" else batch.tokens.values
                at.add(values.data_ptr())
                clips, _ = draws.at(step)
                wanted = 10 * clips if dtype == "float16" else 127 * (clips > 0)
                assert np.array_equal(values[:, 0, 0, 0].numpy(), wanted)
        assert len(at) == batches.READ_AHEAD + 2


def test_batches_from_a_bucket_come_in_order_though_two_are_read_at_once(
    make_split_in, bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = split_of(make_split_in(place(f"s3://{bucket.name}"), "train", numbered(12, 1), one_hot(12)))
    draws, at, read = Draws(n_clips=12, n_views=1, batch=4, seed=0), set[int](), batches.read_into
    together = Barrier(2)

    def slow(*arguments: object) -> None:
        with suppress(BrokenBarrierError):  # the last batch of an odd number
            together.wait(2)
        read(*arguments)

    monkeypatch.setattr(batches, "read_into", slow)
    for step, batch in enumerate(training_batches(split, clip_rows, draws, range(9), CPU)):
        at.add(batch.tokens.data_ptr())
        assert np.array_equal(batch.tokens[:, 0, 0, 0].numpy(), 10 * draws.at(step)[0])
        assert np.array_equal(batch.targets["labels"].numpy(), one_hot(12)[draws.at(step)[0]])
    assert len(at) <= batches.READ_AHEAD + 2


def test_mapped_batches_have_the_numbers_of_those_read_into_buffers(
    make_split, monkeypatch: pytest.MonkeyPatch
) -> None:
    for dtype in ("float16", "int8"):
        tokens = np.random.default_rng(0).standard_normal((9, 2, 2, 2, 3, 4)).astype(np.float16)
        split = split_of(make_split("train", tokens, one_hot(9), dtype=dtype, backbone=dtype))
        clips, views = np.array([8, 0, 3, 3]), np.array([0, 1, 1, 0])
        mapped = batches.mapped_tokens(split, clips, views)
        parts = host_parts(split, 4, CPU)
        batches.read_into(parts, split, clips, views)
        assert len(same_numbers(mapped, as_tokens(parts))) == 1 + (dtype == "int8")
        assert mapped.shape == (4, 2, 6, 4)
    monkeypatch.setattr(shard_file, "is_local", lambda path: False)
    assert batches.mapped_tokens(split_of(open_features(split.store.path)), clips, views) is None


def test_frames_that_are_stored_once_come_as_a_piece_a_step() -> None:
    """From a store of distinct frames that an earlier version wrote."""
    (path,) = EARLIER.glob("features/typhoon/train/small_frames-*.zarr")
    split, clips = split_of(open_features(path)), np.array([2, 0, 2])
    mapped = batches.mapped_tokens(split, clips, 0 * clips)
    parts = host_parts(split, 3, CPU)
    batches.read_into(parts, split, clips, 0 * clips)
    assert same_numbers(mapped, as_tokens(parts))
    values = mapped.values if isinstance(mapped, QuantizedTokens) else mapped
    assert values.pieces_per_clip == split.store.spec.grid.steps > 1


def test_a_shard_that_is_cut_while_batches_are_read_is_named(make_split) -> None:
    store = make_split("val", numbered(6, 1), one_hot(6))
    found = evaluation_batches(split_of(store), clip_rows, 1, CPU)
    next(found)
    path = store.shard_path(store.spec.layers[0], 2)
    os.truncate(path, 20)
    with pytest.raises(StoreError, match=rf"{path.name} is truncated.*clip 4"):
        list(found)


def test_batches_on_the_way_to_a_gpu_wait_for_their_marks_and_buffers_for_theirs(
    make_split, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of calls, with a stream and events that only write down what they are asked."""
    calls: list[str] = []

    class Stream:
        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...

        def synchronize(self) -> None:
            calls.append("settled")

        def wait_event(self, event: "Event") -> None:
            calls.append(f"{event.number} awaited")

    class Event:
        def __init__(self, *, blocking: bool) -> None:
            assert blocking

        def record(self, stream: Stream) -> None:
            self.number = sum(call.startswith("mark") for call in calls)
            calls.append(f"mark {self.number}")

        def synchronize(self) -> None:
            calls.append(f"buffer of {self.number} free")

    split = split_of(make_split("train", numbered(16, 1), one_hot(16)))
    split.store.read(np.arange(16))
    gpu = torch.device("cuda")
    fakes = {"stream": lambda side: side, "Event": Event, "current_stream": lambda device: Stream()}
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(staging, "_side_stream", lambda device: Stream())
    monkeypatch.setattr(staging, "host_parts", lambda split, n, device: host_parts(split, n, CPU))
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: calls.append("kept"))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device, *, non_blocking: tensor)
    for start, batch in zip(range(0, 16, 2), evaluation_batches(split, clip_rows, 2, gpu), strict=True):
        assert first_numbers(batch) == [10.0 * start, 10.0 * start + 10]
    # A mark for the buffer, which the fifth batch waits for, and one for the batch, with its targets.
    assert sum(call.startswith("mark") for call in calls) == 16
    assert [call for call in calls if call.endswith("awaited")] == [f"{2 * n + 1} awaited" for n in range(8)]
    assert [call for call in calls if call.endswith("free")] == [f"buffer of {2 * n} free" for n in range(4)]
    assert calls.count("kept") == 2 * 8
    assert calls.index("settled") == len(calls) - 1


def test_a_batch_that_is_preloaded_is_not_read_and_others_are(make_split) -> None:
    split = split_of(make_split("val", numbered(10, 1), one_hot(10)))
    row_of = np.full(10, -1)
    row_of[:4] = [3, 2, 1, 0]
    stored = torch.arange(4.0).flip(0)[:, None, None, None, None].expand(4, 2, 2, 2, 3) - 100
    held = PreloadedTokens(stored=(stored.half(),), n_views=1, row_of=row_of, targets=split.targets)
    found = evaluation_batches(split, clip_rows, 3, CPU, preloaded=held)
    assert [first_numbers(batch) for batch in found] == [[-100, -99, -98], [30, 40, 50], [60, 70, 80], [90]]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_on_a_gpu_are_those_on_the_cpu(make_split) -> None:
    split = split_of(make_split("train", numbered(64, 1), one_hot(64)))
    draws = Draws(n_clips=64, n_views=1, batch=32, seed=0)
    batches = training_batches(split, clip_rows, draws, range(50), torch.device("cuda"))
    for step, batch in enumerate(batches):
        torch.cuda._sleep(1_000_000)  # work that is still queued when later batches are read
        tokens = batch.tokens + 0
        assert np.array_equal(tokens[:, 0, 0, 0].cpu().numpy(), 10 * draws.at(step)[0])
        assert batch.targets["labels"].is_cuda
