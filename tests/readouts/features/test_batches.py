"""Batches from a store: the right clips, views and targets, in an order that only the seed decides."""

import threading
from inspect import unwrap

import numpy as np
import pytest
import torch

from featcache.errors import StoreError
from featcache.store.targets import Targets
from readouts.features import batches
from readouts.features.batches import evaluation_batches, training_batches
from readouts.features.draws import Draws
from readouts.features.splits import split_of
from readouts.tasks.base import clip_rows
from tests.readouts.features.numbered import numbered, one_hot

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
        assert batch.tokens.dtype == torch.float16
        assert np.array_equal(batch.tokens[:, 0, 0, 0].numpy(), 10 * clips + views)
        assert np.array_equal(batch.clips, clips)
        assert np.array_equal(batch.targets["labels"].numpy(), one_hot(11)[clips])
        n += 1
    assert n == 9


def test_evaluation_takes_every_clip_once_at_view_0_in_file_order(make_split) -> None:
    split = split_of(make_split("val", numbered(10, 2), one_hot(10)))
    batches = [batch.tokens[:, 0, 0, 0].clone() for batch in evaluation_batches(split, clip_rows, 4, CPU)]
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert torch.cat(batches).tolist() == [10.0 * i for i in range(10)]
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
    assert torch.isfinite(batch.tokens).all()


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


def test_copies_are_made_on_the_side_stream_and_have_ended_when_a_batch_is_read(
    make_split, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of calls, with a stream and an event that only write down what they are asked."""
    calls: list[str] = []

    class Stream:
        def __enter__(self) -> None:
            calls.append("enter")

        def __exit__(self, *_: object) -> None:
            calls.append("leave")

    class Event:
        def __init__(self, *, blocking: bool) -> None: ...

        def record(self, stream: Stream) -> None:
            calls.append("record")

        def synchronize(self) -> None:
            calls.append("wait")

    def to(tensor: torch.Tensor, device: torch.device, *, non_blocking: bool) -> torch.Tensor:
        calls.append(f"copy {non_blocking}")
        return tensor

    split = split_of(make_split("train", numbered(4, 1), one_hot(4)))
    for name, fake in (("stream", lambda side: side), ("Event", Event), ("Stream", Stream)):
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch.Tensor, "to", to)
    clips, buffer = np.arange(4), torch.empty(4, 2, 2, 2, 3, dtype=torch.float16)
    batch = unwrap(batches._read)(split, clip_rows, (clips, 0 * clips, None), (buffer,), CPU, Stream())
    assert calls == ["enter", "copy True", "copy True", "record", "leave", "wait"]
    assert batch.tokens[:, 0, 0, 0].tolist() == [0.0, 10.0, 20.0, 30.0]


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
