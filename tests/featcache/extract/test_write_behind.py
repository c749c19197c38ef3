"""Shards filled a batch at a time and written by others: what is where, and how many are in memory."""

from collections.abc import Iterator
from threading import Event
from typing import Any

import numpy as np
import pytest

from featcache.errors import StoreError
from featcache.extract.batches import Batch
from featcache.extract.write_behind import WRITERS, WriteBehind
from featcache.spec import Layer
from featcache.store.writer import StoreWriter

Tokens = dict[Layer, tuple[np.ndarray, ...]]


def batches_of(made: Any, shard: int, size: int) -> Iterator[tuple[Batch, Tokens]]:
    """The rows of a shard that are not skipped, a slot for each view."""
    rows = made.spec.rows_of_shard(shard)
    slots = [
        (row, slice(view, None, made.spec.n_views))
        for row in rows if row not in made.skipped for view in range(made.spec.n_views)
    ]  # fmt: skip
    for start in range(0, max(len(slots), 1), size):
        some = tuple(slots[start : start + size])
        tokens = {}
        for layer in made.spec.layers:
            values = [made.tokens(layer)[row, views.start] for row, views in some]
            # Padding, which goes nowhere.
            padding = [np.full(made.spec.grid.shape, np.inf, np.float16)] * (size - len(values))
            tokens[layer] = (np.stack([*values, *padding]),)
        is_last = start + size >= len(slots)
        yield Batch(rows=rows, slots=some, pixels=None, is_last=is_last), tokens


def fill_all(made: Any, writer: StoreWriter, size: int) -> None:
    with WriteBehind(writer, quantised=False) as behind:
        for shard in writer.todo():
            for batch, tokens in batches_of(made, shard, size):
                behind.fill(batch, tokens)
            behind.write(shard, {row: why for row, why in made.skipped.items() if row in batch.rows})
        behind.finish()


@pytest.mark.parametrize("size", [1, 4, 100])
def test_tokens_are_where_they_belong(example, size: int) -> None:
    # A shard without a single clip among others, and a last one that is short.
    made = example(n_clips=11, skipped={1: "a", 3: "b", 4: "b", 5: "b"})
    with made.start() as writer:
        fill_all(made, writer, size)
        store = writer.finish()
    assert store.skipped_clips == set(made.skipped)
    left = [row for row in range(11) if row not in made.skipped]
    for layer in made.spec.layers:
        for view in range(made.spec.n_views):
            assert np.array_equal(store.read(left, views=view, layer=layer), made.tokens(layer)[left, view])


def test_a_second_writer_begins_where_the_first_is_behind_and_no_fourth_shard_is_in_memory(
    example, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = example(n_clips=18)
    at_work, go, most, rooms = 0, Event(), 0, set()
    write = StoreWriter.write_shard

    def slow(self: StoreWriter, shard: int, tokens: Any, skipped: Any) -> None:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        rooms.add(tokens[made.spec.layers[0]].ctypes.data)
        if at_work == WRITERS:
            go.set()
        assert go.wait(30), "there was one writer"
        write(self, shard, tokens, skipped)
        at_work -= 1

    monkeypatch.setattr(StoreWriter, "write_shard", slow)
    with made.start() as writer:
        fill_all(made, writer, 4)
        writer.finish()
    assert most == WRITERS == 2
    assert len(rooms) <= 3


def test_what_a_writer_refuses_is_raised(example) -> None:
    made = example()
    with made.start() as writer, WriteBehind(writer, quantised=False) as behind:
        for batch, tokens in batches_of(made, 0, 100):
            tokens[made.spec.layers[1]][0][2, 0, 0, 0, 0] = np.inf
            behind.fill(batch, tokens)
        behind.write(0, {})
        with pytest.raises(StoreError, match="does not fit float16"):
            behind.finish()


def test_a_row_that_did_not_come_is_not_written_with_what_was_there_before(example) -> None:
    made = example()
    with made.start() as writer, WriteBehind(writer, quantised=False) as behind:
        first, *_ = batches_of(made, 0, 4)
        behind.fill(*first)
        with pytest.raises(AssertionError, match="tokens of shard 0 did not come"):
            behind.write(0, {})
