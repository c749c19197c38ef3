"""What people read cached features with today: each opens the store or a copy, and reads whole batches.

Each is used as its documentation advises for random batches, in the quickest way that we found; those that
cannot fetch given clips (webdataset) give what their own shuffling draws. Labels come along.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from featcache.store.feature_store import FeatureStore
from tests.benchmarks.stores import LAYER, Setting

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Clip numbers, float16 [B, T, H, W, C], labels uint8 [B, class]."""

Read = Callable[[np.ndarray], Batch]
"""The batch of the clips asked for, or another one that says which it is."""

Open = Callable[[FeatureStore, Setting, Path], Read]


def memmap(store: FeatureStore, setting: Setting, folder: Path) -> Read:
    """One flat file; its pages stay mapped. `numpy.take` copies into a new array."""
    labels = store.targets.read("labels")
    tokens = np.memmap(folder / "tokens.dat", np.float16, "w+", shape=(setting.n_clips, *setting.grid.shape))
    for clip in range(setting.n_clips):
        tokens[clip] = store.read([clip])[0]
    tokens.flush()
    return lambda clips: (clips, tokens[clips], labels[clips])


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
    out = np.empty((setting.batch, *setting.grid.shape), np.float16)

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
    out = np.empty((setting.batch, *setting.grid.shape), np.float16)

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
    out = np.empty((setting.batch, *setting.grid.shape), np.float16)

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
    out = np.empty((setting.batch, *setting.grid.shape), np.float16)

    def read(clips: np.ndarray) -> Batch:
        drawn, classes = np.empty_like(clips), []
        for row in range(setting.batch):
            sample = next(samples)
            drawn[row] = int(sample["__key__"])
            out[row] = np.frombuffer(sample["tokens"], np.float16).reshape(setting.grid.shape)
            classes.append(np.frombuffer(sample["label"], np.uint8))
        return drawn, out, np.stack(classes)

    return read


def litdata(store: FeatureStore, setting: Setting, folder: Path) -> Read:
    """LitData's own chunks, written with its writer, items fetched by number."""
    from litdata import StreamingDataset
    from litdata.streaming.writer import BinaryWriter

    labels = store.targets.read("labels")
    (folder / "litdata").mkdir()
    writer = BinaryWriter(str(folder / "litdata"), chunk_size=setting.clips_per_shard)
    for clip in range(setting.n_clips):
        writer[clip] = {"tokens": store.read([clip])[0], "label": labels[clip]}
    writer.done()
    writer.merge()
    items = StreamingDataset(str(folder / "litdata"))
    out = np.empty((setting.batch, *setting.grid.shape), np.float16)

    def read(clips: np.ndarray) -> Batch:
        classes = []
        for row, clip in enumerate(clips.tolist()):
            item = items[clip]
            out[row] = item["tokens"]
            classes.append(item["label"])
        return clips, out, np.stack(classes)

    return read


def zarr_threads(store: FeatureStore, setting: Setting, folder: Path) -> Read:
    """As `zarr_python`, from as many threads as ours."""
    import zarr

    labels = store.targets.read("labels")
    array = zarr.open_group(store.path, mode="r")[LAYER.array]
    out = np.empty((setting.batch, *setting.grid.shape), np.float16)
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
    "tensorstore": ("tensorstore", tensorstore),
    "xarray + dask": ("xarray", xarray_dask),
}
"""Name -> package and how to open it: other doors into the same store."""

OWN_COPY: dict[str, tuple[str, Open]] = {
    "np.memmap": ("numpy", memmap),
    "Arrow (datasets)": ("datasets", arrow),
    "webdataset": ("webdataset", webdataset),
    "LitData": ("litdata", litdata),
}
"""The same tensors in their own formats."""


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
