"""Random batches with labels from a store in the page cache: beside the floor, and what people use.

The floor is the same byte ranges by `preadv`, by the same number of threads, into warm buffers, nothing else.
"""

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from featcache.store.feature_store import FeatureStore, open_features
from featcache.store.header import StoreHeader
from featcache.store.matching import refuse_other
from featcache.store.shards import file_bytes
from featcache.store.zarr_format import shard_key
from tests.benchmarks.rivals import OWN_COPY, SAME_STORE, Batch, Read, opened
from tests.benchmarks.side_by_side import Claim, claim, in_turn
from tests.benchmarks.stores import FULL, LAYER, SMALL, Setting, draws, write_store

GROUP = "reading"


def measure(small: bool) -> list[Claim]:
    """Claims about reading; raises AssertionError if a rival does not return what we return."""
    setting = SMALL if small else FULL
    with TemporaryDirectory() as folder:
        store = write_store(Path(folder), setting)
        others = opened({**SAME_STORE, **OWN_COPY}, store, setting, Path(folder))
        readers = {"ours": ours(store, setting), **others}
        refuse_differences(readers, setting)
        return [
            *_opening_claims(store, setting),
            *_floor_claims(store, setting),
            *_rival_claims(readers, setting),
        ]


def ours(store: FeatureStore, setting: Setting, *, verify: bool = True) -> Read:
    """`FeatureStore.read` into a warm buffer."""
    labels, out = store.targets.read("labels"), _warm_buffer(setting)

    def read(clips: np.ndarray) -> Batch:
        store.read(clips, out=out, verify=verify, threads=setting.threads)
        return clips, out, labels[clips]

    return read


def ours_at_first(store: FeatureStore, setting: Setting) -> Read:
    """The first read of each clip: files are opened, every checksum is verified."""
    labels, out = store.targets.read("labels"), _warm_buffer(setting)

    def read(clips: np.ndarray) -> Batch:
        FeatureStore(store.path, store.header).read(clips, out=out, threads=setting.threads)
        return clips, out, labels[clips]

    return read


def raw(store: FeatureStore, setting: Setting) -> Read:
    """The floor: a share of the batch a thread, one `preadv` a clip. It knows where every chunk is."""
    out, spec = _warm_buffer(setting), store.spec
    files = [os.open(store.shard_path(LAYER, shard), os.O_RDONLY) for shard in range(spec.n_shards)]
    rows = [memoryview(row).cast("B") for row in out]
    stride = spec.all_arrays[0].stride
    pool = ThreadPoolExecutor(setting.threads)
    shares = np.array_split(np.arange(setting.batch), setting.threads)

    def fill(clips: list[int], share: list[int]) -> None:
        for row in share:
            shard, position = divmod(clips[row], spec.clips_per_shard)
            os.preadv(files[shard], [rows[row]], position * stride)

    def read(clips: np.ndarray) -> Batch:
        numbers = clips.tolist()
        list(pool.map(lambda share: fill(numbers, share.tolist()), shares))
        return clips, out, np.empty(0)

    return read


def refuse_differences(readers: dict[str, Read], setting: Setting) -> None:
    """Every reader gives the tokens and labels that ours gives for the clips it says it read."""
    clips = next(draws(setting, seed=1))
    for name, read in readers.items():
        drawn, tokens, labels = (part.copy() for part in read(clips))
        _, wanted, wanted_labels = readers["ours"](drawn)
        assert np.array_equal(tokens.view(np.uint16), wanted.view(np.uint16)), name
        assert np.array_equal(labels, wanted_labels), name


def opened_as_before(path: Path) -> FeatureStore:
    """A store opened by what version 1 had to look at: its header, and the size of every shard."""
    header = StoreHeader.from_metadata(json.loads((path / "zarr.json").read_bytes()))
    refuse_other(path, header, fingerprint=None, parts=None)
    store = FeatureStore(path, header)
    for array in store.spec.all_arrays:
        for shard in range(store.spec.n_shards):
            kept = len(set(store.spec.rows_of_shard(shard)) - store.skipped_rows)
            assert (path / shard_key(array, shard)).stat().st_size == file_bytes(array, kept)
    return store


def _opening_claims(store: FeatureStore, setting: Setting) -> list[Claim]:
    """To open a store and read a first batch of it: digests are compared with what the batch needs anyway."""
    clips, out = next(draws(setting)), _warm_buffer(setting)

    def first_batch(opened: Callable[[Path], FeatureStore]) -> Callable[[], object]:
        return lambda: opened(store.path).read(clips, out=out, threads=setting.threads)

    calls: dict[str, Callable[[], object]] = {
        "opened as version 1 was": lambda: opened_as_before(store.path),
        "opened": lambda: open_features(store.path),
        "opened as version 1 was, a batch": first_batch(opened_as_before),
        "opened, a batch": first_batch(open_features),
    }
    times = in_turn(calls, rounds=setting.rounds)
    return [
        claim(times, group=GROUP, what=f"{name}{of} / {'opened as version 1 was'}{of}", over=f"{name}{of}",
              under=f"opened as version 1 was{of}", target=target, at_least=False)
        for name, of, target in (("opened", "", None), ("opened", ", a batch", 1.1))
    ]  # fmt: skip


def _floor_claims(store: FeatureStore, setting: Setting) -> list[Claim]:
    store = open_features(store.path)
    store.read(np.arange(setting.n_clips))
    readers = {
        "raw preadv": raw(store, setting),
        "ours": ours(store, setting),
        "ours, never verified": ours(store, setting, verify=False),
        "ours, first read": ours_at_first(store, setting),
    }
    times = in_turn(_calls(readers, setting), rounds=setting.rounds)
    asked = {"ours": 0.9, "ours, never verified": 0.9, "ours, first read": 0.8}
    return [
        claim(times, group=GROUP, what=f"raw preadv / {name}", over="raw preadv", under=name, target=target)
        for name, target in asked.items()
    ]


def _rival_claims(readers: dict[str, Read], setting: Setting) -> list[Claim]:
    times = in_turn(_calls(readers, setting), rounds=max(2, setting.rounds // 3))
    return [
        claim(
            times, group=GROUP, what=f"{name} / ours", over=name, under="ours",
            target=4.0 if name in SAME_STORE else 1.0,
        )
        for name in readers
        if name != "ours"
    ]  # fmt: skip


def _calls(readers: dict[str, Read], setting: Setting) -> dict[str, Callable[[], object]]:
    """Calls of one batch each; all readers meet the same batches."""

    def call(read: Read) -> Callable[[], object]:
        batches = draws(setting)
        return lambda: read(next(batches))

    return {name: call(read) for name, read in readers.items()}


def _warm_buffer(setting: Setting) -> np.ndarray:
    return np.ones((setting.batch, *setting.grid.shape), np.float16)
