"""Reading and writing a store beside the floor: the same bytes by raw system calls, in the same run."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr

from featcache.spec import Layer
from featcache.store import FeatureStore

BATCH, THREADS = 32, 4


@pytest.fixture(scope="module")
def draws(store: FeatureStore) -> np.ndarray:
    return np.random.default_rng(0).integers(store.spec.n_clips, size=(200, BATCH))


@pytest.mark.benchmark(group="read 32 random clips")
def test_raw_preadv(benchmark, store: FeatureStore, draws: np.ndarray) -> None:
    """The floor: ranges of the shard files into warm buffers, four threads."""
    spec, out = store.spec, np.empty((BATCH, *store.spec.grid.shape), np.float16)
    paths = [store.shard_path(Layer(12), shard) for shard in range(spec.n_shards)]
    files = [os.open(path, os.O_RDONLY) for path in paths]
    batches = iter(np.tile(draws, (50, 1)))

    def rows(part: np.ndarray, clips: np.ndarray) -> None:
        for row in part:
            shard, position = divmod(int(clips[row]), spec.clips_per_shard)
            os.preadv(files[shard], [memoryview(out[row]).cast("B")], position * (spec.grid.nbytes + 4))

    with ThreadPoolExecutor(THREADS) as pool:
        parts = np.array_split(np.arange(BATCH), THREADS)
        benchmark(lambda clips: list(pool.map(rows, parts, [clips] * THREADS)), next(batches))


@pytest.mark.benchmark(group="read 32 random clips")
def test_ours(benchmark, store: FeatureStore, draws: np.ndarray) -> None:
    """FeatureStore.read into a warm buffer; checksums verified at first read."""
    out = np.empty((BATCH, *store.spec.grid.shape), np.float16)
    batches = iter(np.tile(draws, (50, 1)))
    benchmark(lambda: store.read(next(batches), out=out, threads=THREADS))


@pytest.mark.benchmark(group="read 32 random clips")
def test_zarr_python(benchmark, store: FeatureStore, draws: np.ndarray) -> None:
    """The same store by zarr-python, clip by clip."""
    array = zarr.open_group(store.path, mode="r")["tokens_12"]
    batches = iter(np.tile(draws, (50, 1)))
    benchmark(lambda: [array[int(clip), 0] for clip in next(batches)])


@pytest.mark.benchmark(group="write a shard")
def test_plain_write_and_fsync(benchmark, tmp_path: Path, store: FeatureStore, tokens: np.ndarray) -> None:
    """The floor: the same bytes in one file, then fsync."""
    data = np.ascontiguousarray(tokens[: store.spec.clips_per_shard])

    def write() -> None:
        fd = os.open(tmp_path / "plain", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.write(fd, memoryview(data).cast("B"))
        os.fsync(fd)
        os.close(fd)

    benchmark(write)


@pytest.mark.benchmark(group="write a shard")
def test_write_shard(benchmark, tmp_path: Path, store: FeatureStore, tokens: np.ndarray) -> None:
    """StoreWriter.write_shard of float16 tokens: rounding check, checksums, fsync, rename."""
    from featcache.clips import CLIP_SCHEMA, ClipIndex
    from featcache.writer import create_or_resume

    index = ClipIndex(store.clips.select(CLIP_SCHEMA.names).cast(CLIP_SCHEMA))
    data = np.ascontiguousarray(tokens[: store.spec.clips_per_shard])
    with create_or_resume(
        tmp_path / "w.zarr", spec=store.spec, parts={}, clips=index, provenance={}, attrs={"targets": None}
    ) as writer:
        benchmark(lambda: writer.write_shard(0, {Layer(12): data}))
