"""Batches of a split on the device, read ahead into reused buffers.

What is drawn at a step is a pure function of (seed, step), so a resumed run and one that never stopped see
the same batches, whatever the number of threads.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from featcache.store.targets import Targets
from readouts.features.draws import Draws
from readouts.features.splits import FeatureSplit
from readouts.tokens.prepared import Native, QuantizedTokens

READ_AHEAD = 2
"""Batches being read while one is being used."""


Select = Callable[
    [Targets, Int64[np.ndarray, " B"], Int64[np.ndarray, " B"], np.random.Generator | None],
    dict[str, np.ndarray],
]
"""A task's choice of targets for clips and views (`readouts.tasks.base.Task.select`)."""


Wanted = tuple[Int64[np.ndarray, " B"], Int64[np.ndarray, " B"], np.random.Generator | None]
"""Clips and views of a batch, and the generator that draws from its targets; None in evaluation."""


Buffer = tuple[Tensor, ...]
"""Memory for stored tokens, a row per clip and view: float16 ones, or int8 ones and their scales."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Clips of one split: their numbers, their tokens and their targets, the last two on the device."""

    clips: Int64[np.ndarray, " B"]
    tokens: Native
    targets: Mapping[str, Tensor]


def wanted_at(split: FeatureSplit, draws: Draws, step: int) -> Wanted:
    """Clips and views of one training step, and the generator that draws from their targets."""
    clips, views = draws.at(step)
    return split.usable[clips], views, np.random.default_rng([draws.seed, step])


def training_batches(
    split: FeatureSplit, select: Select, draws: Draws, steps: Iterable[int], device: torch.device
) -> Iterator[Batch]:
    """The batches of the given training steps, read ahead of their use."""
    return _stream(split, select, (wanted_at(split, draws, step) for step in steps), device)


def evaluation_batches(
    split: FeatureSplit, select: Select, batch: int, device: torch.device, limit: int | None = None
) -> Iterator[Batch]:
    """The first `limit` clips (None: all) in file order, at view 0; the last batch may be smaller."""
    clips = split.usable[:limit]
    parts = [clips[start : start + batch] for start in range(0, len(clips), batch)]
    return _stream(split, select, ((part, np.zeros_like(part), None) for part in parts), device)


def _stream(
    split: FeatureSplit, select: Select, wanted: Iterable[Wanted], device: torch.device
) -> Iterator[Batch]:
    """Batches in order. A batch's tokens are overwritten READ_AHEAD + 1 batches later (on the CPU)."""
    # On a stream of their own copies overlap with training: the default one would make them take turns.
    side: torch.cuda.Stream | None = None
    if device.type == "cuda":
        side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    ring: deque[Buffer] = deque()
    ahead: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(1, "read ahead") as reader:
        try:
            for clips, views, rng in wanted:
                if len(ahead) > READ_AHEAD:
                    yield _handed_over(ahead.popleft().result(), device)
                buffer = _next_buffer(ring, split, len(clips), device)
                ahead.append(reader.submit(_read, split, select, (clips, views, rng), buffer, device, side))
            while ahead:
                yield _handed_over(ahead.popleft().result(), device)
        finally:
            for future in ahead:
                future.cancel()


def _next_buffer(ring: deque[Buffer], split: FeatureSplit, n_clips: int, device: torch.device) -> Buffer:
    """The buffer that was handed out longest ago, or a new one: fresh pages cost as much as the read."""
    if len(ring) == READ_AHEAD + 2:
        oldest = ring.popleft()
        if len(oldest[0]) >= n_clips:
            ring.append(oldest)
            return tuple(part[:n_clips] for part in oldest)
    ring.append(new_buffer(split, n_clips, pinned=device.type == "cuda"))
    return ring[-1]


def new_buffer(
    split: FeatureSplit, n_rows: int, *, pinned: bool = False, device: torch.device | None = None
) -> Buffer:
    """Memory for `n_rows` clips and views of a split as stored, on the host unless a device is named."""
    new = partial(torch.empty, pin_memory=pinned, device=device)
    shape = (n_rows, *split.store.spec.grid.shape)
    if split.store.spec.dtype == "int8":
        return new(shape, dtype=torch.int8), new(shape[:-1], dtype=torch.float32)
    return (new(shape, dtype=torch.float16),)


def _read(
    split: FeatureSplit,
    select: Select,
    wanted: Wanted,
    buffer: Buffer,
    device: torch.device,
    side: torch.cuda.Stream | None,
) -> Batch:
    """One batch, whose values are on the device when this returns."""
    clips, views, rng = wanted
    read_into(buffer, split, clips, views)
    chosen = {} if split.targets is None else select(split.targets, clips, views, rng)
    targets, parts = {name: torch.from_numpy(values) for name, values in chosen.items()}, buffer
    if side is not None:
        rows = targets
        # Within the block tensors belong to the side stream; the thread's own stream is never waited for.
        with torch.cuda.stream(side):
            parts = tuple(part.to(device, non_blocking=True) for part in buffer)
            targets = {name: values.to(device, non_blocking=True) for name, values in rows.items()}
            copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            copied.record(side)
        # The buffer and `rows` are free again only when the copies have left them.
        copied.synchronize()
    return Batch(clips=clips.astype(np.int64), tokens=as_tokens(parts), targets=targets)


def as_tokens(buffer: Buffer) -> Native:
    """Stored tokens as heads take them, rows and columns of the grid on one axis; nothing is copied."""
    values, *scales = (part.flatten(2, 3) for part in buffer)
    return QuantizedTokens(values=values, scales=scales[0]) if scales else values


def read_into(
    buffer: Buffer, split: FeatureSplit, clips: Int64[np.ndarray, " B"], views: Int64[np.ndarray, " B"]
) -> None:
    """Fill `buffer`, in the host's memory and of as many rows as there are clips, with tokens as stored.

    Raises:
        StoreError: a chunk is damaged.
    """
    store, arrays = split.store, [part.numpy() for part in buffer]
    if store.spec.dtype == "int8":
        store.read_quantized(clips, views=views, layer=split.layer, out=(arrays[0], arrays[1]))
    else:
        store.read(clips, views=views, layer=split.layer, out=arrays[0])


def _handed_over(batch: Batch, device: torch.device) -> Batch:
    """Keep the memory of a batch from its side stream for as long as the stream that uses it needs it."""
    if device.type == "cuda":
        using = torch.cuda.current_stream(device)
        tokens = batch.tokens
        parts = (tokens.values, tokens.scales) if isinstance(tokens, QuantizedTokens) else (tokens,)
        for tensor in (*parts, *batch.targets.values()):
            tensor.record_stream(using)
    return batch
