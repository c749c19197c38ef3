"""Batches from a store: the right clips, views and targets, in an order that only the seed decides."""

from collections.abc import Mapping
from dataclasses import replace
from inspect import unwrap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from featcache.errors import StoreError
from featcache.spec import Layer
from featcache.store.feature_store import FeatureStore
from featcache.store.targets import Targets
from readouts.features import splits as features
from readouts.features.draws import Draws
from readouts.features.splits import (
    FeatureSplit,
    evaluation_batches,
    open_split,
    open_task_splits,
    training_batches,
)
from readouts.tasks.base import clip_rows

CPU = torch.device("cpu")


def numbered(n_clips: int, n_views: int) -> np.ndarray:
    """Tokens [clip, view, 2, 2, 2, 3] whose every value is 10 * clip + view."""
    value = 10 * np.arange(n_clips)[:, None] + np.arange(n_views)
    return np.broadcast_to(value[:, :, None, None, None, None], (n_clips, n_views, 2, 2, 2, 3)).astype(
        np.float32
    )


def one_hot(n_clips: int) -> np.ndarray:
    return np.eye(7, dtype=np.int64)[np.arange(n_clips) % 7]


def with_starts(store: FeatureStore, lengths: list[int], views: Mapping[str, object]) -> FeatureSplit:
    """The split, as if its clips had these numbers of frames and its views were these."""
    table = store.clips
    place = table.column_names.index("n_source")
    pq.write_table(
        table.set_column(place, "n_source", pa.array(lengths, pa.int64())), store.path / "clips.parquet"
    )
    parts = {**store.parts, "views": views}
    return FeatureSplit(store=FeatureStore(store.path, replace(store.header, parts=parts)), layer=Layer(1))


TYPHOON = {"n_views": 8, "starts": {"rule": "random_clip", "span": 24, "n_starts": 8}}
WINDOWS = {"n_views": 8, "starts": {"rule": "window", "span": 16, "n_starts": 8}}


@pytest.mark.parametrize(
    ("lengths", "views", "distinct"),
    [
        # random_clip never draws the last start, but for the only one; beyond 24 + 8 frames nothing is new.
        ([32, 40, 27, 24, 19], TYPHOON, (8, 8, 3, 1, 1)),
        ([32, 33, 34, 35, 36], TYPHOON, 8),
        # A window does: 16 of 20 frames begin at 0 to 4.
        ([20, 16, 23, 18, 17], WINDOWS, (5, 1, 8, 3, 2)),
        ([19] * 5, WINDOWS, 4),
        ([19, 1, 2, 3, 4], {"n_views": 8, "seed": None}, 8),
    ],
)
def test_short_clips_have_fewer_distinct_views(
    make_split, lengths: list[int], views: Mapping[str, object], distinct: int | tuple[int, ...]
) -> None:
    split = with_starts(make_split("train", numbered(5, 8), one_hot(5)), lengths, views)
    assert split.distinct_views == distinct


def test_views_are_counted_of_the_clips_that_hold_features(make_split) -> None:
    tokens = numbered(5, 8)
    tokens[1] = np.nan
    store = make_split("train", tokens, one_hot(5), skipped={1: "broken"})
    split = with_starts(store, [20, 16, 23, 18, 17], WINDOWS)
    assert split.distinct_views == (5, 8, 3, 2)
    draws = Draws(n_clips=4, n_views=split.distinct_views, batch=200, seed=0)
    (batch,) = training_batches(split, clip_rows, draws, range(1), CPU)
    for clip, count in ((0, 5), (2, 8), (3, 3), (4, 2)):
        found = batch.tokens[batch.clips == clip][:, 0, 0, 0] - 10 * clip
        assert set(found.tolist()) == set(range(count))


def test_what_is_drawn_from_targets_depends_on_seed_and_step_alone(make_split) -> None:
    split = open_split(make_split("train", numbered(6, 1), one_hot(6)).path)

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
    split = open_split(make_split("train", numbered(6, 3), one_hot(6)).path)
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
    split = open_split(store.path)
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
    split = open_split(make_split("val", numbered(10, 2), one_hot(10)).path)
    batches = [batch.tokens[:, 0, 0, 0].clone() for batch in evaluation_batches(split, clip_rows, 4, CPU)]
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert torch.cat(batches).tolist() == [10.0 * i for i in range(10)]
    limited = [batch.clips.tolist() for batch in evaluation_batches(split, clip_rows, 4, CPU, limit=6)]
    assert limited == [[0, 1, 2, 3], [4, 5]]


def test_skipped_clips_are_never_drawn(make_split) -> None:
    tokens = numbered(9, 1)
    tokens[[2, 5]] = np.nan
    split = open_split(make_split("train", tokens, one_hot(9), skipped={2: "broken", 5: "broken"}).path)
    assert split.usable.tolist() == [0, 1, 3, 4, 6, 7, 8]
    draws = Draws(n_clips=len(split.usable), n_views=1, batch=7, seed=0)
    (batch,) = training_batches(split, clip_rows, draws, range(1), CPU)
    assert sorted(batch.clips.tolist()) == split.usable.tolist()
    assert torch.isfinite(batch.tokens).all()


def test_an_abandoned_stream_stops_its_thread(make_split) -> None:
    split = open_split(make_split("train", numbered(8, 1), one_hot(8)).path)
    stream = training_batches(
        split, clip_rows, Draws(n_clips=8, n_views=1, batch=2, seed=0), range(1000), CPU
    )
    next(stream)
    stream.close()  # type: ignore[attr-defined]


def test_damage_reaches_the_caller(make_split) -> None:
    store = make_split("val", numbered(6, 1), one_hot(6))
    path = store.shard_path(store.spec.layers[0], 1)
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match="clip 2"):
        list(evaluation_batches(open_split(store.path), clip_rows, 2, CPU))


def test_splits_must_be_extracted_alike(make_split, tmp_path: Path) -> None:
    make_split("train", numbered(6, 1), one_hot(6))
    make_split("val", numbered(6, 1), one_hot(6), seed=1)
    with pytest.raises(StoreError, match=r"backbone\.seed: 1 here, 0 asked for"):
        open_task_splits(tmp_path / "features", "flyvsfly", "toy", roles=("train", "val"))


def test_a_missing_store_says_which_command_makes_it(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="scivid extract --backbone toy --task flyvsfly"):
        open_task_splits(tmp_path / "features", "flyvsfly", "toy", roles=("train", "val"))


def test_a_damaged_store_is_not_said_to_be_missing(make_split, tmp_path: Path) -> None:
    store = make_split("train", numbered(6, 1), one_hot(6))
    (store.path / "zarr.json").write_text("{")
    with pytest.raises(StoreError, match=f"{store.path} is not a feature store .* its zarr.json gives"):
        open_task_splits(tmp_path / "features", "flyvsfly", "toy", roles=("train", "val"))


def test_several_stores_are_listed_and_a_fingerprint_chooses(make_split, tmp_path: Path) -> None:
    stores = [make_split("train", numbered(6, 1), one_hot(6), seed=seed) for seed in (0, 1)]
    make_split("val", numbered(6, 1), one_hot(6), seed=1)
    cache = tmp_path / "features"
    with pytest.raises(StoreError, match=r"2 train stores of toy.*--fingerprint"):
        open_task_splits(cache, "flyvsfly", "toy", roles=("train", "val"))
    make_split("train", numbered(6, 1), one_hot(6), dtype="int8")
    with pytest.raises(StoreError, match=r"(?s)float16, computed in .*int8, computed in "):
        open_task_splits(cache, "flyvsfly", "toy", roles=("train", "val"))
    chosen = stores[1].fingerprint[:6]
    splits = open_task_splits(cache, "flyvsfly", "toy", roles=("train", "val"), fingerprint=chosen)
    assert splits["train"].store.path == stores[1].path


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

    split = open_split(make_split("train", numbered(4, 1), one_hot(4)).path)
    for name, fake in (("stream", lambda side: side), ("Event", Event), ("Stream", Stream)):
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch.Tensor, "to", to)
    clips, buffer = np.arange(4), torch.empty(4, 2, 2, 2, 3, dtype=torch.float16)
    batch = unwrap(features._read)(split, clip_rows, (clips, 0 * clips, None), (buffer,), CPU, Stream())
    assert calls == ["enter", "copy True", "copy True", "record", "leave", "wait"]
    assert batch.tokens[:, 0, 0, 0].tolist() == [0.0, 10.0, 20.0, 30.0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_on_a_gpu_are_those_on_the_cpu(make_split) -> None:
    split = open_split(make_split("train", numbered(64, 1), one_hot(64)).path)
    draws = Draws(n_clips=64, n_views=1, batch=32, seed=0)
    batches = training_batches(split, clip_rows, draws, range(50), torch.device("cuda"))
    for step, batch in enumerate(batches):
        torch.cuda._sleep(1_000_000)  # work that is still queued when later batches are read
        tokens = batch.tokens + 0
        assert np.array_equal(tokens[:, 0, 0, 0].cpu().numpy(), 10 * draws.at(step)[0])
        assert batch.targets["labels"].is_cuda
