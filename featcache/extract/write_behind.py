"""Shards of tokens: filled a batch at a time, and written by other threads while the next are filled."""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from featcache.extract.batches import Batch
from featcache.extract.host_tokens import Arrays
from featcache.spec import Layer
from featcache.store.dtypes import Quantised
from featcache.store.writer import StoreWriter, Tokens

WRITERS = 2
"""Shards written at a time. The second begins only if the first is not done when it is there: so two are in
memory where a writer keeps up, and three where it does not.
"""

_Room = Mapping[Layer, Arrays]
"""The tokens of a shard; used again for another when they are on disk, for fresh pages take long."""


TokensOf = Callable[[int], Iterable[tuple[Layer, Arrays]]]
"""Those of all views of a row, layer by layer."""


class WriteBehind:
    """Takes the tokens of one batch after the other; a `with` statement waits for all that is written."""

    def __init__(
        self, writer: StoreWriter, *, quantised: bool, written: Callable[[int], None] = lambda shard: None
    ) -> None:
        """`quantised` tokens come as levels and scales; `written` is told of each shard that is on disk."""
        self._writer, self._spec, self._quantised = writer, writer.spec, quantised
        self._written = written
        self._pool = ThreadPoolExecutor(WRITERS, "write")
        self._writing: deque[tuple[Future[None], _Room]] = deque()
        self._free: list[_Room] = []
        self._filling: _Room | None = None
        shape = self._spec.clips_per_shard, self._spec.rows.chunks_per_row
        self._came = np.zeros(shape, np.bool_)

    def __enter__(self) -> "WriteBehind":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def fill(self, batch: Batch, tokens: Mapping[Layer, Arrays]) -> None:
        """Copy the tokens of a batch to where they belong in its shard.

        Raises:
            StoreError: as `StoreWriter.write_shard`, of a shard before.
        """
        if self._filling is None:
            self._filling = self._room()
            self._came[:] = False
        for layer, arrays in tokens.items():
            for room, values in zip(self._filling[layer], arrays, strict=True):
                # What is beyond the slots is padding.
                for (row, views), value in zip(batch.slots, values, strict=False):
                    room[row - batch.rows.start, views] = value
        for row, views in batch.slots:
            self._came[row - batch.rows.start, views] = True

    def take_over(self, rows: range, known: Collection[int], tokens: TokensOf) -> None:
        """Copy the `tokens` of those rows of the shard being filled that are `known`."""
        assert self._filling is not None, "no batch came"
        for row in rows:
            if row in known:
                for layer, arrays in tokens(row):
                    for room, values in zip(self._filling[layer], arrays, strict=True):
                        room[row - rows.start] = values
                self._came[row - rows.start] = True

    def write(self, shard: int, skipped: Mapping[int, str]) -> None:
        """Have the shard written that was filled, as soon as there is a writer.

        Raises:
            StoreError: as `StoreWriter.write_shard`, of a shard before.
        """
        room, self._filling = self._filling, None
        assert room is not None, "no batch came"
        rows = self._spec.rows_of_shard(shard)
        present = [row not in skipped for row in rows]
        # The room has tokens of another shard where none came.
        assert self._came[: len(rows)][present].all(), f"tokens of shard {shard} did not come"
        while len(self._writing) >= WRITERS:
            self._wait()
        tokens = {
            layer: Quantised(*(a[: len(rows)] for a in arrays)) if self._quantised else arrays[0][: len(rows)]
            for layer, arrays in room.items()
        }
        future = self._pool.submit(self._write, shard, tokens, skipped)
        self._writing.append((future, room))

    def finish(self) -> None:
        """Wait until all shards are on disk.

        Raises:
            StoreError: as `StoreWriter.write_shard`.
        """
        while self._writing:
            self._wait()

    def _write(self, shard: int, tokens: Mapping[Layer, Tokens], skipped: Mapping[int, str]) -> None:
        self._writer.write_shard(shard, tokens, skipped)
        self._written(shard)

    def _wait(self) -> None:
        future, room = self._writing.popleft()
        future.result()
        self._free.append(room)

    def _room(self) -> _Room:
        while self._writing and self._writing[0][0].done():
            self._wait()
        return self._free.pop() if self._free else {layer: self._arrays() for layer in self._spec.layers}

    def _arrays(self) -> Arrays:
        shape = (self._spec.clips_per_shard, *self._spec.rows.row_shape)
        if not self._quantised:
            return (np.empty(shape, np.float16),)
        return np.empty(shape, np.int8), np.empty(shape[:-1], np.float32)
