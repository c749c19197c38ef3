"""Random batches with labels from a store in the page cache: beside the floor, and what people use.

The floors are a copy between memories, and the same byte ranges by `preadv`, by the same number of threads,
into warm buffers that begin with a page, nothing else.
"""

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from fastcrc import crc32

from featcache.store.feature_store import FeatureStore, open_features
from featcache.store.header import StoreHeader
from featcache.store.matching import refuse_other
from featcache.store.shards import file_bytes
from featcache.store.zarr_format import shard_key
from tests.benchmarks.rivals import OWN_COPY, SAME_STORE, Batch, Read, opened, warm_buffer
from tests.benchmarks.side_by_side import Claim, claim, in_turn
from tests.benchmarks.stores import FULL, LAYER, SMALL, Setting, draws, write_store

GROUP = "reading"

TARGETS = {"zarrista": 1.5}
"""Of rivals that are nearer than the others of their kind."""


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


def ours(store: FeatureStore, setting: Setting) -> Read:
    """`FeatureStore.read` into a warm buffer."""
    labels, out = store.targets.read("labels"), warm_buffer(setting)

    def read(clips: np.ndarray) -> Batch:
        store.read(clips, out=out, threads=setting.threads)
        return clips, out, labels[clips]

    return read


def ours_at_first(store: FeatureStore, setting: Setting) -> Read:
    """The first read of each clip by a store that is open: every checksum is verified."""
    read = ours(store, setting)

    def read_first(clips: np.ndarray) -> Batch:
        for reader in store._readers.values():
            reader._verified[:] = False
        return read(clips)

    return read_first


def bare(store: FeatureStore, setting: Setting, *, verify: bool = False) -> Read:
    """The floor: a share of the batch a thread, one `preadv` a clip, and the crc32c of what came.

    It knows where every chunk is; chunks and buffer begin with a page.
    """
    out, spec = warm_buffer(setting), store.spec
    files = [os.open(store.shard_path(LAYER, shard), os.O_RDONLY) for shard in range(spec.n_shards)]
    rows = [memoryview(row).cast("B") for row in out]
    stride = spec.all_arrays[0].stride
    pool = ThreadPoolExecutor(setting.threads)
    shares = np.array_split(np.arange(setting.batch), setting.threads)

    def fill(clips: list[int], share: list[int]) -> None:
        for row in share:
            shard, position = divmod(clips[row], spec.clips_per_shard)
            os.preadv(files[shard], [rows[row]], position * stride)
            if verify:
                crc32.iscsi(rows[row])

    def read(clips: np.ndarray) -> Batch:
        numbers = clips.tolist()
        list(pool.map(lambda share: fill(numbers, share.tolist()), shares))
        return clips, out, np.empty(0)

    return read


def copy_floor(setting: Setting) -> Read:
    """The floor of whoever copies: as many bytes from one place in memory to another, in two threads."""
    source, out, pool = warm_buffer(setting), warm_buffer(setting), ThreadPoolExecutor(2)
    halves = slice(0, setting.batch // 2), slice(setting.batch // 2, setting.batch)
    # A batch's clips lie all over a store that no cache holds: nor may this one be in it.
    flush = [source, *(warm_buffer(setting) for _ in range(3))]

    def read(clips: np.ndarray) -> Batch:
        flush.append(flush.pop(0))
        list(pool.map(lambda rows: np.copyto(out[rows], flush[0][rows]), halves))
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
    clips, out = next(draws(setting)), warm_buffer(setting)

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
    readers = {
        "memory copy": copy_floor(setting),
        "bare preadv": bare(store, setting),
        "bare preadv + crc32c": bare(store, setting, verify=True),
        "ours": ours(store, setting),
        "ours, first read": ours_at_first(open_features(store.path), setting),
    }
    _warm(readers, setting)
    times = in_turn(_calls(readers, setting), rounds=setting.rounds)
    asked = (
        ("memory copy", "ours", 0.9),
        ("bare preadv", "ours", 0.9),
        ("bare preadv + crc32c", "ours, first read", 0.9),
    )
    return [
        claim(times, group=GROUP, what=f"{floor} / {name}", over=floor, under=name, target=target)
        for floor, name, target in asked
    ]


def _rival_claims(readers: dict[str, Read], setting: Setting) -> list[Claim]:
    _warm(readers, setting)
    times = in_turn(_calls(readers, setting), rounds=max(2, setting.rounds // 3))
    return [
        claim(
            times, group=GROUP, what=f"{name} / ours", over=name, under="ours",
            target=TARGETS.get(name, 4.0 if name in SAME_STORE else 1.0),
        )
        for name in readers
        if name != "ours"
    ]  # fmt: skip


def _warm(readers: dict[str, Read], setting: Setting) -> None:
    """Have every reader read every clip twice: files are open, ours verified, pages mapped."""
    for read in readers.values():
        for at in (*range(0, setting.n_clips, setting.batch), *range(0, setting.n_clips, setting.batch)):
            read(np.arange(at, at + setting.batch))


def _calls(readers: dict[str, Read], setting: Setting) -> dict[str, Callable[[], object]]:
    """Calls of one batch each; all readers meet the same batches."""

    def call(read: Read) -> Callable[[], object]:
        batches = draws(setting)
        return lambda: read(next(batches))

    return {name: call(read) for name, read in readers.items()}
