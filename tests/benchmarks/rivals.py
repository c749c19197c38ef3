"""What people read cached features with today: each opens the store or a copy, and reads whole batches.

Each is used as its documentation advises for random batches, in the quickest way that we found; those that
cannot fetch given clips (webdataset) give what their own shuffling draws. Labels come along.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from math import prod
from pathlib import Path

import numpy as np

from featcache.store.feature_store import FeatureStore
from featcache.store.reading.destinations import aligned_empty
from tests.benchmarks.stores import LAYER, Setting

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Clip numbers, float16 [B, T, H, W, C], labels uint8 [B, class]."""

Read = Callable[[np.ndarray], Batch]
"""The batch of the clips asked for, or another one that says which it is."""

Open = Callable[[FeatureStore, Setting, Path], Read]


def memmap(store: FeatureStore, setting: Setting, folder: Path) -> Read:
    """One flat file; its pages stay mapped. An index of clips copies into a new array."""
    labels, tokens = store.targets.read("labels"), _mapped_file(store, setting, folder)
    return lambda clips: (clips, tokens[clips], labels[clips])


def take(store: FeatureStore, setting: Setting, folder: Path) -> Read:
    """The same file, copied into one buffer again and again, in one thread."""
    return _taken(store, setting, folder, n_threads=1)


def take_in_threads(store: FeatureStore, setting: Setting, folder: Path) -> Read:
    """The same in as many threads as there are cores, a share of the batch each: nothing but a copy."""
    return _taken(store, setting, folder, n_threads=min(setting.threads, len(os.sched_getaffinity(0))))


def _taken(store: FeatureStore, setting: Setting, folder: Path, *, n_threads: int) -> Read:
    labels, tokens = store.targets.read("labels"), _mapped_file(store, setting, folder)
    out, pool = warm_buffer(setting), ThreadPoolExecutor(n_threads)
    shares = [slice(of[0], of[-1] + 1) for of in np.array_split(np.arange(setting.batch), n_threads)]

    def read(clips: np.ndarray) -> Batch:
        def fill(rows: slice) -> None:
            # With "clip" numpy writes to `out` at once, and not by way of a buffer.
            np.take(tokens, clips[rows], axis=0, out=out[rows], mode="clip")

        list(pool.map(fill, shares)) if n_threads > 1 else fill(shares[0])
        return clips, out, labels[clips]

    return read


def torch_file(store: FeatureStore, setting: Setting, folder: Path) -> Read:
    """The same file as a mapped tensor, rows selected into one buffer."""
    import torch

    labels, _ = store.targets.read("labels"), _mapped_file(store, setting, folder)
    shape = (setting.n_clips, *setting.grid.shape)
    flat = torch.from_file(str(folder / FLAT), shared=False, size=prod(shape), dtype=torch.float16)
    tokens, out = flat.view(shape), torch.from_numpy(warm_buffer(setting))

    def read(clips: np.ndarray) -> Batch:
        torch.index_select(tokens, 0, torch.from_numpy(clips), out=out)
        return clips, out.numpy(), labels[clips]

    return read


def safetensors(store: FeatureStore, setting: Setting, folder: Path) -> Read:
    """One file with a tensor a clip, mapped."""
    from safetensors import safe_open
    from safetensors.numpy import save_file

    clips = {str(clip): store.read([clip])[0].copy() for clip in range(setting.n_clips)}
    save_file(clips, folder / "tokens.safetensors")
    labels, out = store.targets.read("labels"), warm_buffer(setting)
    file = safe_open(folder / "tokens.safetensors", framework="pt").__enter__()

    def read(clips: np.ndarray) -> Batch:
        for row, clip in enumerate(clips.tolist()):
            out[row] = file.get_tensor(str(clip)).numpy()
        return clips, out, labels[clips]

    return read


def hdf5(store: FeatureStore, setting: Setting, folder: Path) -> Read:
    """One contiguous data set, each clip read straight into its place."""
    import h5py

    with h5py.File(folder / "tokens.h5", "w") as file:
        made = file.create_dataset("tokens", (setting.n_clips, *setting.grid.shape), np.float16)
        for clip in range(setting.n_clips):
            made[clip] = store.read([clip])[0]
    labels, out = store.targets.read("labels"), warm_buffer(setting)
    tokens = h5py.File(folder / "tokens.h5", "r")["tokens"]

    def read(clips: np.ndarray) -> Batch:
        for row, clip in enumerate(clips.tolist()):
            tokens.read_direct(out, np.s_[clip], np.s_[row])
        return clips, out, labels[clips]

    return read


FLAT = "tokens.dat"


def _mapped_file(store: FeatureStore, setting: Setting, folder: Path) -> np.memmap:
    """All tokens in one flat file, written the first time."""
    shape = (setting.n_clips, *setting.grid.shape)
    if not (folder / FLAT).exists():
        tokens = np.memmap(folder / FLAT, np.float16, "w+", shape=shape)
        for clip in range(setting.n_clips):
            tokens[clip] = store.read([clip])[0]
        tokens.flush()
    return np.memmap(folder / FLAT, np.float16, "r", shape=shape)


def warm_buffer(setting: Setting) -> np.ndarray:
    """Memory for a batch that begins with a page and was written to before."""
    out = aligned_empty((setting.batch, *setting.grid.shape), np.float16)
    out[...] = 1
    return out


def zarr_python(store: FeatureStore, setting: Setting, folder: Path) -> Read:
    """The store itself, clip by clip (its `oindex` is a hundred times slower)."""
    import zarr

    return _clip_by_clip(store, setting, zarr.open_group(store.path, mode="r")[LAYER.array])


def zarrs(store: FeatureStore, setting: Setting, folder: Path) -> Read:
    """The store itself through zarr-python with the codec pipeline in Rust."""
    import zarr

    pipeline = {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}
    with zarr.config.set(pipeline):
        array = zarr.open_group(store.path, mode="r")[LAYER.array]
    read = _clip_by_clip(store, setting, array)

    def within(clips: np.ndarray) -> Batch:
        with zarr.config.set(pipeline):
            return read(clips)

    return within


def _clip_by_clip(store: FeatureStore, setting: Setting, array: object) -> Read:
    labels = store.targets.read("labels")
    out = warm_buffer(setting)

    def read(clips: np.ndarray) -> Batch:
        for row, clip in enumerate(clips):
            out[row] = array[int(clip), 0]  # type: ignore[index]
        return clips, out, labels[clips]

    return read


def tensorstore(store: FeatureStore, setting: Setting, folder: Path) -> Read:
    """The store itself, all clips of a batch under way at once, in as many threads as ours."""
    import tensorstore as ts

    labels = store.targets.read("labels")
    kvstore = {"driver": "file", "path": str(store.path / LAYER.array)}
    limit = {"limit": setting.threads}
    context = ts.Context({"data_copy_concurrency": limit, "file_io_concurrency": limit})
    array = ts.open({"driver": "zarr3", "kvstore": kvstore}, read=True, context=context).result()
    out = warm_buffer(setting)

    def read(clips: np.ndarray) -> Batch:
        coming = [array[int(clip), 0].read() for clip in clips]
        for row, future in enumerate(coming):
            out[row] = future.result()
        return clips, out, labels[clips]

    return read


def xarray_dask(store: FeatureStore, setting: Setting, folder: Path) -> Read:
    """The store itself as a lazy Dataset, a dask chunk a clip, computed by dask's threads."""
    import dask

    labels = store.targets.read("labels")
    tokens = store.to_xarray()[LAYER.array].isel(view=0)

    def read(clips: np.ndarray) -> Batch:
        with dask.config.set(scheduler="threads", num_workers=setting.threads):
            return clips, tokens.isel(clip=clips).values, labels[clips]

    return read


def arrow(store: FeatureStore, setting: Setting, folder: Path) -> Read:
    """`datasets`: an Arrow file, memory-mapped; a clip is a binary value, not Arrow's nested lists."""
    import datasets

    def rows() -> Iterator[dict[str, object]]:
        for clip, label in enumerate(store.targets.read("labels")):
            yield {"tokens": store.read([clip]).tobytes(), "label": label.tolist()}

    kinds = {"tokens": datasets.Value("large_binary"), "label": datasets.Sequence(datasets.Value("uint8"))}
    made = datasets.Dataset.from_generator(
        rows, features=datasets.Features(kinds), cache_dir=str(folder / "arrow"), writer_batch_size=16
    ).with_format("arrow")
    out = warm_buffer(setting)

    def read(clips: np.ndarray) -> Batch:
        table = made[clips.tolist()]
        for row, value in enumerate(table["tokens"]):
            out[row] = np.frombuffer(value.as_buffer(), np.float16).reshape(setting.grid.shape)
        return clips, out, np.array(table["label"].to_pylist(), np.uint8)

    return read


def webdataset(store: FeatureStore, setting: Setting, folder: Path) -> Read:
    """tar files read in sequence, shuffled in a buffer of two batches: it cannot fetch a given clip."""
    import webdataset as wds

    (folder / "tars").mkdir()
    labels = store.targets.read("labels")
    pattern = str(folder / "tars" / "%04d.tar")
    with wds.ShardWriter(pattern, maxcount=setting.clips_per_shard, verbose=0) as sink:
        for clip in range(setting.n_clips):
            sample = {"__key__": f"{clip:06d}", "tokens": store.read([clip]).tobytes()}
            sink.write({**sample, "label": labels[clip].tobytes()})
    tars = sorted(str(path) for path in (folder / "tars").iterdir())
    stream = wds.WebDataset(tars, shardshuffle=len(tars), seed=0).repeat().shuffle(2 * setting.batch)
    samples = iter(stream)
    out = warm_buffer(setting)

    def read(clips: np.ndarray) -> Batch:
        drawn, classes = np.empty_like(clips), []
        for row in range(setting.batch):
            sample = next(samples)
            drawn[row] = int(sample["__key__"])
            out[row] = np.frombuffer(sample["tokens"], np.float16).reshape(setting.grid.shape)
            classes.append(np.frombuffer(sample["label"], np.uint8))
        return drawn, out, np.stack(classes)

    return read


def zarrista(store: FeatureStore, setting: Setting, folder: Path) -> Read:
    """The store itself by the Rust library's own bindings, with checksums; an index cache for each thread."""
    from zarrista import Array
    from zarrista.store import FilesystemStore

    n_threads = min(setting.threads, len(os.sched_getaffinity(0)))
    labels, out = store.targets.read("labels"), warm_buffer(setting)
    array = Array.open(FilesystemStore(str(store.path)), f"/{LAYER.array}")
    caches = [array.shard_cache() for _ in range(n_threads)]
    pool = ThreadPoolExecutor(n_threads)
    shares = np.array_split(np.arange(setting.batch), n_threads)
    rest = [0] * (len(array.shape) - 1)

    def read(clips: np.ndarray) -> Batch:
        def fill(number: int) -> None:
            for row in shares[number].tolist():
                chunk = [int(clips[row]), *rest]
                found = array.retrieve_subchunk(chunk, shard_cache=caches[number], concurrent_target=1)
                out[row] = found.to_numpy()[0, 0]

        list(pool.map(fill, range(n_threads)))
        return clips, out, labels[clips]

    return read


def zarr_threads(store: FeatureStore, setting: Setting, folder: Path) -> Read:
    """As `zarr_python`, from as many threads as ours."""
    import zarr

    labels = store.targets.read("labels")
    array = zarr.open_group(store.path, mode="r")[LAYER.array]
    out = warm_buffer(setting)
    pool = ThreadPoolExecutor(setting.threads)

    def fill(row: int, clip: int) -> None:
        out[row] = array[clip, 0]

    def read(clips: np.ndarray) -> Batch:
        list(pool.map(fill, range(setting.batch), clips.tolist()))
        return clips, out, labels[clips]

    return read


SAME_STORE: dict[str, tuple[str, Open]] = {
    "zarr-python": ("zarr", zarr_python),
    "zarr-python, threads": ("zarr", zarr_threads),
    "zarrs": ("zarrs", zarrs),
    "zarrista": ("zarrista", zarrista),
    "tensorstore": ("tensorstore", tensorstore),
    "xarray + dask": ("xarray", xarray_dask),
}
"""Name -> package and how to open it: other doors into the same store."""

OWN_COPY: dict[str, tuple[str, Open]] = {
    "np.memmap": ("numpy", memmap),
    "np.take": ("numpy", take),
    "np.take, threads": ("numpy", take_in_threads),
    "torch.from_file": ("torch", torch_file),
    "safetensors": ("safetensors", safetensors),
    "h5py": ("h5py", hdf5),
    "Arrow (datasets)": ("datasets", arrow),
    "webdataset": ("webdataset", webdataset),
}
"""The same tensors in their own formats.

Left out, as they cannot be installed beside our pinned versions: LitData (wants an older python-dateutil),
mosaicml-streaming with its MDS (an older numpy and transformers).
"""


def opened(
    rivals: dict[str, tuple[str, Open]], store: FeatureStore, setting: Setting, folder: Path
) -> dict[str, Read]:
    """Those that are installed, ready to read."""
    found = {}
    for name, (package, open_) in rivals.items():
        if find_spec(package) is None:
            print(f"{name} is not installed: left out")  # noqa: T201
        else:
            found[name] = open_(store, setting, folder)
    return found
