"""Finished stores to batches on the device: seeded draws, reads ahead, reused buffers.

What is drawn at a step is a pure function of (seed, step), so a resumed run and one that never stopped see
the same batches, whatever the number of threads.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from featcache.errors import CallError, StoreError
from featcache.spec import Layer, Starts
from featcache.store.feature_store import FeatureStore, find_stores, open_features, store_paths
from featcache.store.matching import compatible
from featcache.store.targets import Targets
from featcache.system.console import extract_command
from readouts.features.draws import Draws
from readouts.tokens.prepared import Native, QuantizedTokens

READ_AHEAD = 2
"""Batches being read while one is being used."""

SUBSET_SEED = 0
"""Of the order in which smaller shares of a split's clips are cut off."""


Select = Callable[
    [Targets, Int64[np.ndarray, " B"], Int64[np.ndarray, " B"], np.random.Generator | None],
    dict[str, np.ndarray],
]
"""A task's choice of targets for clips and views (`readouts.tasks.base.Task.select`)."""

Wanted = tuple[Int64[np.ndarray, " B"], Int64[np.ndarray, " B"], np.random.Generator | None]
"""Clips and views of a batch, and what draws from its targets in training."""


Room = tuple[Tensor, ...]
"""Where a batch is read to: float16 tokens, or int8 ones and their scales."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Clips of one split: their tokens on the device, and what the task wants to know of them."""

    clips: Int64[np.ndarray, " B"]
    tokens: Native
    targets: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class FeatureSplit:
    """One finished store with its targets, at one layer; or a part of it."""

    store: FeatureStore
    layer: Layer
    fraction: float = 1.0
    """Share of the clips that is used: nested random subsets, in the order of the file."""
    first_views: int = 0
    """Views that are drawn from; 0 for all."""

    def __post_init__(self) -> None:
        if self.first_views > self.store.spec.n_views:
            raise CallError(
                f"{self.store.path} holds {self.store.spec.n_views} views of a clip, not "
                f"{self.first_views}: extract it with --views {self.first_views}."
            )

    @cached_property
    def targets(self) -> Targets | None:
        """Open, not loaded; None where the split has none."""
        return self.store.targets

    @cached_property
    def usable(self) -> Int64[np.ndarray, " n"]:
        """Clip numbers that hold features, all but those skipped when the store was written, or a share."""
        numbers = np.arange(self.store.spec.n_clips)
        there = np.setdiff1d(numbers, np.fromiter(self.store.skipped_clips, np.int64))
        if self.fraction == 1:
            return there
        # One order for all shares, so that a smaller one is part of a larger one.
        order = np.random.default_rng(SUBSET_SEED).permutation(len(there))
        return np.sort(there[order[: max(1, round(self.fraction * len(there)))]])

    @property
    def n_views(self) -> int:
        """Frozen views of each clip."""
        return self.first_views or self.store.spec.n_views

    @cached_property
    def distinct_views(self) -> int | tuple[int, ...]:
        """Views of each usable clip without repeats: fewer where it is too short for all starts."""
        starts = of_views(self.store, "starts")
        if starts is None:
            return self.n_views
        lengths = np.asarray(self.store.clips.column("n_source"))[self.usable]
        counts = tuple(min(self.n_views, len(Starts(**starts).choices(int(n)))) for n in lengths)
        return counts[0] if len(set(counts)) == 1 else counts

    @cached_property
    def shards(self) -> Int64[np.ndarray, " n"]:
        """The shard of each usable clip."""
        return self.store.shards_of(self.usable)


def open_split(path: Path, layer: Layer | None = None) -> FeatureSplit:
    """Open a finished store and its targets at `layer`; None takes the only one it holds.

    Raises:
        StoreError: not a finished store, or it does not hold the layer.
    """
    store = open_features(path)
    names = ", ".join(known.name for known in store.spec.layers)
    if layer is None and len(store.spec.layers) > 1:
        raise StoreError(f"{path} holds layers {names}: say which with --layer.")
    chosen = layer or store.spec.layers[0]
    if chosen not in store.spec.layers:
        raise StoreError(
            f"{path} holds layers {names}, not {chosen.name}: extract it with --layers {chosen.name}."
        )
    return FeatureSplit(store=store, layer=chosen)


def draws_of(split: FeatureSplit, *, batch: int, seed: int, mix_shards: int = 0) -> Draws:
    """What each step of training takes of a split."""
    return Draws(
        n_clips=len(split.usable),
        n_views=split.distinct_views,
        batch=batch,
        seed=seed,
        shards=split.shards if mix_shards else None,
        mix_shards=mix_shards,
    )


def wanted_at(split: FeatureSplit, draws: Draws, step: int) -> Wanted:
    """Clips and views of one step, and what draws from their targets."""
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
    ring: deque[Room] = deque()
    ahead: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(1, "read ahead") as reader:
        try:
            for clips, views, rng in wanted:
                if len(ahead) > READ_AHEAD:
                    yield _handed_over(ahead.popleft().result(), device)
                room = _room(ring, split, len(clips), device)
                ahead.append(reader.submit(_read, split, select, (clips, views, rng), room, device, side))
            while ahead:
                yield _handed_over(ahead.popleft().result(), device)
        finally:
            for future in ahead:
                future.cancel()


def _room(ring: deque[Room], split: FeatureSplit, n_clips: int, device: torch.device) -> Room:
    """The room that was handed out longest ago, or a new one: fresh pages cost as much as the read."""
    if len(ring) == READ_AHEAD + 2:
        oldest = ring.popleft()
        if len(oldest[0]) >= n_clips:
            ring.append(oldest)
            return tuple(part[:n_clips] for part in oldest)
    ring.append(new_room(split, n_clips, pinned=device.type == "cuda"))
    return ring[-1]


def new_room(
    split: FeatureSplit, n_rows: int, *, pinned: bool = False, device: torch.device | None = None
) -> Room:
    """Room for clips and views of a split as they are stored, on the host unless a device is named."""
    new = partial(torch.empty, pin_memory=pinned, device=device)
    shape = (n_rows, *split.store.spec.grid.shape)
    if split.store.spec.dtype == "int8":
        return new(shape, dtype=torch.int8), new(shape[:-1], dtype=torch.float32)
    return (new(shape, dtype=torch.float16),)


def _read(
    split: FeatureSplit,
    select: Select,
    wanted: Wanted,
    room: Room,
    device: torch.device,
    side: torch.cuda.Stream | None,
) -> Batch:
    """One batch, whose values are on the device when this returns."""
    clips, views, rng = wanted
    read_into(room, split, clips, views)
    chosen = {} if split.targets is None else select(split.targets, clips, views, rng)
    targets, parts = {name: torch.from_numpy(values) for name, values in chosen.items()}, room
    if side is not None:
        rows = targets
        # Within the block tensors belong to the side stream; the thread's own stream is never waited for.
        with torch.cuda.stream(side):
            parts = tuple(part.to(device, non_blocking=True) for part in room)
            targets = {name: values.to(device, non_blocking=True) for name, values in rows.items()}
            copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            copied.record(side)
        # The room and `rows` are free again only when the copies have left them.
        copied.synchronize()
    return Batch(clips=clips.astype(np.int64), tokens=as_tokens(parts), targets=targets)


def as_tokens(room: Room) -> Native:
    """What was read, as heads take it."""
    values, *scales = (part.flatten(2, 3) for part in room)
    return QuantizedTokens(values=values, scales=scales[0]) if scales else values


def read_into(
    room: Room, split: FeatureSplit, clips: Int64[np.ndarray, " B"], views: Int64[np.ndarray, " B"]
) -> None:
    """Fill `room`, in the host's memory and of as many rows as there are clips, with tokens as stored.

    Raises:
        StoreError: a chunk is damaged.
    """
    store, arrays = split.store, [part.numpy() for part in room]
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


def targets_fingerprint(split: FeatureSplit) -> str | None:
    """Which targets a split has; None where the task has none."""
    reference = split.store.header.targets
    return None if reference is None else reference.fingerprint


def split_decisions(split: FeatureSplit) -> dict[str, Any]:
    """What of a split decides a run's numbers: its features, its targets, the replay of up-sampling."""
    replay = {name: split.store.attrs[name] for name in ("upsampling", "readout_steps")}
    features = {"features": split.store.fingerprint, "layer": split.layer.name}
    return {**features, "targets": targets_fingerprint(split), **replay}


def of_views(store: FeatureStore, name: str) -> Any:
    """A setting of the views of a store, `seed` or `starts`; None where it has only the evaluation view."""
    views = store.parts.get("views")
    return views.get(name) if isinstance(views, Mapping) else None


def open_task_splits(
    cache_dir: Path | str,
    task: str,
    backbone: str,
    *,
    roles: Sequence[str],
    layer: str | None = None,
    fingerprint: str | None = None,
    extract: str | None = None,
) -> dict[str, FeatureSplit]:
    """Role -> the finished store of `backbone` for that role, all of them extracted alike.

    `fingerprint` chooses among several training stores by its first digits; the stores of the other roles
    are those that fit it. `extract` is the command that would make them, for messages; "" says none.

    Raises:
        StoreError: a store is missing or unfinished, several would fit, or they were not extracted alike.
    """
    cache_dir, chosen = Path(cache_dir), None if layer is None else Layer.parse(layer)
    if extract is None:
        extract = extract_command(backbone, task, cache_dir=cache_dir)
    train = open_split(_only_store(cache_dir, task, "train", backbone, fingerprint, extract), chosen)
    splits = {"train": train}
    for role in roles:
        if role != "train":
            path = _fitting_store(cache_dir, task, role, backbone, train.store, extract)
            splits[role] = open_split(path, train.layer)
    return splits


def evaluated_store(cache_dir: Path, row: Mapping[str, Any], role: str) -> FeatureStore:
    """The very store that a row of the results table was scored on.

    Raises:
        StoreError: it is no longer there.
    """
    for store in find_stores(cache_dir, str(row["task"]), role):
        if store.fingerprint == row[f"{role}_fingerprint"]:
            return store
    raise StoreError(
        f"the {role} store of run {row['run']}, {row[f'{role}_store']}, is not in {cache_dir}: give the "
        "folder it was trained from with --cache-dir."
    )


def _only_store(
    cache_dir: Path, task: str, role: str, backbone: str, fingerprint: str | None, extract: str
) -> Path:
    found = find_stores(cache_dir, task, role, backbone)
    if not found:
        for path in store_paths(cache_dir, task, role, backbone):
            open_features(path)  # it is there and cannot be read: says why
        way_out = f": make one with `{extract}`" if extract else ""
        raise StoreError(f"no {role} store of {backbone} for {task} in {cache_dir}{way_out}.")
    fitting = [store for store in found if store.fingerprint.startswith(fingerprint or "")]
    if len(fitting) != 1:
        listed = "".join(f"\n  {store.path.name}: {_about(store)}" for store in found)
        wanted = f"{len(fitting)} of them begin with {fingerprint}" if fingerprint else "say which"
        raise StoreError(
            f"{len(found)} {role} stores of {backbone} for {task} are in {cache_dir}; {wanted} by the first "
            f"digits of its fingerprint (--fingerprint, in a grid fingerprint=):{listed}"
        )
    return fitting[0].path


def _fitting_store(
    cache_dir: Path, task: str, role: str, backbone: str, train: FeatureStore, extract: str
) -> Path:
    """The one store of `role` that was extracted like `train`; the refusal says in what others differ."""
    found = find_stores(cache_dir, task, role, backbone)
    fitting, refusals = [], []
    for store in found:
        try:
            compatible(train, store)
            fitting.append(store)
        except StoreError as problem:
            refusals.append(str(problem))
    if len(fitting) > 1:
        listed = ", ".join(store.path.name for store in fitting)
        raise StoreError(
            f"{len(fitting)} {role} stores fit {train.path.name} ({listed}): move all but one away."
        )
    if not fitting and refusals:
        raise StoreError(refusals[0])
    return fitting[0].path if fitting else _only_store(cache_dir, task, role, backbone, None, extract)


def _about(store: FeatureStore) -> str:
    layers = " ".join(layer.name for layer in store.spec.layers)
    views = f"{store.spec.n_views} views"
    if store.spec.n_views > 1:
        views += f" of seed {of_views(store, 'seed')}"
    numbers = f"{store.spec.dtype}, computed in {store.parts['backbone'].get('precision')}"
    state = "complete" if store.complete else "unfinished"
    return f"layers {layers}, {views}, {store.spec.n_clips} clips, {numbers}, {state}"
